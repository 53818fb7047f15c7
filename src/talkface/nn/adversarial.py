"""A PatchGAN on crops with mesh maps: discriminator, hinge losses, feature matching."""

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
    """PatchGAN on crops (B, C, H, W) with their mesh maps; gives scores (B, 1, H/8, W/8) and its features."""

    def __init__(self, maps: int, width: int = 32, channels: int = 3, normalised: bool = True) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.spectral_norm if normalised else nn.Identity()
        self.layers = nn.ModuleList(
            [
                norm(nn.Conv2d(4 * channels + maps, width, 3, padding=1)),
                norm(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)),
                norm(nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1)),
                norm(nn.Conv2d(4 * width, 4 * width, 3, padding=1)),
            ]
        )
        self.head = nn.Conv2d(
            4 * width, 1, 3, padding=1
        )  # not normalised: scores must be able to reach the hinge

    def forward(self, image: Tensor, maps: Tensor) -> tuple[Tensor, list[Tensor]]:
        h = torch.cat([F.pixel_unshuffle(image * 2 - 1, 2), maps], 1)
        features = []
        for layer in self.layers:
            h = F.leaky_relu(layer(h), 0.2)
            features.append(h)
        return self.head(h), features


def feature_matching(fake: list[Tensor], real: list[Tensor]) -> Tensor:
    """L1 between discriminator features of the generated and the real crop."""
    return sum(
        ((a - b.detach()).abs().mean() for a, b in zip(fake, real, strict=True)), fake[0].new_zeros(())
    ) / len(fake)
