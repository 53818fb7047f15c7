"""One frame by diffusion, for the renderer and for trainings with rollouts."""

import torch
from torch import Tensor, nn

from talkface.diffusion.control import Residual
from talkface.diffusion.model import FaceDiffusion
from talkface.diffusion.sampling import guided, in_dtype, sample
from talkface.diffusion.stable import StableDiffusion
from talkface.systems.imagineid.ccf import SpatialCondition

FRAME_STEPS = 1
"""Steps of the sampler for a frame: from so little noise, two look no better and are a third slower."""
FRAME_NOISE_LEVEL = 0.3
"""Initial noise level of a frame's moved reference; at 1 nothing is left of the reference."""


def spatial_condition(
    drawing: Tensor, reference: Tensor, hidden: Tensor, before: Tensor | None, shown: bool = True
) -> SpatialCondition:
    """The condition of frames (B).

    Args:
        drawing: (B, 6, H/2, W/2) of their meshes.
        reference: (B, 4, h, w) latents of the moved references.
        hidden: (B, 1, h, w) 1 where the face is.
        before: (B, 4, h, w) latents of the frames before, zero inside the face; None for first frames.
        shown: whether SCA is shown the reference.
    """
    known = torch.tensor([[float(shown), float(before is not None)]], device=reference.device)
    before = torch.zeros_like(reference) if before is None else before
    return SpatialCondition(drawing, reference, before, hidden, known.expand(len(reference), -1))


def draw_latents(
    model: FaceDiffusion | StableDiffusion,
    sca: nn.Module,
    text_embeddings: Tensor,
    condition: SpatialCondition,
    noise: Tensor,
    steps: int = FRAME_STEPS,
    noise_level: float = FRAME_NOISE_LEVEL,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Latents (B, 4, h, w) of frames, from their moved references with noise on them.

    Args:
        model: the frozen LDM.
        sca: SCA.
        text_embeddings: (1, L, C) text embeddings of the caption.
        condition: of the frames.
        noise: (B, 4, h, w), the same for all frames of a video.
        steps: of the sampler.
        noise_level: initial noise level, above 0 to 1.
        dtype: of the networks' arithmetic.
    """
    mesh = model.encode_mesh(condition.drawing) if model.mesh else None

    def control(given: Tensor, step: Tensor, text_embeddings: Tensor) -> dict[str, Residual]:
        residuals: dict[str, Residual] = sca(given, step, text_embeddings, condition)
        return residuals

    velocity = guided(model, text_embeddings, mesh, 1.0, control)
    noisy = (1 - noise_level) * condition.reference + noise_level * noise
    return sample(in_dtype(velocity, dtype), noisy, steps, noise_level)


def around_face(latents: Tensor, hidden: Tensor) -> Tensor:
    """Latents (B, 4, h, w) of a frame as the next one is shown them: zero where ``hidden`` is 1."""
    return latents * (1 - hidden)
