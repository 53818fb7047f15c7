"""The Refiner, second half of TH-PAD's generator G: draws what warping cannot.

MeshWarp moves the portrait's own pixels. The Refiner adds the inside of the mouth, teeth, eyelids and shading
in small aligned crops of the mouth and the eyes. It is a U-Net modulated by the identity code f_id and the
motion codes, as the paper modulates its generator (Sec. 3.3); the split into warp and refiner is ours. It has
no normalisation layers, which would take half of the time of a step on a CPU.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkface.errors import InvalidOption
from talkface.face.coefficients import GAZE, MOUTH_COEFFICIENTS, ROTATION, UPPER_COEFFICIENTS
from talkface.face.crop import FACE_REGIONS, MOUTH_REGION
from talkface.face.draw import MAP_CHANNELS
from talkface.hub import build_pretrained
from talkface.nn.blocks import Stage, pixel_shuffle
from talkface.rendering.mouth_plate import PLATE_HEIGHT, PLATE_WIDTH


@dataclass(frozen=True, kw_only=True)
class RefinerConfig:
    """Architecture of :class:`Refiner`.

    Attributes:
        motion: size of the code from :func:`motion_code`.
        identity: size of f_id.
        code: size of the code that modulates the blocks.
        widths, blocks: channels and residual blocks of each scale, from fine to coarse; each scale has half
            the side of the one before.
        pixels: side of the mouth's crop; the eyes' is half of it (:func:`talkface.face.crop.face_regions`).
    """

    motion: int = MOUTH_COEFFICIENTS + UPPER_COEFFICIENTS + GAZE + ROTATION
    identity: int = 64
    code: int = 128
    widths: tuple[int, ...] = (32, 64, 128)
    blocks: tuple[int, ...] = (1, 1, 3)
    pixels: int = MOUTH_REGION.pixels

    def __post_init__(self) -> None:
        if not 2 <= len(self.widths) == len(self.blocks):
            raise InvalidOption(
                f"a refiner has two or more scales, not {self.widths} with {self.blocks} blocks"
            )
        # A factor 2 for the eyes, 2 for the stem, 2 for each further scale.
        step = 4 << (len(self.widths) - 1)
        if self.pixels <= 0 or self.pixels % step:
            raise InvalidOption(
                f"a refiner of {len(self.widths)} scales takes crops of multiples of {step} px"
            )


@dataclass(frozen=True)
class Refined:
    """The network's output for a batch of crops: out = (1 - mask)(warped + residual) + mask color.

    Attributes:
        residual: (B, 3, H, W) in -0.5 to 0.5, added to the warped crop.
        color: (B, 3, H, W) in [0, 1], drawn anew.
        mask: (B, 1, H, W) in [0, 1], where it is drawn anew.
    """

    residual: Tensor
    color: Tensor
    mask: Tensor

    def compose(self, warped: Tensor) -> Tensor:
        """The finished crop (B, 3, H, W), about [0, 1]."""
        return (1 - self.mask) * (warped + self.residual) + self.mask * self.color


class CropIdentityEncoder(nn.Module):
    """E_id: a crop of the portrait (B, 3, H, W) in [0, 1] to the identity code f_id (B, identity)."""

    def __init__(self, identity: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, 64, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(64, 96, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(96, 128, 3, stride=2, padding=1),
            nn.SiLU(),
        )
        self.head = nn.Linear(128, identity)

    def forward(self, crop: Tensor) -> Tensor:
        """Identity codes of crops; H and W are multiples of 16."""
        f_id: Tensor = self.head(self.body(crop * 2 - 1).mean((2, 3)))
        return f_id


class Refiner(nn.Module):
    """Redraws a crop of the mouth or of an eye."""

    def __init__(self, config: RefinerConfig) -> None:
        super().__init__()
        self.config = config
        self.mean_mouth: Tensor  # of the training people, relative to the colour of their skin
        self.register_buffer("mean_mouth", torch.full((PLATE_HEIGHT, PLATE_WIDTH, 3), 0.5))
        small, upwards = config.widths[0], config.widths[::-1]
        self.identity = CropIdentityEncoder(config.identity)
        self.code = nn.Sequential(
            nn.Linear(config.motion + len(FACE_REGIONS) + config.identity, config.code),
            nn.SiLU(),
            nn.Linear(config.code, config.code),
            nn.SiLU(),
        )
        self.stem = nn.Conv2d(4 * 6 + MAP_CHANNELS, small, 3, padding=1)
        self.down = nn.ModuleList(
            nn.Conv2d(fine, coarse, 3, stride=2, padding=1) for fine, coarse in pairwise(config.widths)
        )
        self.encode = nn.ModuleList(
            Stage(width, config.code, count)
            for width, count in zip(config.widths, config.blocks, strict=True)
        )
        self.up = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for coarse, fine in pairwise(upwards))
        self.merge = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for width in upwards[1:])
        counts = config.blocks[0] + 1, *config.blocks[1:-1]  # the last stage before the picture has one more
        self.decode = nn.ModuleList(
            Stage(width, config.code, count) for width, count in zip(upwards[1:], counts[::-1], strict=True)
        )
        self.head = nn.Conv2d(small, 4 * 7, 3, padding=1)
        nn.init.normal_(self.head.weight, std=1e-3)
        nn.init.zeros_(self.head.get_parameter("bias"))

    @classmethod
    def debug(cls, pixels: int = MOUTH_REGION.pixels) -> "Refiner":
        """A tiny random network for tests."""
        widths, blocks = (8, 16, 16), (1, 1, 1)
        return cls(RefinerConfig(identity=8, code=16, widths=widths, blocks=blocks, pixels=pixels)).eval()

    @classmethod
    def from_pretrained(cls, name_or_path: str = "thpad-refiner") -> "Refiner":
        """Load the shipped model, or one from a directory or hub id."""
        return build_pretrained(cls, RefinerConfig, name_or_path)

    def forward(
        self,
        warped: Tensor,
        reference: Tensor,
        maps: Tensor,
        motion: Tensor,
        part: Tensor,
        f_id: Tensor | None = None,
    ) -> Refined:
        """Refine crops.

        Args:
            warped: (B, 3, H, W) warped crop in [0, 1]; H and W are multiples of 2 to the number of scales.
            reference: (B, 3, H, W) the same part of the portrait.
            maps: (B, MAP_CHANNELS, H/2, W/2) from :func:`talkface.face.draw.mesh_maps`.
            motion: (B, motion) from :func:`motion_code`.
            part: (B,) index of the part.
            f_id: (B, identity), where it was computed before; by default from ``reference``.
        """
        f_id = self.identity(reference) if f_id is None else f_id
        code = self.code(torch.cat([motion, F.one_hot(part, len(FACE_REGIONS)).to(motion), f_id], 1))
        pixels = F.pixel_unshuffle(torch.cat([warped, reference], 1) * 2 - 1, 2)
        h = self.stem(torch.cat([pixels, maps], 1))
        skips = []
        for level, stage in enumerate(self.encode):
            h = stage(h, code)
            if level < len(self.down):
                skips.append(h)
                h = self.down[level](h)
        for up, merge, stage in zip(self.up, self.merge, self.decode, strict=True):
            h = F.interpolate(up(h), scale_factor=2.0, mode="nearest")
            h = merge(torch.cat([h, skips.pop()], 1))
            h = stage(h, code)
        residual, color, mask = torch.split(pixel_shuffle(self.head(F.silu(h)), 2), [3, 3, 1], 1)
        inside = F.interpolate(maps[:, 3:4], scale_factor=2.0, mode="bilinear")
        return Refined(0.5 * torch.tanh(residual), torch.sigmoid(color), torch.sigmoid(mask + 9 * inside - 5))


def motion_code(
    beta_mouth: np.ndarray, beta_upper: np.ndarray, gaze: np.ndarray, rotation: np.ndarray
) -> np.ndarray:
    """The motion code (T, 51) that modulates the refiner: f_l and f_nl as coefficients of about unit size.

    Args:
        beta_mouth: (T, 28) expression coefficients of the mouth.
        beta_upper: (T, 16) those of the upper face.
        gaze: (T, 4) iris displacement, inter-ocular distances.
        rotation: (T, 3) rotation vector of the head, radians, not relative to the portrait.
    """
    code = np.concatenate([beta_mouth, beta_upper, gaze * 20, rotation * 5], -1)
    return code.clip(-5, 5).astype(np.float32)
