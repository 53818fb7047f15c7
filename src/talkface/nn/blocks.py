"""Convolutional blocks. Those for pictures have no normalisation: it would take half of the time on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ModulatedBlock(nn.Module):
    """Residual block whose inner features are scaled and shifted by a code (adaptive modulation)."""

    def __init__(self, width: int, code: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.modulation = nn.Linear(code, 2 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        nn.init.normal_(self.second.weight, std=1e-2)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Map features (B, width, H, W) under a code (B, code) to features of the same shape."""
        scale, shift = self.modulation(code)[..., None, None].chunk(2, 1)
        h = self.first(F.silu(x)) * (1 + scale) + shift
        residual: Tensor = self.second(F.silu(h))
        return x + residual


class Stage(nn.ModuleList):
    """Modulated blocks at one resolution."""

    def __init__(self, width: int, code: int, count: int) -> None:
        super().__init__(ModulatedBlock(width, code) for _ in range(count))

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Map features (B, width, H, W) under a code (B, code) to features of the same shape."""
        for block in self:
            x = block(x, code)
        return x


class ResidualBlock(nn.Module):
    """Residual block of two convolutions, initialised near the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.normal_(self.second.weight, std=1e-2)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (B, width, H, W) to features of the same shape."""
        residual: Tensor = self.second(F.silu(self.first(F.silu(x))))
        return x + residual


class TemporalBlock(nn.Module):
    """Residual block with a dilated convolution over time."""

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.conv = nn.Conv1d(width, width, 5, padding=2 * dilation, dilation=dilation)
        self.mix = nn.Conv1d(width, width, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map sequences (B, width, T) to sequences of the same shape."""
        h = F.silu(self.conv(self.norm(x)))
        residual: Tensor = self.mix(self.dropout(h))
        return x + residual


def pixel_shuffle(x: Tensor, factor: int) -> Tensor:
    """(B, C f^2, H, W) to (B, C, f H, f W); torch's own needs AVX2 for channels-last tensors."""
    if x.device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        x = x.clone(memory_format=torch.contiguous_format)
    return F.pixel_shuffle(x, factor)


class PixelShuffle(nn.Module):
    """:func:`pixel_shuffle` as a layer."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C f^2, H, W) to (B, C, f H, f W)."""
        return pixel_shuffle(x, self.factor)
