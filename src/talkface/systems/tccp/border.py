"""At the border of a hole: what is drawn continues what is around it, in colour and in gradient."""

import cv2
import numpy as np

_LEVELS = 7
_QUICK = 8.0  # times sooner than the soft edge ends, the drawing is all that is seen


def continued(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fill what is not known of a picture by its surroundings, smoothly (push-pull).

    Args:
        image: (H, W, C) float32.
        known: (H, W) float32, 1 where the picture is known, else 0.

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


def joined(scene: np.ndarray, drawn: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """A frame whose hole is filled by what was drawn, without a step at its border.

    What drawing and scene differ by just outside of the hole is spread into it and taken off. Where its
    soft edge begins, the scene's own continuation fades into the drawing; that has no detail, so that a wider
    fade would be seen as a ring.

    Args:
        scene: (H, W, 3) float32, 0 to 255; what is in the hole does not matter.
        drawn: (H, W, 3) float32, also of what is around the hole.
        hole: (H, W) float32 soft mask, 0 outside.

    Returns:
        (H, W, 3) float32; outside of the hole it is the scene.
    """
    known = (hole == 0).astype(np.float32)
    if not known.any():
        return drawn
    drawn = drawn + continued(scene - drawn, known)
    around = continued(scene, known)
    share = np.clip(_QUICK * hole, 0, 1)[..., None]
    return np.where(known[..., None] > 0, scene, share * drawn + (1 - share) * around)
