"""The face LDM's autoencoder: f8, four channels, without normalisation layers, with a small fast decoder."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from talkface.diffusion.config import AutoencoderConfig
from talkface.hub import build_pretrained
from talkface.nn.blocks import PixelShuffle, ResidualBlock

LATENT_FACTOR = 8
"""How many times smaller latents are than their picture, along each side."""
_LEAST_LOG_VARIANCE, _MOST_LOG_VARIANCE = -20.0, 10.0


class FaceAutoencoder(nn.Module):
    """Pictures to latents and back (Rombach et al., "High-Resolution Image Synthesis with LDMs", Sec. 3.1).

    Latents that :meth:`encode` gives have unit variance over the training pictures. Pictures may have any
    sides that are multiples of eight.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        quarter, eighth = config.encoder
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, quarter, 3, padding=1),
            ResidualBlock(quarter),
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * quarter, eighth, 1),
            ResidualBlock(eighth),
            ResidualBlock(eighth),
            nn.Conv2d(eighth, 2 * config.channels, 3, padding=1),
        )
        wide, middle, fine = config.decoder
        deep, shallow, last = config.blocks
        self.decoder = nn.Sequential(
            nn.Conv2d(config.channels, wide, 3, padding=1),
            *(ResidualBlock(wide) for _ in range(deep)),
            nn.Conv2d(wide, 4 * middle, 1),
            PixelShuffle(2),
            *(ResidualBlock(middle) for _ in range(shallow)),
            nn.Conv2d(middle, 4 * fine, 3, padding=1),
            PixelShuffle(2),
            *(ResidualBlock(fine) for _ in range(last)),
            nn.Conv2d(fine, 12, 3, padding=1),
            PixelShuffle(2),
        )
        self.register_buffer("mean", torch.zeros(1, config.channels, 1, 1))
        self.register_buffer("scale", torch.ones(1, config.channels, 1, 1))

    @classmethod
    def debug(cls) -> "FaceAutoencoder":
        """A tiny random autoencoder for tests."""
        return cls(AutoencoderConfig(encoder=(8, 8), decoder=(8, 8, 8), blocks=(1, 1, 1))).eval()

    @classmethod
    def from_pretrained(cls, name_or_path: str) -> "FaceAutoencoder":
        """Load the shipped model, or one from a directory or hub id."""
        return build_pretrained(cls, AutoencoderConfig, name_or_path)

    def distribution(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance (B, 4, H/8, W/8) of unscaled latents of pictures (B, 3, H, W) in [0, 1]."""
        mean, log_variance = self.encoder(image * 2 - 1).chunk(2, 1)
        return mean, log_variance.clamp(_LEAST_LOG_VARIANCE, _MOST_LOG_VARIANCE)

    def restore(self, unscaled: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) of unscaled latents; values may leave [0, 1] a little."""
        signed: Tensor = self.decoder(unscaled)
        return signed * 0.5 + 0.5

    def encode(self, image: Tensor) -> Tensor:
        """Latents (B, 4, H/8, W/8) of pictures (B, 3, H, W) in [0, 1]."""
        return (self.distribution(image)[0] - self.mean) / self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] of latents (B, 4, H/8, W/8)."""
        return self.restore(self.unscale(latents)).clamp(0, 1)

    def unscale(self, latents: Tensor) -> Tensor:
        """Latents as the decoder takes them."""
        return latents * self.scale + self.mean

    def stages(self) -> list[nn.Sequential]:
        """The decoder in parts, one for each size; the last ends at the picture, -1 to 1."""
        layers = list(self.decoder)
        ends = [k for k, layer in enumerate(layers) if isinstance(layer, PixelShuffle)]
        # Each part ends where the next one's convolution begins to enlarge.
        cuts = [0, *(end - 1 for end in ends), len(layers)]
        return [nn.Sequential(*layers[a:b]) for a, b in pairwise(cuts)]


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence from the standard normal distribution, mean over elements."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
