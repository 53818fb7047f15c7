"""Losses of G4G."""

import torch
from torch import Tensor
from torch.nn import functional as F

from talkface.nn.picture import weighted_l1


def diagonal_alignment(
    visual: Tensor, audio: Tensor, temperature: Tensor, clip: Tensor, frame: Tensor, apart: int = 3
) -> Tensor:
    """The diagonal matrix: cosines of all faces with all sounds should be the identity matrix.

    Rows and columns of the same clip that are ``apart`` or more frames away are hard negatives; nearer ones,
    which sound and look alike, are left out.

    Args:
        visual: (N, C) of length 1.
        audio: (N, C) of length 1, row by row of the same frame.
        temperature: log of what the cosines are multiplied by.
        clip: (N,) which clip each row comes from.
        frame: (N,) and which of its frames.
        apart: frames.
    """
    logits = visual @ audio.T * temperature.exp().clamp(max=100)
    near = (clip[:, None] == clip[None]) & ((frame[:, None] - frame[None]).abs() < apart)
    near = near.fill_diagonal_(False)
    logits = logits.masked_fill(near, -1e4)
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def pairwise_alignment(
    visual: Tensor, audio: Tensor, temperature: Tensor, clip: Tensor, frame: Tensor, apart: int = 3
) -> Tensor:
    """Ordinary contrast, the ablation: one right and one wrong sound for each face, right or wrong.

    The wrong one is the next row that is not near; arguments as of :func:`diagonal_alignment`.
    """
    count = len(visual)
    near = (clip[:, None] == clip[None]) & ((frame[:, None] - frame[None]).abs() < apart)
    noise = torch.rand(count, count, device=visual.device).masked_fill(near, -1.0)
    wrong = noise.argmax(1)
    scale = temperature.exp().clamp(max=100)
    positive, negative = ((visual * a).sum(1) * scale for a in (audio, audio[wrong]))
    middle = scale / 2  # cosines above one half count as a match
    return (F.softplus(middle - positive) + F.softplus(negative - middle)).mean() / 2


def multi_scale(scales: list[Tensor], target: Tensor, weight: Tensor) -> Tensor:
    """Multi-scale supervision: L1 of the pictures at coarser scales under the mask at that scale.

    Args:
        scales: (B, 3, h, w) each in [0, 1].
        target: (B, 3, H, W).
        weight: (B, 1, H, W).
    """
    total = target.new_zeros(())
    for picture in scales:
        size = (picture.shape[-2], picture.shape[-1])
        total = total + weighted_l1(
            picture, F.adaptive_avg_pool2d(target, size), F.adaptive_avg_pool2d(weight, size)
        )
    return total / max(1, len(scales))


def retrieval(visual: Tensor, audio: Tensor) -> Tensor:
    """Whether each face (N, C) finds its own sound among all (N, C), (N,) float."""
    return ((visual @ audio.T).argmax(1) == torch.arange(len(visual), device=visual.device)).float()


__all__ = ["diagonal_alignment", "multi_scale", "pairwise_alignment", "retrieval"]
