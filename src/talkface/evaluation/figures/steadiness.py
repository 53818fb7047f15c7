"""Does a generated video hold still where nothing moves?"""

from pathlib import Path

import cv2
import numpy as np

from talkface.face import topology as tp
from talkface.face.crop import cut, face_unit, transform
from talkface.face.masks import face_mask
from talkface.face.model import FaceModel
from talkface.face.tracker import FaceTrack
from talkface.face.warp import MeshWarp, resample, with_ring
from talkface.media.video import VideoReader

_PIXELS = 128  # side of the face in which changes are looked for
_PAIRS = 40  # pairs of frames at most
_GROW = 1.9  # of the face's outline: hair and neck move with it


def unexplained_change(path: Path, track: FaceTrack) -> float:
    """Mean change of the face from frame to frame that its mesh does not explain, levels of 255.

    Each frame is moved to the next one's mesh; eyes and mouth, which change by themselves, do not count.

    Args:
        path: the video.
        track: its face.
    """
    warp = FaceModel.from_pretrained().mesh_warp()
    usable = np.flatnonzero(track.found[1:] & track.found[:-1] & (np.diff(track.frames) == 1))
    chosen = {int(k) for k in usable[np.linspace(0, len(usable) - 1, min(_PAIRS, len(usable))).astype(int)]}
    place, changes = {int(frame): k for k, frame in enumerate(track.frames)}, []
    before: np.ndarray | None = None
    with VideoReader(path) as reader:
        for number, frame in enumerate(reader):
            k = place.get(number)
            if k is None:
                before = None
                continue
            if before is not None and k - 1 in chosen:
                changes.append(_change(before, track.points[k - 1], frame.image, track.points[k], warp))
            before = frame.image
    return float(np.mean(changes)) if changes else float("nan")


def _change(
    before: np.ndarray, before_points: np.ndarray, now: np.ndarray, points: np.ndarray, warp: MeshWarp
) -> float:
    matrix = _around(points)
    pictures = [cut(image, matrix, _PIXELS) for image in (before, now)]
    meshes = [transform(mesh, matrix) for mesh in (before_points, points)]
    field = warp.field(with_ring(meshes[0]), with_ring(meshes[1]), (_PIXELS, _PIXELS))
    moved = pictures[0].copy()
    resample(pictures[0], field, moved)
    counts = _skin(meshes[1])
    return float(np.abs(moved.astype(np.int16) - pictures[1])[counts].mean())


def _skin(points: np.ndarray) -> np.ndarray:
    """Where a face (478, 3) is but for eyes and mouth, (128, 128) bool."""
    mask = (face_mask(points, (_PIXELS, _PIXELS), grow=0.95) > 0.5).astype(np.uint8)
    for ring in (tp.RIGHT_EYE, tp.LEFT_EYE, tp.LIPS_OUTER):
        hull = cv2.convexHull(points[ring, :2].astype(np.float32))
        middle = hull.mean(0, keepdims=True)
        cv2.fillConvexPoly(mask, np.round(middle + 1.35 * (hull - middle)).astype(np.int32), 0)
    return mask > 0


def _around(points: np.ndarray) -> np.ndarray:
    """Affine map (2, 3) to an upright square around the face."""
    scale = _PIXELS / (2.2 * face_unit(points))
    offset = _PIXELS / 2 - scale * points[tp.NOSE_TIP, :2]
    return np.array([[scale, 0, offset[0]], [0, scale, offset[1]]])


def drift(path: Path, meshes: np.ndarray) -> float:
    """Mean difference of frames from the first one, away from the face, levels of 255.

    Args:
        path: a video in which the head is still.
        meshes: (T, 478, 2) the faces that its frames show.
    """
    apart, first, away = [], None, None
    with VideoReader(path) as reader:
        for number, frame in enumerate(reader):
            if first is None:
                first = frame.image.astype(np.int16)
                mesh = np.pad(meshes[0], ((0, 0), (0, 1)))
                away = face_mask(mesh, (first.shape[1], first.shape[0]), grow=_GROW, soft=0.0) < 0.5
            elif number % 5 == 0:
                apart.append(float(np.abs(frame.image - first)[away].mean()))
    return float(np.mean(apart)) if apart else float("nan")
