"""How a portrait is cut: where its face lies, and how large."""

import numpy as np

from talkface.face.crop import face_unit

PORTRAIT_PIXELS = 256
"""Side of a portrait's picture, unless a larger one is wanted."""
PORTRAIT_SIZES = (PORTRAIT_PIXELS, 2 * PORTRAIT_PIXELS)
"""Sides of the pictures that portraits and faces are drawn in, pixels."""
PORTRAIT_SIDE = 2.55
"""Side of the crop, in inter-ocular distances."""
PORTRAIT_NOSE = (0.5, 0.58)
"""Where the tip of the nose lies, from the left and from the top, in sides of the crop."""


def portrait_matrix(points: np.ndarray, size: tuple[int, int], pixels: int = PORTRAIT_PIXELS) -> np.ndarray:
    """Affine map (2, 3) from a picture of a width and height to the pixels of a crop, ``pixels`` on a side.

    The crop is moved, and if need be made smaller, so that it lies in the picture.
    """
    side = min(PORTRAIT_SIDE * face_unit(points), *size)
    corner = points[1, :2] - side * np.array(PORTRAIT_NOSE)
    corner = np.clip(corner, 0, np.array(size) - side)
    scale = pixels / side
    shift = (scale - 1) / 2 - scale * corner  # pixels are sampled at their middles
    return np.concatenate([scale * np.eye(2), shift[:, None]], 1)
