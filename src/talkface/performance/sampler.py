"""Noise schedule and sampler of the diffusion prior."""

import math

import torch
from torch import Tensor


def signal_level(step: Tensor, steps: int) -> Tensor:
    """Cosine schedule: the share of signal (alpha-bar) at diffusion steps (B,), from 1 down to 0."""

    def curve(t: Tensor) -> Tensor:
        return torch.cos((t / steps + 0.008) / 1.008 * math.pi / 2).square()

    position = step.float() + 1
    return (curve(position) / curve(torch.zeros_like(position))).clamp(1e-5, 0.9999)


@torch.inference_mode()
def sample(
    prior,
    f_a: Tensor,
    known: Tensor,
    codes: Tensor,
    noise: Tensor,
    num_inference_steps: int = 12,
    guidance_scale: float = 1.0,
) -> Tensor:
    """DDIM on x0 predictions (B, T, non_lip), deterministic given ``noise``.

    Args:
        prior: DiffusionPrior.
        f_a: (B, T, audio).
        known: (B, T) 1 where ``codes`` are given clean.
        codes: (B, T, non_lip); anything where not known.
        noise: (B, T, non_lip) standard normal; the seed's randomness.
        num_inference_steps: at most 20 are needed.
        guidance_scale: 1 follows the condition as trained; above 1 exaggerates what the audio tells.
    """
    steps = prior.config.diffusion_steps
    times = torch.linspace(steps - 1, 0, num_inference_steps, device=noise.device).round().long()
    keep = known[..., None] > 0
    x, clean = noise, codes
    for index, time in enumerate(times):
        step = time.expand(len(x))
        clean = _predict(prior, torch.where(keep, codes, x), step, f_a, known, guidance_scale)
        if index + 1 == len(times):
            break
        level, following = signal_level(time[None], steps), signal_level(times[index + 1][None], steps)
        residual = (x - level.sqrt() * clean) / (1 - level).sqrt()
        x = following.sqrt() * clean + (1 - following).sqrt() * residual
    return torch.where(keep, codes, clean)


def _predict(prior, x: Tensor, step: Tensor, f_a: Tensor, known: Tensor, guidance_scale: float) -> Tensor:
    conditional = prior(x, step, f_a, known)
    if guidance_scale == 1.0:
        return conditional
    free = prior(x, step, f_a, known, torch.ones(len(x), dtype=torch.bool, device=x.device))
    return free + guidance_scale * (conditional - free)
