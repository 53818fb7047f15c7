"""Evaluates a face LDM: faces drawn over people's meshes beside real ones, by two feature extractors."""

from dataclasses import replace

import numpy as np
import torch

from talkface.data.faces import Portrait
from talkface.diffusion.autoencoder import LATENT_FACTOR
from talkface.diffusion.base import Base
from talkface.diffusion.captions import Attributes, caption, tokenize
from talkface.diffusion.model import FaceDiffusion
from talkface.diffusion.sampling import (
    TIMESTEP_SHIFT,
    default_guidance,
    default_steps,
    guided,
    restore_spectrum,
    sample,
)
from talkface.evaluation.figures.distributions import kernel_distance
from talkface.evaluation.judges.recognisers import Recogniser, dlib_recogniser, mobileface_recogniser
from talkface.face.draw import draw_mesh
from talkface.face.portrait import PORTRAIT_PIXELS
from talkface.face.warp import MeshWarp

_BATCH = 8  # faces drawn at once
_COLUMNS = 8  # of a sheet


def extractors() -> dict[str, Recogniser]:
    """The feature extractors at hand, by name: dlib's and MobileFace's."""
    found = {"dlib128": dlib_recogniser(), "mobileface256": mobileface_recogniser()}
    return {name: describe for name, describe in found.items() if describe is not None}


@torch.inference_mode()
def draw_faces(
    model: FaceDiffusion, base: Base, people: list[Portrait], known: dict[str, Attributes], warp: MeshWarp
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Draw faces over people's meshes and captions, as ``imagine`` draws them, from noise of seed 0.

    Returns:
        The LDM's drafts, and what the restorer made of them, (256, 256, 3) uint8 each.
    """
    drawing = torch.from_numpy(
        np.stack([draw_mesh(warp, person.points, PORTRAIT_PIXELS) for person in people])
    )
    ids = torch.from_numpy(np.stack([tokenize(caption(known[person.key])).ids for person in people]))
    side = PORTRAIT_PIXELS // LATENT_FACTOR
    noise = torch.randn(len(people), 4, side, side, generator=torch.Generator().manual_seed(0))
    drafts: list[np.ndarray] = []
    for start in range(0, len(people), _BATCH):
        part = slice(start, start + _BATCH)
        mesh = model.encode_mesh(drawing[part]) if model.mesh else None
        velocity = guided(model, model.encode_text(ids[part]), mesh, default_guidance(model))
        latents = restore_spectrum(
            sample(velocity, noise[part], default_steps(model), shift=TIMESTEP_SHIFT), model.config.spectrum
        )
        pictures = base.autoencoder.decode(latents).permute(0, 2, 3, 1) * 255
        drafts += list(pictures.round().clamp(0, 255).byte().numpy())
    finished = replace(base, model=model)
    rows = enumerate(zip(drafts, people, strict=True))
    return drafts, [finished.restore(d, p.points, drawing[k : k + 1]) for k, (d, p) in rows]


def distances(made: list[np.ndarray], people: list[Portrait], real: list[Portrait]) -> dict[str, float]:
    """``kd_...``: kernel distance, times 1000, between drawn and real faces, by each extractor.

    Args:
        made: Drawn faces (H, W, 3) uint8.
        people: The people over whose meshes they were drawn.
        real: Real faces.
    """
    found = {}
    for name, describe in extractors().items():
        drawn = [describe(image, p.points) for image, p in zip(made, people, strict=True)]
        true = [describe(p.image(), p.points) for p in real]
        found[f"kd_{name}"] = 1000 * kernel_distance(*(_normalised(np.array(rows)) for rows in (drawn, true)))
    return found


def _normalised(rows: np.ndarray) -> np.ndarray:
    """Descriptors (N, C) scaled to a mean square of 1, so that the kernel treats all extractors alike."""
    scaled: np.ndarray = rows * np.sqrt(rows.shape[1]) / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled


def sheet(images: list[np.ndarray]) -> np.ndarray:
    """Pictures of one size in rows of eight."""
    blank = np.zeros_like(images[0])
    padded = images + [blank] * (-len(images) % _COLUMNS)
    rows = [np.hstack(padded[k : k + _COLUMNS]) for k in range(0, len(padded), _COLUMNS)]
    return np.vstack(rows)
