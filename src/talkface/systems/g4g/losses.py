"""Losses of G4G."""

import torch
from torch import Tensor
from torch.nn import functional as F

from talkface.nn.picture import weighted_l1


def diagonal_alignment(
    visual: Tensor, audio: Tensor, temperature: Tensor, clip: Tensor, frame: Tensor, apart: int = 3
) -> Tensor:
    """Inter-modal alignment: the cosines of a batch's faces with its sounds should be the identity matrix.

    Frames of the same clip that are ``apart`` or more frames from each other are hard negatives; nearer ones,
    which sound and look alike, are left out.

    Args:
        visual: (N, C) of length 1.
        audio: (N, C) of length 1, row by row of the same frame.
        temperature: log of the factor on the cosines.
        clip: (N,) the clip that each row comes from.
        frame: (N,) its frame in the clip.
        apart: least distance of negatives in a clip, in frames.
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
    """Ordinary contrastive loss, an ablation: one matching and one other sound for each face, classified.

    The other one is drawn at random from those that are not near; arguments as of :func:`diagonal_alignment`.
    """
    count = len(visual)
    near = (clip[:, None] == clip[None]) & ((frame[:, None] - frame[None]).abs() < apart)
    noise = torch.rand(count, count, device=visual.device).masked_fill(near, -1.0)
    wrong = noise.argmax(1)
    scale = temperature.exp().clamp(max=100)
    positive, negative = ((visual * a).sum(1) * scale for a in (audio, audio[wrong]))
    middle = scale / 2  # a cosine above one half counts as a match
    return (F.softplus(middle - positive) + F.softplus(negative - middle)).mean() / 2


def multi_scale(scales: list[Tensor], target: Tensor, weight: Tensor) -> Tensor:
    """Multi-scale supervision: L1 of pictures at coarser scales, under the weight at that scale.

    Args:
        scales: pictures (B, 3, h, w) in [0, 1].
        target: (B, 3, H, W) in [0, 1].
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
    """1 where the nearest of all sounds (N, C) to a face (N, C) is its own, else 0, (N,) float."""
    return ((visual @ audio.T).argmax(1) == torch.arange(len(visual), device=visual.device)).float()
