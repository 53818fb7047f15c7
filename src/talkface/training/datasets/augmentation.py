"""Appearance augmentation: colour, light, noise, mirror, small shifts, the same on all frames of a stretch.

:class:`ColourJitter` and :class:`AppearanceAugmentation` work on arrays of the CPU, for the generator and the
refiner; :func:`augment_mouths` works on whole batches on the device that trains, for the sync experts.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from talkface.systems.g4g.experts import SYNC_CROP_PIXELS


@dataclass(frozen=True)
class ColourJitter:
    """A change of colour and light: ``gain * picture + lift``, of grey values if ``grey``.

    Attributes:
        gain: (3, 1, 1) of each channel.
        lift: added, of a range of 0 to 1.
        grey: whether colours are lost.
    """

    gain: np.ndarray
    lift: float
    grey: bool

    @classmethod
    def draw(cls, generator: np.random.Generator) -> "ColourJitter":
        """A random change."""
        gain = generator.uniform(0.75, 1.25) * generator.uniform(0.85, 1.15, 3)[:, None, None]
        return cls(gain, float(generator.uniform(-0.08, 0.08)), bool(generator.random() < 0.1))

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """Pictures (..., 3, H, W) in [0, 1], changed."""
        if self.grey:
            picture = np.repeat(picture.mean(-3, keepdims=True), 3, -3)
        changed: np.ndarray = np.clip(picture * self.gain + self.lift, 0, 1)
        return changed.astype(np.float32)


@dataclass(frozen=True)
class AppearanceAugmentation:
    """Colour, light and mirror, the same on all pictures of a stretch of the generator's samples."""

    colour: ColourJitter
    mirror: bool

    @classmethod
    def draw(cls, generator: np.random.Generator) -> "AppearanceAugmentation":
        """A random augmentation."""
        return cls(ColourJitter.draw(generator), bool(generator.random() < 0.5))

    def __call__(self, row: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One frame's inputs and target, augmented; what is hidden stays grey."""
        row = dict(row)
        for name in {"references", "seeds", "around", "target"} & row.keys():
            row[name] = self.colour(row[name])
        row["context"] = np.where(row["hidden"] < 1, self.colour(row["context"]), row["context"])
        if self.mirror:
            for name in {"context", "hidden", "maps", "references", "seeds", "around", "target"} & row.keys():
                row[name] = np.ascontiguousarray(row[name][..., ::-1])
            row["maps"][0] *= -1
            row["mesh"] = row["mesh"].copy()
            row["mesh"][-2:] *= -1  # yaw and roll change sign
            if "grids" in row:
                row["grids"] = np.ascontiguousarray(row["grids"][:, :, ::-1] * np.array([-1, 1], np.float32))
        return row


def draw_augmentation(count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw how :func:`augment_mouths` changes B stretches.

    Args:
        count: B.
        generator: what is drawn from.

    Returns:
        "place" (B, 2, 3), see :func:`sampling_matrices`; "gain" (B, 3) of the colours and "lift" (B,) in grey
        levels; "noisy" (K,) indices of stretches with noise, and "noise" (K,) its standard deviations in grey
        levels.
    """
    scale, shift = generator.uniform(0.9, 1.1, count), generator.uniform(-5, 5, (count, 2))
    turn, mirror = generator.normal(0, 0.05, count), generator.random(count) < 0.5
    gain = generator.uniform(0.7, 1.3, (count, 1)) * generator.uniform(0.85, 1.15, (count, 3))
    noisy = np.flatnonzero(generator.random(count) < 0.3)
    return {
        "place": sampling_matrices(scale, turn, shift, mirror),
        "gain": gain.astype(np.float32),
        "lift": generator.uniform(-20, 20, count).astype(np.float32),
        "noisy": noisy,
        "noise": generator.uniform(0, 6, len(noisy)).astype(np.float32),
    }


def sampling_matrices(
    scale: np.ndarray, turn: np.ndarray, shift: np.ndarray, mirror: np.ndarray
) -> np.ndarray:
    """Affine maps from coordinates of the augmented picture to those of the original one.

    Coordinates go from -1 to 1, from the centre of one edge pixel to that of the other.

    Args:
        scale: (B,) how much larger the mouth becomes.
        turn: (B,) by how much it is turned about the middle, radians.
        shift: (B, 2) by how much it is then moved, pixels.
        mirror: (B,) whether the result is mirrored.

    Returns:
        (B, 2, 3) float32.
    """
    cosine, sine = np.cos(turn) / scale, np.sin(turn) / scale
    back = np.array([[cosine, sine], [-sine, cosine]]).transpose(2, 0, 1)
    moved = -back @ (shift[:, :, None] * 2 / (SYNC_CROP_PIXELS - 1))
    back[:, :, 0] *= np.where(mirror, -1, 1)[:, None]
    return np.concatenate([back, moved], 2).astype(np.float32)


def augment_mouths(mouths: Tensor, drawn: dict[str, Tensor]) -> Tensor:
    """Stretches of mouths with their appearance augmented.

    Args:
        mouths: (B, T, 3, H, W) uint8.
        drawn: what :func:`draw_augmentation` gave, on the device of the mouths.

    Returns:
        (B, T, 3, H, W) in [0, 1].
    """
    line = torch.linspace(-1, 1, SYNC_CROP_PIXELS, device=mouths.device)
    place = drawn["place"][:, None, None]  # not a matrix product: in half precision it would misplace pixels
    grid = place[..., 0] * line[:, None] + place[..., 1] * line[:, None, None] + place[..., 2]
    planes = mouths.flatten(1, 2).float()  # all frames and colours have one grid
    moved = F.grid_sample(planes, grid, padding_mode="border", align_corners=True).view(mouths.shape)
    gain, lift, noise = (drawn[name] / 255 for name in ("gain", "lift", "noise"))
    seen = torch.addcmul(lift[:, None, None, None, None], moved, gain[:, None, :, None, None])
    grain = torch.randn(len(noise), *seen.shape[1:], device=seen.device)
    seen.index_add_(0, drawn["noisy"], grain.mul_(noise[:, None, None, None, None]))
    return seen.clamp_(0, 1)
