"""Losses of a PatchGAN on crops with mesh maps, of which only a part is drawn."""

import torch
from torch import Tensor
from torch.nn import functional as F

from talkface.nn.adversarial import PatchDiscriminator, feature_matching, hinge_discriminator, hinge_generator


def patch_weight(weight: Tensor, scores: Tensor) -> Tensor:
    """Weight (B, 1, h, w) of each patch, from that of the pixels (B, 1, H, W).

    Patches without a weight show real pixels, from which there is nothing to learn.
    """
    return F.adaptive_avg_pool2d(weight, (scores.shape[-2], scores.shape[-1]))


def generator_losses(
    discriminator: PatchDiscriminator, fake: Tensor, real: Tensor, maps: Tensor, weight: Tensor
) -> dict[str, Tensor]:
    """The generator's "adversarial" and "matching" losses.

    Args:
        discriminator: of these crops.
        fake: (B, 3, H, W) what was drawn.
        real: (B, 3, H, W) what it should be.
        maps: (B, MAP_CHANNELS, H/2, W/2) mesh maps.
        weight: (B, 1, H, W) loss weight of the pixels.
    """
    score, features = discriminator(fake, maps)
    with torch.no_grad():
        _, real_features = discriminator(real, maps)
    return {
        "adversarial": hinge_generator(score, patch_weight(weight, score)),
        "matching": feature_matching(features, real_features),
    }


def discriminator_loss(
    discriminator: PatchDiscriminator, fake: Tensor, real: Tensor, maps: Tensor, weight: Tensor
) -> Tensor:
    """The discriminator's hinge loss; arguments as of :func:`generator_losses`."""
    real_score, _ = discriminator(real, maps)
    fake_score, _ = discriminator(fake, maps)
    return hinge_discriminator(real_score, fake_score, patch_weight(weight, real_score))


def zero_loss(discriminator: PatchDiscriminator) -> Tensor:
    """A loss of 0 for steps that do not train the discriminator; it has a gradient, which is 0."""
    return discriminator.head.get_parameter("bias").sum() * 0.0
