"""Convolutional blocks; those on pictures have no normalisation layers, which cost half of a CPU step."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ModulatedBlock(nn.Module):
    """Residual block whose middle is scaled and shifted by a code (adaptive modulation)."""

    def __init__(self, width: int, code: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.modulation = nn.Linear(code, 2 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        nn.init.normal_(self.second.weight, std=1e-2)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        scale, shift = self.modulation(code)[..., None, None].chunk(2, 1)
        h = self.first(F.silu(x)) * (1 + scale) + shift
        return x + self.second(F.silu(h))


class Stage(nn.ModuleList):
    """Modulated blocks at one resolution."""

    def __init__(self, width: int, code: int, count: int) -> None:
        super().__init__(ModulatedBlock(width, code) for _ in range(count))

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        for block in self:
            x = block(x, code)
        return x


class ResidualBlock(nn.Module):
    """Two convolutions beside the identity, near which it starts."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.normal_(self.second.weight, std=1e-2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(x))))


class TemporalBlock(nn.Module):
    """Residual dilated convolution over time on (B, C, T)."""

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.conv = nn.Conv1d(width, width, 5, padding=2 * dilation, dilation=dilation)
        self.mix = nn.Conv1d(width, width, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        h = F.silu(self.conv(self.norm(x)))
        return x + self.mix(self.dropout(h))


def pixel_shuffle(x: Tensor, factor: int) -> Tensor:
    """(B, C f^2, H, W) to (B, C, f H, f W), on any processor: torch's own, channels last, needs AVX2."""
    if x.device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        x = x.clone(memory_format=torch.contiguous_format)
    return F.pixel_shuffle(x, factor)


class PixelShuffle(nn.Module):
    """:func:`pixel_shuffle` as a layer."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return pixel_shuffle(x, self.factor)
