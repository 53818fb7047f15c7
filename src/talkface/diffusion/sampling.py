"""Sampling of latents in a few steps, along the straight path from noise, with classifier-free guidance."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from talkface.diffusion.model import FaceDiffusion
from talkface.diffusion.stable import StableDiffusion

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
    even = np.linspace(begin, begin / steps, steps)
    scheduler.set_timesteps(sigmas=(shift * even / (1 + (shift - 1) * even)).tolist(), device=noisy.device)
    for step in scheduler.timesteps:
        moved = velocity(noisy, (step / scheduler.config.num_train_timesteps).expand(len(noisy)))
        noisy = scheduler.step(moved, step, noisy, return_dict=False)[0]
    return noisy


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
