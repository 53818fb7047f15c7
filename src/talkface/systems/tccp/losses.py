"""Losses of TCCP's two stages."""

from torch import Tensor


def velocity_error(velocity: Tensor, wanted: Tensor, weight: Tensor, given: Tensor) -> Tensor:
    """Mean squared error of each window's velocity (B,); frames that are known do not count.

    Args:
        velocity: (B, T, 4, h, w).
        wanted: the same.
        weight: (B, T, 1, h, w) how much a latent counts.
        given: (B, T) 1 for frames that are known.
    """
    weight = weight * (1 - given)[:, :, None, None, None]
    error = (velocity - wanted).square() * weight
    return error.sum((1, 2, 3, 4)) / (weight.sum((1, 2, 3, 4)) * wanted.shape[2]).clamp_min(1e-6)
