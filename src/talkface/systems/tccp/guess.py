"""Where stage 2 begins: the scene continued into the hole, and over it the identity's head in its light."""

import cv2
import numpy as np

from talkface.face import topology as tp
from talkface.systems.tccp.border import continued
from talkface.systems.tccp.holes import face_hole

REVISION = 2
"""Raised when guesses are made otherwise: what was prepared with others is made anew."""
_REFERENCE = 1.55  # size of what is seen of the reference, by the face's oval
_FADES = 0.15  # inter-ocular distances over which it fades into what is behind it
_JAW = 0.7  # share of the jaw's width under which there is a neck
_NECK = (0.12, 0.6)  # where it is looked for, below the jaw, in heights of the face
_HUE = 0.035  # of chromaticities, by which skin may differ from the face's
_BOUNDS = 0.5  # of the logarithm of a change of light
_ENOUGH = 0.02  # share of the face's area that must be seen of both necks


def first_guess(scene: np.ndarray, hole: np.ndarray, reference: np.ndarray, points: np.ndarray) -> np.ndarray:
    """A frame whose hole is filled by its surroundings, continued, and the reference's head over them.

    Args:
        scene: (H, W, 3) uint8; what is in the hole does not matter.
        hole: (H, W) above 0 where it is hidden.
        reference: (H, W, 3) uint8, moved to where it is to be.
        points: (478, 3) its mesh in pixels.

    Returns:
        (H, W, 3) uint8; outside of the hole it is the scene.
    """
    hidden = hole > 0
    behind = continued(scene.astype(np.float32), (~hidden).astype(np.float32))
    head = face_hole(points, (scene.shape[1], scene.shape[0]), _REFERENCE - 1, _FADES)
    share = (head * hidden)[..., None]
    return (behind + share * (reference.astype(np.float32) - behind)).round().clip(0, 255).astype(np.uint8)


def light_between(
    scene: np.ndarray, hole: np.ndarray, reference: np.ndarray, points: np.ndarray
) -> np.ndarray | None:
    """By what the scene's light differs from that of the reference, told by the skin of both necks.

    What is given is what :func:`first_guess` takes.

    Returns:
        (3,) logarithms of gains of red, green and blue; None where not enough skin is seen.
    """
    size = (scene.shape[1], scene.shape[0])
    face = face_hole(points, size, -0.2) > 0
    if not face.any():
        return None
    own = reference[face].astype(np.float32).mean(0) + 1
    seen = (_neck(points, size) > 0) & (hole == 0)
    pairs = [image[seen].astype(np.float32) + 1 for image in (scene, reference)]
    skin = np.logical_and.reduce(
        [_hue(pair, own) < limit for pair, limit in zip(pairs, (1.3, 1), strict=True)]
    )
    if skin.sum() < _ENOUGH * face.sum():
        return None
    theirs, ours = (np.log(np.median(pair[skin], 0)) for pair in pairs)
    return np.clip(theirs - ours, -_BOUNDS, _BOUNDS)


def in_light(image: np.ndarray, light: np.ndarray | None) -> np.ndarray:
    """A picture (H, W, 3) uint8 in another light; ``light`` as :func:`light_between` gives it."""
    if light is None:
        return image
    table = np.linspace(0, 255, 256)[:, None] * np.exp(light)
    return cv2.LUT(image, table.round().clip(0, 255).astype(np.uint8)[None])


def _neck(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Mask (H, W) of where there is a neck, whatever covers it."""
    oval = points[tp.FACE_OVAL, :2]
    down = points[tp.CHIN, :2] - points[tp.FOREHEAD, :2]
    across = np.array([down[1], -down[0]]) / max(float(np.linalg.norm(down)), 1e-6)
    half = _JAW / 2 * float(np.ptp(oval @ across))
    chin = points[tp.CHIN, :2]
    corners = [chin + d * down + side * half * across for d, side in zip(
        (_NECK[0], _NECK[0], _NECK[1], _NECK[1]), (-1, 1, 1, -1), strict=True
    )]  # fmt: skip
    outline = np.round(np.array(corners) * 16).astype(np.int32)
    return cv2.fillConvexPoly(np.zeros((size[1], size[0]), np.uint8), outline, 1, cv2.LINE_8, 4)


def _hue(colours: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """How far colours (N, 3) are from a skin's (3,), whatever their brightness; skin is within 1."""
    chromaticity = colours / colours.sum(1, keepdims=True) - skin / skin.sum()
    return np.abs(chromaticity).max(1) / _HUE
