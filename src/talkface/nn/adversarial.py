"""Discriminators of image crops, by patches and as a whole; hinge losses and feature matching."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def hinge_discriminator(real: Tensor, fake: Tensor, weight: Tensor) -> Tensor:
    """Hinge loss of the discriminator on scores (B, 1, h, w), averaged under ``weight`` of the same shape."""
    return _mean(F.relu(1 - real) + F.relu(1 + fake), weight)


def hinge_generator(fake: Tensor, weight: Tensor) -> Tensor:
    """Hinge loss of the generator on scores (B, 1, h, w), averaged under ``weight`` of the same shape."""
    return _mean(-fake, weight)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / (weight.sum() + 1e-6)


class PatchDiscriminator(nn.Module):
    """PatchGAN discriminator of crops, conditioned on maps of the face mesh.

    Args:
        maps: Channels of the mesh maps.
        width: Channels of the first layer.
        channels: Channels of the crops.
        normalised: Apply spectral normalisation to all layers but the last.
        levels: Layers that halve the sides. With two, a score judges a patch of 56 pixels and h = H/8; each
            further one doubles both, so that crops of twice the resolution are judged by as much of the face.
    """

    def __init__(
        self, maps: int, width: int = 32, channels: int = 3, normalised: bool = True, levels: int = 2
    ) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.spectral_norm if normalised else nn.Identity()
        widths = [width * min(2**level, 4) for level in range(levels + 1)]
        self.layers = nn.ModuleList(
            [
                norm(nn.Conv2d(4 * channels + maps, width, 3, padding=1)),
                *(norm(nn.Conv2d(a, b, 4, stride=2, padding=1)) for a, b in pairwise(widths)),
                norm(nn.Conv2d(widths[-1], widths[-1], 3, padding=1)),
            ]
        )
        # Without normalisation, for scores must be able to reach the hinge.
        self.head = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, image: Tensor, maps: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Judge crops.

        Args:
            image: (B, channels, H, W) in [0, 1].
            maps: (B, maps, H/2, W/2).

        Returns:
            Scores (B, 1, h, w), and the features of each layer.
        """
        h = torch.cat([F.pixel_unshuffle(image * 2 - 1, 2), maps], 1)
        features = []
        for layer in self.layers:
            h = F.leaky_relu(layer(h), 0.2)
            features.append(h)
        return self.head(h), features


class CropDiscriminator(nn.Module):
    """Discriminator of whole crops, with one score for each.

    Group normalisation lets it learn in some hundred steps; a PatchGAN without it takes thousands.

    Args:
        channels: Channels of the crops.
        width: Channels of the first layer.
        levels: Layers, of which each but the first halves the sides; H and W are multiples of 2 ** levels.
        dropout: Probability that a pooled feature is dropped.
    """

    def __init__(self, channels: int, width: int = 24, levels: int = 4, dropout: float = 0.2) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(2)]
        before = 4 * channels
        for level in range(levels):
            after = width * min(2**level, 4)
            kernel, stride = (4, 2) if level else (3, 1)
            layers += [nn.Conv2d(before, after, kernel, stride, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
            before = after
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * before, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Scores (B,) of crops (B, channels, H, W) in [0, 1]."""
        h = self.features(image * 2 - 1)
        pooled = torch.cat([h.mean((2, 3)), h.amax((2, 3))], 1)
        scores: Tensor = self.head(self.dropout(pooled))
        return scores[:, 0]


def feature_matching(fake: list[Tensor], real: list[Tensor]) -> Tensor:
    """Mean L1 distance between a discriminator's features of the generated and of the real crop."""
    distances = ((a - b.detach()).abs().mean() for a, b in zip(fake, real, strict=True))
    return sum(distances, fake[0].new_zeros(())) / len(fake)
