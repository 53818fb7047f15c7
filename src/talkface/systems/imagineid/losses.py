"""Losses of ImagineID's audio stages."""

import torch
from torch import Tensor
from torch.nn import functional as F


def gaussian(value: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
    """Negative log-likelihood of values under normal distributions, less a constant; mean over elements."""
    return (0.5 * ((value - mean) / spread).square() + spread.log()).mean()


def voice_to_face(voice: Tensor, face: Tensor, temperature: Tensor, same: Tensor) -> Tensor:
    """Symmetric InfoNCE of semantic embeddings (paper, Sec. 3.1).

    Args:
        voice: (B, S) unit vectors of voices.
        face: (B, S) unit vectors of faces, row by row of the same person.
        temperature: factor of the cosines.
        same: (B, B) True where two rows are of one person: neither is held against the other.
    """
    logits = voice @ face.T * temperature
    apart = torch.eye(len(voice), dtype=torch.bool, device=voice.device)
    logits = logits.masked_fill(same & ~apart, -1e4)
    target = torch.arange(len(voice), device=voice.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
