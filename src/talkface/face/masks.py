"""Masks of parts of a face, from its mesh."""

import cv2
import numpy as np

from talkface.face import topology as tp
from talkface.face.crop import down_axis, face_unit
from talkface.face.ramp import smoothstep

# The oval from ear to ear along the jaw, and the line back beneath the nose.
_JAW = np.array(
    [234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 323, 454]
)
_NOSE_LINE = np.array([454, 330, 5, 101, 234])
_BEYOND = 0.5  # oval radii below the jaw within which the neck gives way
_SOFT = 0.08  # inter-ocular distances from the edge inward to where the mask is 1


def lower_face_outline(points: np.ndarray) -> np.ndarray:
    """Outline (N, 2) in pixels of what may change when lips and jaw of a face (478, 3) move."""
    oval = points[tp.FACE_OVAL, :2]
    center = (oval.max(0) + oval.min(0)) / 2
    jaw = points[_JAW, :2]
    # Sideways there is little room, below the chin the neck moves too.
    low = np.clip((jaw - center) @ down_axis(points) / max(np.ptp(oval[:, 1]), 1.0) * 2, 0, 1)[:, None]
    return np.concatenate([jaw + _BEYOND * low * (jaw - center), points[_NOSE_LINE[1:-1], :2]])


def lower_face_mask(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Soft mask (H, W) float32 in [0, 1] of the lower face of a mesh (478, 3); ``size`` is (W, H) in pixels.

    It is exactly 0 outside of :func:`lower_face_outline`.
    """
    outline = lower_face_outline(points)
    # The canvas holds the whole outline: polygons that are cut by its border are filled too far.
    low = np.floor(np.minimum(outline.min(0) - 1, 0)).astype(int)
    high = np.ceil(np.maximum(outline.max(0) + 2, size)).astype(int)
    mask = np.zeros((high - low)[::-1], np.uint8)
    cv2.fillPoly(mask, [np.round((outline - low) * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
    inside = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    inside = inside[-low[1] : size[1] - low[1], -low[0] : size[0] - low[0]]
    return smoothstep(inside / max(_SOFT * face_unit(points), 1.0)).astype(np.float32)


def around_lips(points: np.ndarray, size: tuple[int, int], margin: float) -> np.ndarray:
    """Soft mask (H, W) float32 of the lips and ``margin`` pixels around them; 0 beyond twice the margin."""
    mask = np.zeros((size[1], size[0]), np.uint8)
    hull = cv2.convexHull(np.round(points[tp.LIPS_OUTER, :2] * 16).astype(np.int32))
    cv2.fillConvexPoly(mask, hull, 1, cv2.LINE_8, 4)
    away = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 3)
    return smoothstep((2 * margin - away) / margin).astype(np.float32)


def face_mask(points: np.ndarray, size: tuple[int, int], grow: float = 1.12, soft: float = 0.1) -> np.ndarray:
    """Soft mask (H, W) float32 of a whole face (478, 3), a little larger than its oval.

    Args:
        points: mesh in pixels.
        size: (W, H) in pixels.
        grow: size of the outline by the oval's.
        soft: inter-ocular distances over which it fades, inwards.
    """
    oval = points[tp.FACE_OVAL, :2]
    center = (oval.max(0) + oval.min(0)) / 2
    outline = np.round((center + grow * (oval - center)) * 16).astype(np.int32)
    mask = cv2.fillPoly(np.zeros((size[1], size[0]), np.uint8), [outline], 1, cv2.LINE_8, 4)
    inside = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    return smoothstep(inside / max(soft * face_unit(points), 1.0)).astype(np.float32)
