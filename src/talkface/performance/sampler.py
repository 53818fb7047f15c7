"""Noise schedule and DDIM sampler of the diffusion prior (paper, Sec. 3.4)."""

import math

import torch
from torch import Tensor

from talkface.performance.model import DiffusionPrior


def signal_level(step: Tensor, diffusion_steps: int) -> Tensor:
    """Cosine schedule: share of signal (alpha-bar) at steps (B,) of ``diffusion_steps``, 1 down to 0."""

    def curve(t: Tensor) -> Tensor:
        return torch.cos((t / diffusion_steps + 0.008) / 1.008 * math.pi / 2).square()

    position = step.float() + 1
    return (curve(position) / curve(torch.zeros_like(position))).clamp(1e-5, 0.9999)


@torch.inference_mode()
def sample(
    prior: DiffusionPrior,
    f_a: Tensor,
    known: Tensor,
    codes: Tensor,
    noise: Tensor,
    steps: int = 12,
    guidance: float = 1.0,
) -> Tensor:
    """DDIM on x0 predictions (B, T, non_lip), deterministic given ``noise``.

    Args:
        prior: predicts clean codes.
        f_a: (B, T, audio) audio code.
        known: (B, T) 1 where ``codes`` are given clean, else 0.
        codes: (B, T, non_lip) non-lip codes; what they are where not known does not matter.
        noise: (B, T, non_lip) standard normal; the seed's randomness.
        steps: of denoising, 1 to ``prior.config.diffusion_steps``; 20 are always enough.
        guidance: scale of classifier-free guidance; 1 follows the audio as trained, more exaggerates its
            influence.
    """
    total = prior.config.diffusion_steps
    times = torch.linspace(total - 1, 0, steps, device=noise.device).round().long()
    keep = known[..., None] > 0
    x, clean = noise, codes
    for index, time in enumerate(times):
        step = time.expand(len(x))
        clean = _predict(prior, torch.where(keep, codes, x), step, f_a, known, guidance)
        if index + 1 == len(times):
            break
        level, following = signal_level(time[None], total), signal_level(times[index + 1][None], total)
        residual = (x - level.sqrt() * clean) / (1 - level).sqrt()
        x = following.sqrt() * clean + (1 - following).sqrt() * residual
    return torch.where(keep, codes, clean)


def _predict(
    prior: DiffusionPrior, x: Tensor, step: Tensor, f_a: Tensor, known: Tensor, guidance: float
) -> Tensor:
    """Clean codes, with the condition's influence scaled by ``guidance``."""
    conditional: Tensor = prior(x, step, f_a, known)
    if guidance == 1.0:
        return conditional
    hidden = torch.ones(len(x), dtype=torch.bool, device=x.device)
    free: Tensor = prior(x, step, f_a, known, hidden)
    return free + guidance * (conditional - free)
