"""Stage 2's initial estimate of a frame: the scene continued into the hole, under the identity's head."""

import numpy as np

from talkface.systems.tccp.border import continued
from talkface.systems.tccp.holes import face_hole

REVISION = 3
"""Raised when estimates are made differently, so that data prepared with older ones are not used."""
_HEAD_SIZE = 1.55  # of the region that shows the reference, relative to the face's oval
_FADE = 0.15  # inter-ocular distances over which the reference fades out


def initial_estimate(
    scene: np.ndarray, hole: np.ndarray, reference: np.ndarray, points: np.ndarray
) -> np.ndarray:
    """A frame whose hole is filled with its continued surroundings, and the reference's head over them.

    Args:
        scene: (H, W, 3) uint8; what it shows in the hole is not used.
        hole: (H, W) above 0 where it is hidden.
        reference: (H, W, 3) uint8, moved to the mesh.
        points: (478, 3) the mesh in pixels.

    Returns:
        (H, W, 3) uint8; outside of the hole it is the scene.
    """
    hidden = hole > 0
    behind = continued(scene.astype(np.float32), (~hidden).astype(np.float32))
    head = face_hole(points, (scene.shape[1], scene.shape[0]), _HEAD_SIZE - 1, _FADE)
    share = (head * hidden)[..., None]
    filled: np.ndarray = behind + share * (reference.astype(np.float32) - behind)
    return filled.round().clip(0, 255).astype(np.uint8)
