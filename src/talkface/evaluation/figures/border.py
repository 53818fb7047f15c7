"""Seams: jumps of colour and gradient across the border of a redrawn region, beside the real frame's."""

import cv2
import numpy as np

from talkface.face.crop import face_unit
from talkface.face.masks import lower_face_outline

_PLACES = 96  # points on the border of the lower face
_INSIDE = 0.04  # inter-ocular distances from the outline of what changes to the middle of its soft edge
_HALF_GAP = 0.02  # inter-ocular distances from the border to the samples on either side of it
_LEAST_JUMP = 1.0  # levels of 255: smaller jumps are counted as this much


def lower_face_border(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The middle of the soft border of the lower face of a mesh (478, 3).

    Returns:
        Places (96, 2) in pixels, the same ones of the face in every frame, and outward unit vectors (96, 2).
    """
    outline = lower_face_outline(points).astype(np.float64)
    closed = np.concatenate([outline, outline[:1]])
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    wanted = np.linspace(0, along[-1], _PLACES, endpoint=False)
    places = np.stack([np.interp(wanted, along, closed[:, axis]) for axis in (0, 1)], -1)
    tangent = np.roll(places, -1, 0) - np.roll(places, 1, 0)
    outward = np.stack([tangent[:, 1], -tangent[:, 0]], -1)
    outward *= np.sign((outward * (places - places.mean(0))).sum() or 1.0)
    outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-6)
    return places - _INSIDE * face_unit(points) * outward, outward


def jumps_beside_real(
    generated: np.ndarray, real: np.ndarray, border: tuple[np.ndarray, np.ndarray], points: np.ndarray
) -> np.ndarray:
    """Jumps of a generated and of a real picture across one border.

    Args:
        generated: (H, W, 3) uint8.
        real: (H, W, 3) uint8.
        border: Places (P, 2) and outward unit vectors (P, 2).
        points: (478, 3) the real face's mesh, for its size.

    Returns:
        (2, 2, P) levels: generated and real; of colour and of gradient.
    """
    half_gap = max(1.0, _HALF_GAP * face_unit(points))
    return np.stack([_jumps(picture, *border, half_gap) for picture in (generated, real)])


def jump_ratio(jumps: list[np.ndarray]) -> float:
    """Mean over places of generated over real jumps; 1 where no seam is to be seen.

    The ratio is taken for each place by itself: otherwise a few strong edges of the picture, where no seam is
    visible, would outweigh smooth skin.

    Args:
        jumps: Of each frame, (2, 2, P) as :func:`jumps_beside_real` gives them; they are averaged over time.
    """
    generated, real = np.maximum(np.stack(jumps).mean(0), _LEAST_JUMP)
    return float((generated / real).mean())


def _jumps(image: np.ndarray, places: np.ndarray, outward: np.ndarray, half_gap: float) -> np.ndarray:
    """Levels (2, P) by which colour, and gradient, differ between the two sides of a border."""
    at = places + half_gap * np.array([-2, -1, 1, 2])[:, None, None] * outward  # (4, P, 2)
    x, y = at[..., 0].astype(np.float32), at[..., 1].astype(np.float32)
    values = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    colour = np.abs(values[2] - values[1]).mean(-1)
    gradient = np.abs((values[3] - values[2]) - (values[1] - values[0])).mean(-1)
    return np.stack([colour, gradient])
