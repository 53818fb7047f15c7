"""Layers that several networks share."""

import pytest
import torch
from torch.nn import functional as F

from talkface.nn.blocks import pixel_shuffle


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pixels_are_shuffled_as_torch_does(layout: torch.memory_format) -> None:
    x = torch.rand(2, 12, 5, 4)
    shuffled = pixel_shuffle(x.to(memory_format=layout), 2)
    torch.testing.assert_close(shuffled, F.pixel_shuffle(x, 2), rtol=0, atol=0)
