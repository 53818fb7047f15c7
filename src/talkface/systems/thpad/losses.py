"""Losses of TH-PAD."""

import torch
from torch import Tensor
from torch.nn import functional as F


def contrastive_sync(video: Tensor, audio: Tensor, temperature: Tensor) -> Tensor:
    """L_cl: symmetric InfoNCE between f_cl^v and f^a, (N, C) each, row by row (paper, Sec. 3.2)."""
    logits = F.normalize(video, dim=1) @ F.normalize(audio, dim=1).T * temperature
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def orthogonality(visual: Tensor, audio: Tensor) -> Tensor:
    """L_ol: mean squared cosine of f_ol^v and f^a, (N, C) each, centred over the batch (paper, Sec. 3.2)."""
    visual, audio = visual - visual.mean(0), audio - audio.mean(0)
    return F.cosine_similarity(visual, audio, dim=1).square().mean()


def velocity(predicted: Tensor, target: Tensor) -> Tensor:
    """L_vel: squared difference of frame-to-frame changes of (B, T, C) (paper, Eq. of the prior's loss)."""
    return (predicted.diff(dim=1) - target.diff(dim=1)).square().mean()
