"""Fits what is drawn in a hole to its surroundings, in colour and in gradient."""

import cv2
import numpy as np

_LEVELS = 7  # of the pyramid with which pictures are continued
_SWEEPS = 24  # of Jacobi's iteration
_RADIUS = 0.99  # assumed spectral radius of Jacobi's iteration: of holes about a hundred pixels across
_NEAR = 5  # pixels around a person that do not count as background
_LEAST_WEIGHT = 1e-3  # of pixels that show a person: they are used where no background is visible
_NEIGHBOURS = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32) / 4


def continued(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fill what is not known of a picture smoothly from its surroundings (push-pull interpolation).

    Args:
        image: (H, W, C) float32.
        known: (H, W) float32 weights in [0, 1]: 1 where the picture is known, 0 where it is not.

    Returns:
        (H, W, C) float32; unchanged where it is known.
    """
    pyramid = [(image * known[..., None], known)]
    for _ in range(_LEVELS):
        values, weight = pyramid[-1]
        if min(weight.shape) < 4:
            break
        values, weight = cv2.pyrDown(values), cv2.pyrDown(weight)
        pyramid.append((values, weight))
    values, weight = pyramid[-1]
    filled = values / np.maximum(weight, 1e-6)[..., None]
    for values, weight in reversed(pyramid[:-1]):
        coarse = cv2.pyrUp(filled, dstsize=(weight.shape[1], weight.shape[0]))
        share = np.clip(weight, 0, 1)[..., None]
        own = values / np.maximum(weight, 1e-6)[..., None]
        filled = share * own + (1 - share) * coarse
    return np.where(known[..., None] > 0.5, image, filled)


def membrane(field: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Solve Laplace's equation where a field is free (Pérez et al., "Poisson image editing", 2003).

    Jacobi's iteration with Chebyshev acceleration. Few sweeps suffice for a field that :func:`continued` has
    filled: only fine differences near the border are left.

    Args:
        field: (H, W, C) float32; fixed where it is not free.
        free: (H, W) bool.

    Returns:
        (H, W, C) float32.
    """
    if not free.any():
        return field
    columns, rows = (np.flatnonzero(free.any(axis)) for axis in (0, 1))
    part = (slice(max(0, rows[0] - 1), rows[-1] + 2), slice(max(0, columns[0] - 1), columns[-1] + 2))
    moves = free[part].astype(np.float32)[..., None]
    now = before = np.ascontiguousarray(field[part])
    omega = 1.0
    for sweep in range(_SWEEPS):
        step = cv2.filter2D(now, -1, _NEIGHBOURS, borderType=cv2.BORDER_REPLICATE) - before
        now, before = before + omega * moves * step, now
        omega = 1 / (1 - _RADIUS**2 * (omega / 4 if sweep else 1 / 2))
    out = field.copy()
    out[part] = now
    return out


def joined(
    scene: np.ndarray, drawn: np.ndarray, hole: np.ndarray, person: np.ndarray | None = None
) -> np.ndarray:
    """A frame whose hole is filled by what was drawn, without a step at its border.

    The difference of drawing and scene just outside of the hole is interpolated into it as a membrane, and
    subtracted. Beside the person, the scene's own background is continued instead.

    Args:
        scene: (H, W, 3) float32, 0 to 255; what it shows in the hole is not used.
        drawn: (H, W, 3) float32, with the surroundings of the hole.
        hole: (H, W) float32 soft mask, 0 outside.
        person: (H, W) float32 in [0, 1], where the drawing shows a person; None to use all of it.

    Returns:
        (H, W, 3) float32; outside of the hole it is the scene.
    """
    free = hole > 0
    if free.all():
        return drawn
    seen = (~free).astype(np.float32)
    filled = drawn + membrane(continued(scene - drawn, seen), free)
    if person is not None:
        near = cv2.dilate(person, np.ones((_NEAR, _NEAR), np.uint8))
        behind = continued(scene, seen * np.maximum(1 - near, _LEAST_WEIGHT))
        filled = behind + person[..., None] * (filled - behind)
    return np.where(free[..., None], filled, scene)
