"""One frame by diffusion: what the renderer draws, and trainings with rollouts to see what it will show."""

import torch
from torch import Tensor, nn

from talkface.diffusion.model import FaceDiffusion
from talkface.diffusion.sampling import guided, in_dtype, sample
from talkface.diffusion.stable import StableDiffusion
from talkface.systems.imagineid.ccf import Hint

STEPS = 1  # two look no different from so little noise, and cost a third of the speed
BEGIN = 0.3
"""Time at which a frame begins: how much of the moved reference is drawn anew; 1 is all of it."""


def hint_of(
    drawing: Tensor, reference: Tensor, hidden: Tensor, before: Tensor | None, shown: bool = True
) -> Hint:
    """What frames are drawn from.

    Args:
        drawing: as in :class:`Hint`.
        reference: as there.
        hidden: as there.
        before: as there; None for the first frames of videos.
        shown: whether SCA sees the reference.
    """
    known = torch.tensor([[float(shown), float(before is not None)]], device=reference.device)
    before = torch.zeros_like(reference) if before is None else before
    return Hint(drawing, reference, before, hidden, known.expand(len(reference), -1))


def draw_latents(
    model: FaceDiffusion | StableDiffusion,
    sca: nn.Module,
    meaning: Tensor,
    hint: Hint,
    noise: Tensor,
    steps: int = STEPS,
    begin: float = BEGIN,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Latents (B, 4, h, w) of frames, from their moved references with noise on them.

    Args:
        model: the frozen LDM.
        sca: SCA, which shows it the hint.
        meaning: (1, L, C) of the caption.
        hint: of the frames.
        noise: (B, 4, h, w), the same for all frames of a video.
        steps: of the sampler.
        begin: time at which a frame begins, above 0 to 1.
        dtype: of the networks' arithmetic.
    """
    mesh = model.see(hint.drawing) if model.mesh else None
    velocity = guided(model, meaning, mesh, 1.0, lambda given, step, meaning: sca(given, step, meaning, hint))
    noisy = (1 - begin) * hint.reference + begin * noise
    return sample(in_dtype(velocity, dtype), noisy, steps, begin)


def around_face(latents: Tensor, hidden: Tensor) -> Tensor:
    """What the next frame is shown of this one: latents (B, 4, h, w), zero where ``hidden`` is 1."""
    return latents * (1 - hidden)
