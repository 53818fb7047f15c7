"""Sampling of latents in a few steps: Euler along the straight path, with classifier-free guidance."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from talkface.diffusion.captions import tokenize
from talkface.diffusion.model import FaceDiffusion

Velocity = Callable[[Tensor, Tensor], Tensor]
"""Velocity (B, 4, h, w) of noisy latents at times (B,)."""


def times(steps: int, shift: float = 1.0) -> Tensor:
    """When to evaluate the velocity, (steps + 1,) from 1, noise, to 0.

    ``shift`` above 1 spends more steps near the noise, where the picture's layout is decided (Esser et al.,
    2024, Sec. 5.3.2).
    """
    even = torch.linspace(1, 0, steps + 1)
    return shift * even / (1 + (shift - 1) * even)


def euler(velocity: Velocity, noise: Tensor, steps: int, shift: float = 1.0) -> Tensor:
    """Latents (B, 4, h, w) from noise of the same shape."""
    x, path = noise, times(steps, shift).to(noise)
    for now, after in pairwise(path):
        x = x + (after - now) * velocity(x, now.expand(len(x)))
    return x


def guided(model: FaceDiffusion, meaning: Tensor, mesh: Tensor | None, guidance: float) -> Velocity:
    """The velocity with the caption's influence times ``guidance``; 1 is as trained (Ho, Salimans, 2022)."""
    if guidance == 1:
        return lambda x, time: model(x, time, meaning, mesh)
    nothing = model.read(torch.from_numpy(tokenize("").ids)[None].to(meaning.device)).expand_as(meaning)
    both = torch.cat([meaning, nothing])
    twice = None if mesh is None else torch.cat([mesh, mesh])

    def velocity(x: Tensor, time: Tensor) -> Tensor:
        said, unsaid = model(torch.cat([x, x]), torch.cat([time, time]), both, twice).chunk(2)
        return unsaid + guidance * (said - unsaid)

    return velocity
