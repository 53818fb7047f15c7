"""Square crops of frames with a hole."""

import numpy as np

from talkface.face.crop import face_unit
from talkface.face.portrait import PORTRAIT_NOSE, PORTRAIT_PIXELS, PORTRAIT_SIDE


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
    corner = points[1, :2] - side * (np.array(PORTRAIT_NOSE) + (0 if shift is None else shift))
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
