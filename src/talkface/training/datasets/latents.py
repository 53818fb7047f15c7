"""Latents of augmented portraits, encoded once and kept beside the prepared data."""

import logging
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from torch import nn

from talkface.data.arrays import kept_arrays
from talkface.data.faces import CLEAR, Portrait
from talkface.data.parallel import parallel_map
from talkface.diffusion.autoencoder import LATENT_FACTOR, FaceAutoencoder
from talkface.diffusion.stable import StableAutoencoder
from talkface.face.crop import transform
from talkface.face.model import FaceModel, estimate_pose
from talkface.face.people.scanning import head_angles
from talkface.face.portrait import PORTRAIT_PIXELS
from talkface.nn.marks import latents_mark, marked
from talkface.nn.picture import enlarged
from talkface.training.datasets.encoding import encode_pictures

logger = logging.getLogger(__name__)

_BATCH = 16  # portraits that are encoded together


@dataclass(frozen=True, kw_only=True)
class PortraitSettings:
    """Which portraits a training uses.

    Attributes:
        face_model: name or directory of the 3DMM.
        sharpness: mean Laplacian below which portraits are left out.
        turned: yaw in radians above which portraits are left out.
        held_out: portraits on which it is validated, of people who are not in the training split.
    """

    face_model: str = "face"
    sharpness: float = CLEAR
    turned: float = 0.9
    held_out: int = 48


@dataclass(frozen=True)
class PortraitLatents:
    """Latents of variants of portraits.

    Attributes:
        latents: (N, V, 4, h, w) float16.
        points: (N, V, 478, 3) float32 meshes in pixels of the pictures behind the latents.
    """

    latents: np.ndarray
    points: np.ndarray

    @classmethod
    def of(
        cls,
        album: list[Portrait],
        autoencoder: FaceAutoencoder | StableAutoencoder,
        variants: int,
        folder: Path,
        seed: int = 0,
        pixels: int = PORTRAIT_PIXELS,
    ) -> "PortraitLatents":
        """Encode portraits, the first variant as they are, the others augmented; kept in ``folder``.

        ``pixels`` is the side of the pictures that are encoded; meshes stay in pixels of the portraits.
        """
        mark = _mark(album, autoencoder, variants, seed, pixels)
        path = folder / f"latents-{mark}.npz"
        return kept_arrays(cls, path, lambda: cls(*_encode(album, autoencoder, variants, seed, pixels)))


def vary(
    image: np.ndarray, points: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A portrait (256, 256, 3) uint8 and its mesh (478, 3), moved, mirrored and in other light."""
    side = len(image)
    zoom, angle = generator.uniform(0.94, 1.12), generator.normal(0, 3.0)
    matrix = cv2.getRotationMatrix2D(((side - 1) / 2,) * 2, angle, zoom)
    matrix[:, 2] = matrix[:, 2] + generator.uniform(-0.03, 0.03, 2) * side
    if generator.random() < 0.5:
        matrix[0] *= -1
        matrix[0, 2] += side - 1
    moved = cv2.warpAffine(
        image, matrix, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )
    gain = generator.normal(1, 0.06, 3) * generator.normal(1, 0.08)
    gamma = float(np.exp(generator.normal(0, 0.12)))
    return cv2.LUT(moved, light_table(gain, gamma)), transform(points, matrix)


def light_table(gain: np.ndarray, gamma: float) -> np.ndarray:
    """A table (1, 256, 3) uint8 for OpenCV's LUT: a gain (3,) for each colour after a gamma."""
    table: np.ndarray = 255 * np.clip(np.linspace(0, 1, 256)[:, None] ** gamma * gain, 0, 1)
    return table.round().astype(np.uint8)[None]


def usable_portraits(
    album: list[Portrait], face: FaceModel, sharpness: float = CLEAR, turned: float = 0.9
) -> list[Portrait]:
    """Portraits that are sharp enough and not turned too far.

    Args:
        album: any portraits.
        face: the 3DMM.
        sharpness: least mean Laplacian.
        turned: largest yaw, radians.
    """
    return [p for p in album if p.sharpness >= sharpness and _yaw(p, face) <= turned]


def _yaw(portrait: Portrait, face: FaceModel) -> float:
    """How far a portrait is turned, radians."""
    rotation = estimate_pose(portrait.points[None], face.mean).rotation
    return float(np.radians(abs(head_angles(rotation)[0, 0])))


def _encode(
    album: list[Portrait],
    autoencoder: FaceAutoencoder | StableAutoencoder,
    variants: int,
    seed: int,
    pixels: int,
) -> tuple[np.ndarray, np.ndarray]:
    latents, points = [], []

    def rows(start: int) -> tuple[np.ndarray, np.ndarray]:
        found = []
        for number, portrait in enumerate(album[start : start + _BATCH], start):
            generator, plain = np.random.default_rng([seed, number]), (portrait.image(), portrait.points)
            found += [plain, *(vary(*plain, generator) for _ in range(variants - 1))]
        images = np.stack([enlarged(image, pixels) for image, _ in found])
        return images, np.stack([mesh for _, mesh in found]).astype(np.float32)

    for number, (images, meshes) in enumerate(parallel_map(rows, range(0, len(album), _BATCH))):
        latents.append(encode_pictures(autoencoder, list(images), pixels))
        points.append(meshes)
        if number % 50 == 0:
            logger.info("encoded %d of %d portraits", number * _BATCH, len(album))
    side = pixels // LATENT_FACTOR
    shape = len(album), variants
    found = np.concatenate(latents).reshape(*shape, -1, side, side)
    return found, np.concatenate(points).reshape(*shape, -1, 3)


def _mark(
    album: list[Portrait], autoencoder: nn.Module, variants: int, seed: int, pixels: int = PORTRAIT_PIXELS
) -> str:
    """Tells which portraits were encoded, and how."""
    text = f"{variants} {seed} {[p.key for p in album]} {latents_mark(autoencoder)}"
    text += f" {pixels}" if pixels != PORTRAIT_PIXELS else ""
    return marked(text)
