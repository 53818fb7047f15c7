"""Views of a frame's context for stage 1, and poses in them and in the frame."""

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from talkface.face.crop import cut
from talkface.face.model import Pose
from talkface.systems.tccp.landmarks import VIEW_PIXELS

_SUPERSAMPLING = 4  # of holes that are drawn in a view


def context_view(image: np.ndarray, outline: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """View of a frame for stage 1, (4, 64, 64) float32: colours, zero where hidden, and what share is hidden.

    Args:
        image: (H, W, 3) uint8, the frame.
        outline: (K, 2) convex outline of the hole in its pixels.
        matrix: (2, 3) from frame to view.
    """
    seen = cut(image, matrix, VIEW_PIXELS).astype(np.float32) / 127.5 - 1
    points = (outline @ matrix[:, :2].T + matrix[:, 2] + 0.5) * 16 * _SUPERSAMPLING - 8
    hull = cv2.convexHull(np.round(points).astype(np.int32))
    side = _SUPERSAMPLING * VIEW_PIXELS
    fine = cv2.fillConvexPoly(np.zeros((side, side), np.uint8), hull, 255, cv2.LINE_8, 4)
    hole = cv2.resize(fine, (VIEW_PIXELS, VIEW_PIXELS), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    seen *= (hole == 0)[..., None]
    return np.concatenate([seen.transpose(2, 0, 1), hole[None]])


def pose_in_view(pose: Pose, matrix: np.ndarray) -> np.ndarray:
    """A pose (of one frame) in a view, as stage 1 predicts it, (6,) float32."""
    place = (matrix[:, :2] @ pose.translation[0, :2] + matrix[:, 2] + 0.5) / VIEW_PIXELS - 0.5
    size = np.log(pose.scale[0] * matrix[0, 0] / VIEW_PIXELS)
    return np.concatenate([pose.rotation_vectors[0], place, [size]]).astype(np.float32)


def pose_in_frame(given: np.ndarray, matrix: np.ndarray) -> Pose:
    """A pose (6,) that stage 1 predicts for a view, in the frame: the inverse of :func:`pose_in_view`."""
    place = (given[3:5] + 0.5) * VIEW_PIXELS - 0.5
    inverse = cv2.invertAffineTransform(matrix)
    scale = np.exp(given[5]) * VIEW_PIXELS / matrix[0, 0]
    translation = np.append(inverse[:, :2] @ place + inverse[:, 2], 0.0)
    rotation = Rotation.from_rotvec(given[:3]).as_matrix()
    return Pose(
        rotation[None].astype(np.float32),
        np.array([scale], np.float32),
        translation[None].astype(np.float32),
    )
