"""Refiners of other crop sizes: drawing and pasting scale with them; the shipped one stays as it was."""

from typing import Any

import numpy as np
import pytest
import torch

from face_samples import checkered_portrait, draw_speaking
from talkface.errors import InvalidOption
from talkface.face.model import FaceModel
from talkface.rendering.mouth_plate import PLATE_HEIGHT, PLATE_WIDTH, mouth_plate, plate_corners
from talkface.rendering.refiner import Refiner, RefinerConfig


def constant(pixels: int) -> Refiner:
    """A refiner that adds the same to a face whatever its size: mid-grey between the lips and lids."""
    refiner = Refiner.debug(pixels)
    torch.nn.init.zeros_(refiner.head.weight)
    return refiner


def test_the_shipped_refiner_draws_what_it_drew(face: FaceModel) -> None:
    """What it changes of the warp, as means of squares, before crops had other sizes."""
    change = (draw_speaking(face, Refiner.from_pretrained()) - draw_speaking(face, None)).mean(-1)
    squares = change[112:176, 96:160].reshape(4, 16, 4, 16).mean((1, 3))
    before = [
        [0.77, 0.04, -0.08, 0.54],
        [1.06, -1.05, -1.75, 0.51],
        [1.54, -6.45, -4.04, 0.05],
        [0.08, 1.86, 1.75, 0.06],
    ]
    np.testing.assert_allclose(squares, before, atol=0.05)


def middle(change: np.ndarray) -> np.ndarray:
    """Where a picture (H, W, 3) was changed, on the mean: x, y."""
    weight = np.abs(change).sum(-1)
    y, x = np.indices(weight.shape)
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


@pytest.mark.parametrize("times", [1, 2], ids=["small face", "large face"])
def test_a_finer_crop_is_pasted_where_it_was_cut(face: FaceModel, times: int) -> None:
    """The small face's is shrunk first, the large one's is not."""
    plain = draw_speaking(face, None, times)
    usual, fine = (draw_speaking(face, constant(pixels), times) - plain for pixels in (128, 256))
    assert np.abs(usual).max() > 20
    assert np.abs(usual - fine).mean() < 0.2 * np.abs(usual).mean()
    np.testing.assert_allclose(middle(fine), middle(usual), atol=0.11 * times)


def test_a_finer_plate_is_the_usual_one_enlarged(face: FaceModel) -> None:
    image, points = checkered_portrait(face, 2)
    corners = 120 * plate_corners(face.mean) + np.array([256, 220, 0], np.float32)
    mean = np.random.default_rng(0).random((PLATE_HEIGHT, PLATE_WIDTH, 3)).astype(np.float32)
    usual, fine = (mouth_plate(image, points, corners, mean, finer) for finer in (1, 2))
    assert fine.shape == (2 * PLATE_HEIGHT, 2 * PLATE_WIDTH, 3)
    assert np.abs(fine[::2, ::2].astype(int) - usual).mean() < 2.0


@pytest.mark.parametrize(
    "settings", [{"pixels": 100}, {"pixels": 0}, {"widths": (8, 8), "blocks": (1, 1, 1)}], ids=str
)
def test_sizes_that_do_not_fit_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match="a refiner"):
        RefinerConfig(**settings)
