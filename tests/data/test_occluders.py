"""Things drawn in front of a face."""

import numpy as np

from talkface.data.occluders import LAYER_PIXELS, Textures, draw_occluder


def test_occluders_cover_a_part() -> None:
    generator = np.random.default_rng(0)
    patch = lambda side: generator.integers(0, 255, (side, side, 3), dtype=np.uint8)  # noqa: E731
    textures = Textures([patch(48)], [patch(96)])
    crop = np.full((LAYER_PIXELS, LAYER_PIXELS, 3), 120, np.uint8)
    for _ in range(60):
        layer = draw_occluder(generator, textures, patch(48))
        picture = layer.over(crop, generator)
        assert (layer.alpha.shape, picture.shape) == (
            (LAYER_PIXELS, LAYER_PIXELS),
            (LAYER_PIXELS, LAYER_PIXELS, 3),
        )
        assert layer.alpha.min() >= 0
        assert 0.05 < layer.alpha.max() <= 1.001
        assert layer.alpha.mean() < 0.95
        assert np.isfinite(picture).all()
        assert np.abs(picture - 127.5).max() <= 129
