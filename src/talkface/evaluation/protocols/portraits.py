"""How near the faces that a face LDM draws are to those of people: by two extractors, and as a sheet."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from talkface.data.faces import Portrait
from talkface.diffusion.base import Base
from talkface.diffusion.captions import Attributes, caption, tokenize
from talkface.diffusion.model import FaceDiffusion
from talkface.diffusion.sampling import SHIFT, guided, own_guidance, own_steps, restored, sample
from talkface.evaluation.figures import picture
from talkface.evaluation.figures.motion import kernel_distance
from talkface.face.draw import draw_mesh
from talkface.face.portrait import PIXELS
from talkface.face.warp import MeshWarp

_BATCH, _COLUMNS = 8, 8

Describe = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Descriptor (C,) of a face in a picture (H, W, 3) uint8, with its mesh (478, 3)."""


def judges() -> dict[str, Describe]:
    """The extractors that are at hand, by name: dlib's and MobileFace's."""
    found = {"dlib128": picture.recogniser(), "mobileface256": picture.second_recogniser()}
    return {name: judge for name, judge in found.items() if judge is not None}


@torch.inference_mode()
def draw_faces(
    model: FaceDiffusion, base: Base, people: list[Portrait], known: dict[str, Attributes], warp: MeshWarp
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Faces with people's meshes and captions, drawn as ``imagine`` draws them, from noise of seed 0.

    Returns:
        What the LDM drew, and what the restorer made of it, (256, 256, 3) uint8 each.
    """
    drawing = torch.from_numpy(np.stack([draw_mesh(warp, person.points, PIXELS) for person in people]))
    ids = torch.from_numpy(np.stack([tokenize(caption(known[person.key])).ids for person in people]))
    side = PIXELS // 8
    noise = torch.randn(len(people), 4, side, side, generator=torch.Generator().manual_seed(0))
    drafts: list[np.ndarray] = []
    for start in range(0, len(people), _BATCH):
        part = slice(start, start + _BATCH)
        mesh = model.see(drawing[part]) if model.mesh else None
        velocity = guided(model, model.read(ids[part]), mesh, own_guidance(model))
        latents = restored(
            sample(velocity, noise[part], own_steps(model), shift=SHIFT), model.config.spectrum
        )
        pictures = base.autoencoder.decode(latents).permute(0, 2, 3, 1) * 255
        drafts += list(pictures.round().clamp(0, 255).byte().numpy())
    finished = replace(base, model=model)
    rows = enumerate(zip(drafts, people, strict=True))
    return drafts, [finished.photograph(d, p.points, drawing[k : k + 1]) for k, (d, p) in rows]


def distances(made: list[np.ndarray], people: list[Portrait], real: list[Portrait]) -> dict[str, float]:
    """Kernel distances, times a thousand, of faces with people's meshes from real ones, by each extractor."""
    found = {}
    for name, describe in judges().items():
        drawn = [describe(image, p.points) for image, p in zip(made, people, strict=True)]
        true = [describe(p.image(), p.points) for p in real]
        found[f"kd_{name}"] = 1000 * kernel_distance(*(_even(np.array(rows)) for rows in (drawn, true)))
    return found


def _even(rows: np.ndarray) -> np.ndarray:
    """Descriptors (N, C) with a mean square of 1: the kernel's constant is not to drown longer ones."""
    return rows * np.sqrt(rows.shape[1]) / np.linalg.norm(rows, axis=1, keepdims=True)


def sheet(images: list[np.ndarray]) -> np.ndarray:
    """Pictures of one size in rows of eight."""
    blank = np.zeros_like(images[0])
    padded = images + [blank] * (-len(images) % _COLUMNS)
    rows = [np.hstack(padded[k : k + _COLUMNS]) for k in range(0, len(padded), _COLUMNS)]
    return np.vstack(rows)
