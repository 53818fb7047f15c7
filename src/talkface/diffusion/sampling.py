"""Sampling of latents in a few steps, along the straight path from noise, with classifier-free guidance."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from talkface.diffusion.control import Residual
from talkface.diffusion.model import FaceDiffusion
from talkface.diffusion.stable import StableDiffusion

DEFAULT_STEPS, DEFAULT_GUIDANCE = 8, 3.0
"""Steps and classifier-free guidance of portraits, for a model that was not distilled."""
TIMESTEP_SHIFT = 2.0
"""Shift of the schedule of portraits: more of the steps are near the noise; see :func:`sample`."""

Velocity = Callable[[Tensor, Tensor], Tensor]
"""Velocity (B, 4, h, w) of noisy latents at times (B,), 0 for latents to 1 for noise."""
Control = Callable[[Tensor, Tensor, Tensor], dict[str, Residual]]
"""Residuals that an adapter adds to the U-Net's, given latents, step and text embeddings."""


def noised(clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """Latents (B, 4, h, w) on the straight path to noise, at times (B,)."""
    part = time[:, None, None, None]
    return (1 - part) * clean + part * noise


def sample(
    velocity: Velocity, noisy: Tensor, steps: int, noise_level: float = 1.0, shift: float = 1.0
) -> Tensor:
    """Latents (B, 4, h, w), by diffusers' Euler steps.

    Args:
        velocity: of the flow.
        noisy: where sampling begins: noise, or latents with as much noise as ``noise_level`` says.
        steps: how often the velocity is computed.
        noise_level: initial noise level, above 0 to 1: the time at which sampling begins.
        shift: above 1, more steps are spent near the noise, where the picture's layout is decided (Esser et
            al., 2024, Sec. 5.3.2).
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler_class: Any = FlowMatchEulerDiscreteScheduler  # diffusers' constructors have no types
    scheduler = scheduler_class(shift=1.0)
    scheduler.set_timesteps(sigmas=schedule(steps, noise_level, shift).tolist(), device=noisy.device)
    for step in scheduler.timesteps:
        moved = velocity(noisy, (step / scheduler.config.num_train_timesteps).expand(len(noisy)))
        noisy = scheduler.step(moved, step, noisy, return_dict=False)[0]
    return noisy


def schedule(steps: int, noise_level: float = 1.0, shift: float = 1.0) -> np.ndarray:
    """Times (steps,) at which :func:`sample` computes the velocity, from the noise on.

    Every n-th time of a schedule with n times as many steps is one of these.
    """
    even = np.linspace(noise_level, noise_level / steps, steps)
    return shift * even / (1 + (shift - 1) * even)


def euler_steps(velocity: Velocity, noisy: Tensor, times: Tensor) -> Tensor:
    """Latents (B, 4, h, w) after S Euler steps, each from one row of times (S + 1, B) to the next."""
    for now, then in pairwise(times):
        noisy = noisy + (then - now)[:, None, None, None] * velocity(noisy, now)
    return noisy


def default_steps(model: FaceDiffusion | StableDiffusion, otherwise: int = DEFAULT_STEPS) -> int:
    """Steps of the sampler for a model: those it was distilled to, if it was."""
    return model.config.steps or otherwise


def default_guidance(model: FaceDiffusion | StableDiffusion, otherwise: float = DEFAULT_GUIDANCE) -> float:
    """Classifier-free guidance for a model: 1 where distillation has put it into the velocity."""
    return 1.0 if model.config.guided else otherwise


def guided(
    model: FaceDiffusion | StableDiffusion,
    text_embeddings: Tensor,
    mesh: Tensor | None,
    guidance: float,
    control: Control | None = None,
) -> Velocity:
    """The velocity under classifier-free guidance (Ho and Salimans, 2022).

    Args:
        model: the LDM.
        text_embeddings: (1 or B, L, C) text embeddings of the caption.
        mesh: (B, M, h, w) channels of the mesh; None for a model that sees none.
        guidance: how much the caption counts; 1 is as trained, and costs half as much as other values.
        control: an adapter.
    """

    def plain(x: Tensor, time: Tensor, text_embeddings: Tensor, mesh: Tensor | None) -> Tensor:
        added = control(*model.inputs(x, time, mesh), text_embeddings) if control else {}
        moved: Tensor = model(x, time, text_embeddings, mesh, **added)
        return moved

    if guidance == 1:
        return lambda x, time: plain(x, time, text_embeddings.expand(len(x), -1, -1), mesh)
    nothing = model.encode_text(torch.from_numpy(model.tokenize("").ids)[None].to(text_embeddings.device))

    def velocity(x: Tensor, time: Tensor) -> Tensor:
        both = torch.cat([part.expand(len(x), -1, -1) for part in (text_embeddings, nothing)])
        twice = None if mesh is None else torch.cat([mesh, mesh])
        said, unsaid = plain(torch.cat([x, x]), torch.cat([time, time]), both, twice).chunk(2)
        return unsaid + guidance * (said - unsaid)

    return velocity


def in_dtype(velocity: Velocity, dtype: torch.dtype) -> Velocity:
    """The velocity computed in another type, under autocast; its result is float32."""
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
    means = [power[rings == ring].mean() for ring in range(1, latents.shape[-1] // 2 + 1)]
    amplitudes: np.ndarray = np.sqrt(np.array(means))
    return amplitudes


def restore_spectrum(
    latents: Tensor, spectrum: Sequence[float], strength: float = 1.0, most: float = 1.3
) -> Tensor:
    """Latents (B, C, S, S) with the contrast and detail that samples lack; the mean stays.

    Where a network is uncertain it predicts the mean, so that each step takes away some amplitude.

    Args:
        latents: samples.
        spectrum: their amplitude over that of real ones, at 1, 2, ... cycles a side; none changes nothing.
        strength: how much of what is lacking is given back, 0 to 1.
        most: largest factor.
    """
    if not len(spectrum):
        return latents
    factors = np.clip(np.asarray(spectrum) ** -strength, 1 / most, most)
    rings = _rings(latents.shape[-1])
    gain = np.interp(rings * len(spectrum) * 2 / latents.shape[-1], np.arange(1, len(factors) + 1), factors)
    gain[0, 0] = 1.0
    weighted = torch.fft.fft2(latents.float()) * torch.from_numpy(gain).to(latents.device)
    corrected: Tensor = torch.fft.ifft2(weighted).real
    return corrected.to(latents.dtype)


def _rings(side: int) -> np.ndarray:
    """Cycles a side (S, S) of each coefficient of a Fourier transform."""
    cycles = np.fft.fftfreq(side) * side
    rings: np.ndarray = np.hypot(cycles[:, None], cycles[None])
    return rings
