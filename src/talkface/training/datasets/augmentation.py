"""How mouths are made to look in a sync expert's training: moved, lit and noisy, alike on a clip's frames."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from talkface.systems.g4g.experts import SYNC_CROP_PIXELS


def draw_looks(count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """What :func:`with_looks` makes of so many stretches.

    Returns:
        "place" (B, 2, 3), see :func:`places`; "gain" (B, 3) of the colours and "lift" (B,) in grey levels;
        "noisy" (K,) which have noise, and "noise" (K,) its standard deviations in grey levels.
    """
    scale, shift = generator.uniform(0.9, 1.1, count), generator.uniform(-5, 5, (count, 2))
    turn, mirror = generator.normal(0, 0.05, count), generator.random(count) < 0.5
    gain = generator.uniform(0.7, 1.3, (count, 1)) * generator.uniform(0.85, 1.15, (count, 3))
    noisy = np.flatnonzero(generator.random(count) < 0.3)
    return {
        "place": places(scale, turn, shift, mirror),
        "gain": gain.astype(np.float32),
        "lift": generator.uniform(-20, 20, count).astype(np.float32),
        "noisy": noisy,
        "noise": generator.uniform(0, 6, len(noisy)).astype(np.float32),
    }


def places(scale: np.ndarray, turn: np.ndarray, shift: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """From a new picture's coordinates, -1 to 1 from edge pixel to edge pixel, to those of the old one.

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


def with_looks(mouths: Tensor, looks: dict[str, Tensor]) -> Tensor:
    """Stretches (B, T, 3, H, W) uint8 as they are to look, in [0, 1].

    ``looks`` is what :func:`draw_looks` drew, on the device of the mouths.
    """
    line = torch.linspace(-1, 1, SYNC_CROP_PIXELS, device=mouths.device)
    place = looks["place"][:, None, None]  # no product of matrices, whose half precision misplaces pixels
    grid = place[..., 0] * line[:, None] + place[..., 1] * line[:, None, None] + place[..., 2]
    planes = mouths.flatten(1, 2).float()  # one grid for all frames and colours
    moved = F.grid_sample(planes, grid, padding_mode="border", align_corners=True).view(mouths.shape)
    gain, lift, noise = (looks[name] / 255 for name in ("gain", "lift", "noise"))  # in small: once a clip
    seen = torch.addcmul(lift[:, None, None, None, None], moved, gain[:, None, :, None, None])
    grain = torch.randn(len(noise), *seen.shape[1:], device=seen.device)
    seen.index_add_(0, looks["noisy"], grain.mul_(noise[:, None, None, None, None]))
    return seen.clamp_(0, 1)
