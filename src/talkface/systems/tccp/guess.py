"""Where stage 2 begins: the scene continued into the hole, and over it the identity's head."""

import numpy as np

from talkface.systems.tccp.border import continued
from talkface.systems.tccp.holes import face_hole

REVISION = 3
"""Raised when guesses are made otherwise: what was prepared with others is made anew."""
_REFERENCE = 1.55  # size of what is seen of the reference, by the face's oval
_FADES = 0.15  # inter-ocular distances over which it fades into what is behind it


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
