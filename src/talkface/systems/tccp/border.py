"""At the border of a hole: what is drawn continues what is around it, in colour and in gradient."""

import cv2
import numpy as np

_LEVELS = 7
_SWEEPS = 24
_RADIUS = 0.99  # assumed spectral radius of Jacobi's iteration: of holes about a hundred pixels across
_NEAR = 5  # pixels around a person whose colours are no longer the background's
_LEAST = 1e-3  # what counts a pixel that shows a person, where the background is nowhere to be seen
_NEIGHBOURS = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32) / 4


def continued(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fill what is not known of a picture by its surroundings, smoothly (push-pull).

    Args:
        image: (H, W, C) float32.
        known: (H, W) float32, 1 where the picture is known, 0 where it is not; between them, how much
            it counts.

    Returns:
        (H, W, C) float32; where it is known, as it was.
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
    """A field that is bent as little as it can be where it is free (Pérez, "Poisson image editing", 2003).

    Jacobi's iteration for Laplace's equation, sped up by Chebyshev's polynomials. Begun with what
    :func:`continued` gives, only what is fine near the border is left to settle, so that few sweeps do.

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

    What drawing and scene differ by just outside of the hole is spread into it as a membrane, and taken off.
    Beside the person, the scene's own background is continued instead.

    Args:
        scene: (H, W, 3) float32, 0 to 255; what is in the hole does not matter.
        drawn: (H, W, 3) float32, also of what is around the hole.
        hole: (H, W) float32 soft mask, 0 outside.
        person: (H, W) float32 in [0, 1], where the drawing shows somebody; None to show all of it.

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
        behind = continued(scene, seen * np.maximum(1 - near, _LEAST))
        filled = behind + person[..., None] * (filled - behind)
    return np.where(free[..., None], filled, scene)
