"""The restorer: makes a photograph of what the face LDM drew.

A small LDM gets a face's layout right before its details: eyes are smeared or unlike each other, skin is
smooth. The restorer is a convolutional U-Net in pixels, trained on photographs that the LDM has drawn anew
from noise. It is shown the mesh, too, which tells where everything is (blind face restoration; Wang et al.,
GFPGAN, 2021).
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkface.face.draw import MESH_CHANNELS
from talkface.hub import build_pretrained
from talkface.nn.blocks import ResidualBlock, near_zero, pixel_shuffle


@dataclass(frozen=True, kw_only=True)
class RestorerConfig:
    """Architecture of :class:`FaceRestorer`.

    Attributes:
        widths: at half, a quarter, an eighth and a sixteenth of the picture's size.
        blocks: residual ones at these sizes; the decoder has as many again, except at the smallest.
    """

    widths: tuple[int, int, int, int] = (32, 128, 192, 256)
    blocks: tuple[int, int, int, int] = (1, 1, 2, 3)


class FaceRestorer(nn.Module):
    """Redraws a picture of a face; it starts as the identity."""

    def __init__(self, config: RestorerConfig) -> None:
        super().__init__()
        self.config = config
        half, *widths = config.widths
        few, *blocks = config.blocks
        levels = list(zip(widths, blocks, strict=True))
        self.stem = nn.Conv2d(2 * 48 + 4 * MESH_CHANNELS, widths[0], 3, padding=1)
        self.encode = nn.ModuleList(_stage(*level) for level in levels)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.up = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairwise(widths[::-1]))
        self.decode = nn.ModuleList(_stage(*level) for level in levels[-2::-1])
        self.enlarge = nn.Conv2d(widths[0], 4 * half, 3, padding=1)
        self.fine = nn.Conv2d(12, half, 3, padding=1)
        self.finish = _stage(half, few)
        self.head = near_zero(nn.Conv2d(half, 12, 3, padding=1))

    @classmethod
    def from_pretrained(cls, name_or_path: str = "face-restorer") -> "FaceRestorer":
        """Load the shipped model, or one from a directory or hub id."""
        return build_pretrained(cls, RestorerConfig, name_or_path)

    @classmethod
    def debug(cls) -> "FaceRestorer":
        """A tiny random network for tests."""
        return cls(RestorerConfig(widths=(8, 8, 16, 16), blocks=(1, 1, 1, 1))).eval()

    def forward(self, draft: Tensor, drawing: Tensor) -> Tensor:
        """The picture (B, 3, H, W), about [0, 1].

        Args:
            draft: (B, 3, H, W) what the LDM drew, in [0, 1]; H and W are multiples of 16.
            drawing: (B, 6, H/2, W/2) of its mesh, from :func:`talkface.face.draw.draw_mesh`.
        """
        signed = draft * 2 - 1
        # The mirror image is given, too: each eye shows how the other could look.
        given = [F.pixel_unshuffle(signed, 4), F.pixel_unshuffle(signed.flip(-1), 4)]
        h = self.stem(torch.cat([*given, F.pixel_unshuffle(drawing, 2)], 1))
        skips = []
        for level, stage in enumerate(self.encode):
            h = stage(h)
            if level < len(self.down):
                skips.append(h)
                h = self.down[level](h)
        for up, stage in zip(self.up, self.decode, strict=True):
            h = stage(F.interpolate(up(h), scale_factor=2.0, mode="nearest") + skips.pop())
        h = pixel_shuffle(self.enlarge(F.silu(h)), 2)
        h = self.finish(h + self.fine(F.pixel_unshuffle(signed, 2)))
        return draft + without_grid(pixel_shuffle(self.head(F.silu(h)), 2))


def without_grid(picture: Tensor) -> Tensor:
    """Pictures (B, C, H, W) without what repeats every four pixels in all of a neighbourhood.

    Photographs have no such patterns. Discriminators over the features of a strided network do not notice
    them, and so a generator that is trained against them draws them. H and W are multiples of 4.
    """
    smooth = F.avg_pool2d(picture, 9, 1, 4, count_include_pad=False)
    phases = F.pixel_unshuffle(picture - smooth, 4)
    around = F.avg_pool2d(phases, 11, 1, 5, count_include_pad=False)
    return picture - pixel_shuffle(around, 4)


def _stage(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width) for _ in range(count)))
