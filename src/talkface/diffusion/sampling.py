"""Sampling of latents in a few steps, along the straight path from noise, with classifier-free guidance."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from talkface.diffusion.model import FaceDiffusion
from talkface.diffusion.stable import StableDiffusion

STEPS, GUIDANCE = 8, 3.0
"""With which portraits are drawn, unless somebody or the model says otherwise."""
SHIFT = 2.0
"""More of few steps where layout and eyes are decided."""

Velocity = Callable[[Tensor, Tensor], Tensor]
"""Velocity (B, 4, h, w) of noisy latents at times (B,), 0 for latents to 1 for noise."""
Control = Callable[[Tensor, Tensor, Tensor], dict[str, Any]]
"""Residuals of an adapter, of what the U-Net takes: latents, step and meaning."""


def sample(velocity: Velocity, noisy: Tensor, steps: int, begin: float = 1.0, shift: float = 1.0) -> Tensor:
    """Latents (B, 4, h, w), by diffusers' Euler steps.

    Args:
        velocity: of the flow.
        noisy: noise of that shape, or latents that are noisy as they are at time ``begin``.
        steps: how often the velocity is asked for.
        begin: time at which to begin, above 0 to 1.
        shift: above 1, more steps are spent near the noise, where the picture's layout is decided (Esser et
            al., 2024, Sec. 5.3.2).
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler: Any = FlowMatchEulerDiscreteScheduler(shift=1.0)
    scheduler.set_timesteps(sigmas=schedule(steps, begin, shift).tolist(), device=noisy.device)
    for step in scheduler.timesteps:
        moved = velocity(noisy, (step / scheduler.config.num_train_timesteps).expand(len(noisy)))
        noisy = scheduler.step(moved, step, noisy, return_dict=False)[0]
    return noisy


def schedule(steps: int, begin: float = 1.0, shift: float = 1.0) -> np.ndarray:
    """Times (steps,) at which :func:`sample` asks for the velocity, from the noise on.

    Every n-th of n times as many steps is one of these.
    """
    even = np.linspace(begin, begin / steps, steps)
    return shift * even / (1 + (shift - 1) * even)


def walked(velocity: Velocity, noisy: Tensor, times: Tensor) -> Tensor:
    """Latents (B, 4, h, w) after Euler steps from one row of times (S + 1, B) to the next."""
    for now, then in pairwise(times):
        noisy = noisy + (then - now)[:, None, None, None] * velocity(noisy, now)
    return noisy


def own_steps(model: FaceDiffusion | StableDiffusion, otherwise: int = STEPS) -> int:
    """Steps in which a model has learnt to draw, if it has learnt that."""
    return model.config.steps or otherwise


def own_guidance(model: FaceDiffusion | StableDiffusion, otherwise: float = GUIDANCE) -> float:
    """Guidance that a model needs: 1 where it is in the velocity already."""
    return 1.0 if model.config.guided else otherwise


def guided(
    model: FaceDiffusion | StableDiffusion,
    meaning: Tensor,
    mesh: Tensor | None,
    guidance: float,
    control: Control | None = None,
) -> Velocity:
    """The velocity with the caption's influence times ``guidance``; 1 is as trained (Ho, Salimans, 2022)."""

    def plain(x: Tensor, time: Tensor, meaning: Tensor, mesh: Tensor | None) -> Tensor:
        added = control(*model.inputs(x, time, mesh), meaning) if control else {}
        return model(x, time, meaning, mesh, **added)

    if guidance == 1:
        return lambda x, time: plain(x, time, meaning.expand(len(x), -1, -1), mesh)
    nothing = model.read(torch.from_numpy(model.tokenize("").ids)[None].to(meaning.device))

    def velocity(x: Tensor, time: Tensor) -> Tensor:
        both = torch.cat([part.expand(len(x), -1, -1) for part in (meaning, nothing)])
        twice = None if mesh is None else torch.cat([mesh, mesh])
        said, unsaid = plain(torch.cat([x, x]), torch.cat([time, time]), both, twice).chunk(2)
        return unsaid + guidance * (said - unsaid)

    return velocity


def in_dtype(velocity: Velocity, dtype: torch.dtype) -> Velocity:
    """The velocity computed in another type, under autocast; float32 again when it is given."""
    if dtype == torch.float32:
        return velocity

    def cast(noisy: Tensor, time: Tensor) -> Tensor:
        with torch.autocast(noisy.device.type, dtype):
            return velocity(noisy, time).float()

    return cast


def spectrum(latents: Tensor) -> np.ndarray:
    """Mean amplitude of latents (B, C, S, S) at 1, 2, ... S/2 cycles a side."""
    power = torch.fft.fft2(latents.float()).abs().square().mean((0, 1)).cpu().numpy()
    rings = _rings(latents.shape[-1]).round()
    return np.sqrt([power[rings == ring].mean() for ring in range(1, latents.shape[-1] // 2 + 1)])


def restored(latents: Tensor, spectrum: Sequence[float], strength: float = 1.0, most: float = 1.3) -> Tensor:
    """Latents (B, C, S, S) with the contrast and detail that samples lack; the mean stays.

    A network that is not sure draws towards the mean, at every step a little.

    Args:
        latents: samples.
        spectrum: their amplitude over that of real ones, at 1, 2, ... cycles a side; none changes nothing.
        strength: how much of it is given back, 0 to 1.
        most: largest factor.
    """
    if not len(spectrum):
        return latents
    factors = np.clip(np.asarray(spectrum) ** -strength, 1 / most, most)
    rings = _rings(latents.shape[-1])
    gain = np.interp(rings * len(spectrum) * 2 / latents.shape[-1], np.arange(1, len(factors) + 1), factors)
    gain[0, 0] = 1.0
    weighted = torch.fft.fft2(latents.float()) * torch.from_numpy(gain).to(latents.device)
    return torch.fft.ifft2(weighted).real.to(latents.dtype)


def _rings(side: int) -> np.ndarray:
    """Cycles a side (S, S) of each coefficient of a Fourier transform."""
    cycles = np.fft.fftfreq(side) * side
    return np.hypot(cycles[:, None], cycles[None])
