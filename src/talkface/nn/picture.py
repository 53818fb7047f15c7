"""Pictures as tensors, crops of them, and weighted distances between them."""

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def weighted_l1(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute difference of (B, C, H, W) under ``weight`` (B, 1, H, W)."""
    return ((a - b).abs() * weight).sum() / (weight.sum() * a.shape[1] + 1e-6)


def gradient_loss(a: Tensor, b: Tensor, weight: Tensor, scales: int = 3) -> Tensor:
    """L1 between image gradients at several scales; keeps edges, such as those of teeth, that L1 alone blurs.

    Args:
        a: (B, C, H, W).
        b: As ``a``.
        weight: (B, 1, H, W).
        scales: How many; each has half the resolution of the one before.
    """
    total = a.new_zeros(())
    for _ in range(scales):
        for axis in (2, 3):
            total = total + weighted_l1(
                a.diff(dim=axis), b.diff(dim=axis), weight.narrow(axis, 1, weight.shape[axis] - 1)
            )
        a, b, weight = (F.avg_pool2d(t, 2) for t in (a, b, weight))
    return total / scales


def pictures(images: list[np.ndarray], device: torch.device | str) -> Tensor:
    """Pictures (H, W, 3) uint8 as (B, 3, H, W) float in [0, 1]."""
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(device)
    return stacked.float().div(255).contiguous(memory_format=torch.channels_last)


def enlarged(image: np.ndarray, side: int) -> np.ndarray:
    """A square picture (H, H, 3) uint8 resized, up or down, to sides of ``side`` pixels."""
    if len(image) == side:
        return image
    interpolation = cv2.INTER_AREA if side < len(image) else cv2.INTER_LANCZOS4
    return cv2.resize(image, (side, side), interpolation=interpolation)


def cut_out(picture: Tensor, matrices: Tensor, side: int) -> Tensor:
    """Crops (B, C, side, side) of pictures (B, C, H, W), differentiable.

    ``matrices`` (B, 2, 3) map pixels of the crops to those of the pictures.
    """
    with torch.autocast(picture.device.type, enabled=False):  # in half precision, places are off by pixels
        axis = torch.arange(side, device=picture.device, dtype=torch.float32)
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        places = torch.stack([x, y, torch.ones_like(x)], -1)[None] @ matrices.float().mT[:, None]
        size = places.new_tensor([picture.shape[3], picture.shape[2]])
        grid = (2 * places + 1) / size - 1
        return F.grid_sample(picture.float(), grid, padding_mode="border", align_corners=False)


def detail(picture: Tensor) -> float:
    """Mean absolute gradient of the grey values of pictures (B, 3, H, W); a measure of sharpness."""
    grey = picture.mean(1)
    return float(grey.diff(dim=1).abs().mean() + grey.diff(dim=2).abs().mean())
