"""Masks of holes, where a face is missing, and frames in which holes are covered."""

from dataclasses import dataclass

import cv2
import numpy as np

from talkface.face import topology as tp
from talkface.face.crop import face_unit
from talkface.face.ramp import smoothstep

_COVER_GREY = 127
_SOFT_EDGE = 0.12  # inter-ocular distances over which a face's hole fades, inwards


@dataclass(frozen=True)
class Hole:
    """A hole in a frame.

    Attributes:
        mask: (H, W) float32 in [0, 1], the share of the new face in the result; where it is above 0, the
            frame is hidden from the networks.
        box: left, top, right, bottom in pixels, the last two exclusive.
    """

    mask: np.ndarray
    box: tuple[int, int, int, int]

    @classmethod
    def of(cls, mask: np.ndarray) -> "Hole | None":
        """The hole of a mask; None where nothing is hidden."""
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            return None
        box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
        return cls(mask.astype(np.float32), box)


def face_hole(
    points: np.ndarray, size: tuple[int, int], margin: float = 0.25, soft: float = _SOFT_EDGE
) -> np.ndarray:
    """Mask (H, W) float32 of a face (478, 3) with a margin around its oval.

    Args:
        points: mesh in pixels.
        size: (W, H) in pixels.
        margin: how much larger it is than the oval.
        soft: inter-ocular distances over which it fades, inwards.
    """
    hull = cv2.convexHull(np.round(hole_outline(points, margin) * 16).astype(np.int32))
    mask = cv2.fillConvexPoly(np.zeros((size[1], size[0]), np.uint8), hull, 1, cv2.LINE_8, 4)
    return softened(mask, soft * face_unit(points))


def hole_outline(points: np.ndarray, margin: float = 0.25) -> np.ndarray:
    """Outline (36, 2) in pixels of a hole for a face (478, 3): its oval, larger by ``margin``."""
    oval = points[tp.FACE_OVAL, :2]
    center = (oval.max(0) + oval.min(0)) / 2
    outline: np.ndarray = center + (1 + margin) * (oval - center)
    return outline


def box_hole(box: tuple[float, float, float, float], size: tuple[int, int], soft: float = 0.0) -> np.ndarray:
    """Mask (H, W) float32 of a box (left, top, right, bottom); ``soft`` in pixels."""
    left, top, right, bottom = (round(value) for value in box)
    mask = np.zeros((size[1], size[0]), np.uint8)
    mask[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = 1
    return softened(mask, soft)


def softened(mask: np.ndarray, soft: float) -> np.ndarray:
    """A mask (H, W) that fades inwards over ``soft`` pixels, but not at the frame's own edge."""
    padded = cv2.copyMakeBorder((mask > 0).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    inside = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    return smoothstep(inside / max(soft, 1.0)).astype(np.float32)


def covered(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A frame (H, W, 3) uint8 that is grey wherever its mask (H, W) is above 0."""
    out = image.copy()
    out[mask > 0] = _COVER_GREY
    return out


def cells(mask: np.ndarray, side: int) -> np.ndarray:
    """Share of each latent that is hidden, (side, side) float32, by a mask (H, W) of a square picture."""
    return cv2.resize((mask > 0).astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)


def beside(hidden: np.ndarray) -> slice | None:
    """Columns of a square picture, left or right of its hole, where somebody else could be.

    Args:
        hidden: (T, H, W) above 0 where frames are covered.

    Returns:
        The wider side, less an eighth of it; None where there is less than a tenth of the picture.
    """
    width = hidden.shape[2]
    columns = np.flatnonzero(hidden.any((0, 1)))
    if not len(columns):
        return None
    left, right = int(columns[0]), width - 1 - int(columns[-1])
    free = max(left, right) * 7 // 8
    if free < width // 10:
        return None
    return slice(0, free) if left >= right else slice(width - free, width)
