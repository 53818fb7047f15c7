"""Distances between pictures under a weight."""

from torch import Tensor
from torch.nn import functional as F


def weighted_l1(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute difference of (B, C, H, W) under ``weight`` (B, 1, H, W)."""
    return ((a - b).abs() * weight).sum() / (weight.sum() * a.shape[1] + 1e-6)


def gradient_loss(a: Tensor, b: Tensor, weight: Tensor, scales: int = 3) -> Tensor:
    """L1 between image gradients at several scales: keeps edges of teeth and lips where L1 alone blurs."""
    total = a.new_zeros(())
    for _ in range(scales):
        for axis in (2, 3):
            total = total + weighted_l1(
                a.diff(dim=axis), b.diff(dim=axis), weight.narrow(axis, 1, weight.shape[axis] - 1)
            )
        a, b, weight = (F.avg_pool2d(t, 2) for t in (a, b, weight))
    return total / scales
