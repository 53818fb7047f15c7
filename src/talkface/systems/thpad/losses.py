"""Losses of TH-PAD and of its refiner."""

import torch
from torch import Tensor, nn
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


def hinge_discriminator(real: Tensor, fake: Tensor, weight: Tensor) -> Tensor:
    """Hinge loss of the discriminator on scores (B, 1, h, w), averaged under ``weight`` of the same shape."""
    return _mean(F.relu(1 - real) + F.relu(1 + fake), weight)


def hinge_generator(fake: Tensor, weight: Tensor) -> Tensor:
    """Hinge loss of the generator on scores (B, 1, h, w), averaged under ``weight`` of the same shape."""
    return _mean(-fake, weight)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / (weight.sum() + 1e-6)


class PatchDiscriminator(nn.Module):
    """PatchGAN on crops (B, 3, H, W) with their mesh maps; gives scores (B, 1, H/8, W/8) and its features."""

    def __init__(self, maps: int, width: int = 32) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.spectral_norm
        self.layers = nn.ModuleList(
            [
                norm(nn.Conv2d(12 + maps, width, 3, padding=1)),
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
