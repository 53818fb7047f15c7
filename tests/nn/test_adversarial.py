"""Discriminators of patches."""

import pytest
import torch

from talkface.face.draw import MAP_CHANNELS
from talkface.nn.adversarial import PatchDiscriminator


@pytest.mark.parametrize("levels", [2, 3])
def test_a_deeper_discriminator_judges_larger_patches(levels: int) -> None:
    torch.manual_seed(0)
    side = 64 * 2 ** (levels - 1)
    critic = PatchDiscriminator(MAP_CHANNELS, 8, levels=levels)
    image = torch.rand(1, 3, side, side, requires_grad=True)
    scores, features = critic(image, torch.rand(1, MAP_CHANNELS, side // 2, side // 2))
    assert scores.shape == (1, 1, 16, 16)
    assert len(features) == levels + 2
    scores[0, 0, 8, 8].backward()
    seen = image.grad.abs().sum((0, 1)).sum(0).nonzero()
    assert int(seen.max() - seen.min()) + 1 == 28 * 2 ** (levels - 1)
