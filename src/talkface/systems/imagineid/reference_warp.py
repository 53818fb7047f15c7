"""Moves a portrait to another mesh, and tells where its face is."""

import cv2
import numpy as np

from talkface.diffusion.autoencoder import LATENT_FACTOR
from talkface.face.masks import face_mask
from talkface.face.model import estimate_pose
from talkface.face.portrait import PORTRAIT_PIXELS
from talkface.face.warp import MeshWarp, move_ring, resample, with_ring


def move_portrait(
    image: np.ndarray, source: np.ndarray, target: np.ndarray, neutral: np.ndarray, warp: MeshWarp
) -> np.ndarray:
    """A picture (H, W, 3) uint8 whose face (478, 3) is moved to another mesh; the background stays.

    Args:
        image: the reference.
        source: its mesh, pixels.
        target: the mesh to move it to, pixels.
        neutral: (478, 3) the person's canonical mesh.
        warp: of this topology.
    """
    before, after = estimate_pose(source[None], neutral), estimate_pose(target[None], neutral)
    resting = with_ring(source)
    rigid = after.apply(before.invert(resting[None]))[0]
    field = warp.field(resting, move_ring(resting, rigid, target), image.shape[1::-1])
    out = image.copy()
    resample(image, field, out)
    return out


def hidden_cells(
    points: np.ndarray, side: int = PORTRAIT_PIXELS // LATENT_FACTOR, pixels: int = PORTRAIT_PIXELS
) -> np.ndarray:
    """Where the face is, at the latents' size, (1, h, w) float32, of a mesh in pixels of a square picture."""
    mask = face_mask(points, (pixels, pixels))
    return cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA)[None]


def enlarged_mask(points: np.ndarray, side: int) -> np.ndarray:
    """Where the face (478, 3) of a portrait is, (side, side) float32."""
    return face_mask((points + 0.5) * (side / PORTRAIT_PIXELS) - 0.5, (side, side))
