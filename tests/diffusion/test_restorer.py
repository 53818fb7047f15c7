"""The restorer and the critic, untrained."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from talkface.diffusion.base import exposed
from talkface.diffusion.critic import PortraitCritic, PortraitViews
from talkface.diffusion.restorer import FaceRestorer, without_grid
from talkface.face.crop import LEFT_EYE_REGION, MOUTH_REGION, RIGHT_EYE_REGION
from talkface.face.draw import MESH_CHANNELS
from talkface.training.perceptual import PortraitDiscriminators


@given(st.integers(0, 2**16), st.integers(1, 255))
def test_dark_pictures_are_exposed_and_light_ones_stay(seed: int, most: int) -> None:
    picture = np.random.default_rng(seed).integers(0, most + 1, (32, 32, 3)).astype(np.uint8)
    found = exposed(picture)
    assert (found >= picture).all()
    assert found.max() <= np.ceil(1.5 * picture.max())
    if np.percentile(picture.max(2), 99) >= 235:
        np.testing.assert_array_equal(found, picture)
    else:
        assert np.percentile(found.max(2), 99) <= 236


@given(st.integers(1, 8), st.integers(1, 8))
def test_restorer_begins_as_the_identity(height: int, width: int) -> None:
    draft = torch.rand(1, 3, 16 * height, 16 * width)
    with torch.inference_mode():
        made = FaceRestorer.debug()(draft, torch.zeros(1, MESH_CHANNELS, 8 * height, 8 * width))
    torch.testing.assert_close(made, draft, atol=0.05, rtol=0)


@given(st.integers(0, 2**16), st.integers(16, 40))
def test_patterns_of_the_grid_are_taken_off_and_nothing_else(seed: int, cells: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    side = 4 * cells
    slope, spot = torch.linspace(0, 1, side).expand(1, 1, side, side), torch.zeros(1, 1, side, side)
    spot[..., side // 2, side // 2] = 1.0
    pattern = 0.1 * torch.randn(4, 4, generator=generator).repeat(cells, cells)[None, None]
    pattern = pattern - pattern.mean()
    inner = np.s_[..., 24:-24, 24:-24]  # at the edge a neighbourhood is cut off
    for picture in (slope, spot):
        torch.testing.assert_close(without_grid(picture)[inner], picture[inner], atol=0.02, rtol=0)
    assert without_grid(pattern)[inner].std() < 0.3 * pattern.std()


@given(st.integers(0, 2**16))
def test_alike_eyes_are_shown_alike_to_their_judge(seed: int) -> None:
    half = torch.rand(1, 3, 128, 64, generator=torch.Generator().manual_seed(seed))
    picture = torch.cat([half, half.flip(-1)], 3)
    right = torch.tensor([[[0.5, 0.0, 20.0], [0.0, 0.5, 40.0]]])
    left = right * torch.tensor([[-1.0], [1.0]]) + torch.tensor([[0.0, 0.0, 127.0], [0.0, 0.0, 0.0]])
    parts = {RIGHT_EYE_REGION.name: right, LEFT_EYE_REGION.name: left, MOUTH_REGION.name: right}
    eyes, mouth = PortraitDiscriminators(PortraitCritic.debug(), 4, layers=()).cut(picture, parts)
    torch.testing.assert_close(eyes[:, :3], eyes[:, 3:], atol=1e-4, rtol=0)
    assert mouth.shape == (1, 3, MOUTH_REGION.pixels, MOUTH_REGION.pixels)


@given(st.integers(0, 2**16), st.sampled_from([0.3, 0.5, 1.0]))
def test_reduced_views_keep_their_size_and_mean(seed: int, size: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    views = PortraitViews(*(torch.rand(2, c, 64, 64, generator=generator) for c in (6, 3)))
    for before, after in zip(views, views.at_scale(size), strict=True):
        assert after.shape == before.shape
        torch.testing.assert_close(after.mean((2, 3)), before.mean((2, 3)), atol=0.03, rtol=0)
        assert after.std() <= before.std() + 1e-6
