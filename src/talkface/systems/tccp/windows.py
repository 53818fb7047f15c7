"""Crops of frames with a hole, and features of the speech around each frame."""

import numpy as np

from talkface.face.crop import face_unit
from talkface.face.portrait import PORTRAIT_PIXELS, PORTRAIT_SIDE

AROUND = 2
"""Frames before and after one whose mouth coefficients it is conditioned on."""


def around(values: np.ndarray, reach: int) -> np.ndarray:
    """Values (T, ...) of each frame and those ``reach`` before and after it, (T, 2 reach + 1, ...)."""
    index = np.arange(len(values))[:, None] + np.arange(-reach, reach + 1)
    neighbours: np.ndarray = values[np.clip(index, 0, len(values) - 1)]
    return neighbours


def around_audio(content: np.ndarray) -> np.ndarray:
    """Content features (2T, C) at 50 Hz around each frame, (T, 4, C)."""
    index = 2 * np.arange(len(content) // 2)[:, None] + np.arange(-1, 3)
    neighbours: np.ndarray = content[np.clip(index, 0, len(content) - 1)]
    return neighbours


def scene_matrix(
    points: np.ndarray, size: tuple[int, int], zoom: float = 1.0, shift: np.ndarray | None = None
) -> np.ndarray:
    """Affine map (2, 3) from a frame to crop pixels: a portrait's crop with more around it.

    Args:
        points: (478, 3) mesh in the frame.
        size: (W, H) of the frame.
        zoom: how much larger the crop is than a portrait's.
        shift: by which it is moved, of its side.
    """
    side = min(zoom * PORTRAIT_SIDE * face_unit(points), *size)
    corner = points[1, :2] - side * (np.array([0.5, 0.58]) + (0 if shift is None else shift))
    corner = np.clip(corner, 0, np.array(size) - side)
    return square_crop(corner, side, PORTRAIT_PIXELS)


def square_crop(corner: np.ndarray, side: float, pixels: int) -> np.ndarray:
    """Affine map (2, 3) from a frame to a square crop of it.

    Args:
        corner: x and y of its upper left corner in the frame, pixels.
        side: of the crop in the frame, pixels.
        pixels: side of the crop's picture.
    """
    scale = pixels / side
    return np.concatenate([scale * np.eye(2), ((scale - 1) / 2 - scale * corner)[:, None]], 1)
