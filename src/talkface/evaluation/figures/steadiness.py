"""Changes from frame to frame that no motion explains: flicker of the face, drift of the background."""

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

_CROP_PIXELS = 128  # side of the face crop in which changes are measured
_MOST_PAIRS = 40  # pairs of frames per video
_HEAD = 1.9  # the face's outline grown by this factor holds hair and neck, which move with it


def unexplained_change(path: Path, track: FaceTrack) -> float:
    """Mean change of the face from frame to frame that its mesh does not explain, levels of 255.

    Each frame is warped to the mesh of the next one. Eyes and mouth do not count: teeth and eyeballs come and
    go by themselves.

    Args:
        path: The video.
        track: Its face.

    Returns:
        Not a number where no two neighbouring frames show the face.
    """
    warp = FaceModel.from_pretrained().mesh_warp()
    usable = np.flatnonzero(track.found[1:] & track.found[:-1] & (np.diff(track.frames) == 1))
    chosen = {
        int(k) for k in usable[np.linspace(0, len(usable) - 1, min(_MOST_PAIRS, len(usable))).astype(int)]
    }
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
    """Mean difference between a frame and the one before it, warped from mesh to mesh, on the skin."""
    matrix = face_square(points, _CROP_PIXELS)
    pictures = [cut(image, matrix, _CROP_PIXELS) for image in (before, now)]
    meshes = [transform(mesh, matrix) for mesh in (before_points, points)]
    field = warp.field(with_ring(meshes[0]), with_ring(meshes[1]), (_CROP_PIXELS, _CROP_PIXELS))
    moved = pictures[0].copy()
    resample(pictures[0], field, moved)
    counts = _skin(meshes[1])
    return float(np.abs(moved.astype(np.int16) - pictures[1])[counts].mean())


def _skin(points: np.ndarray) -> np.ndarray:
    """The pixels of a face (478, 3) without eyes and mouth, (128, 128) bool."""
    mask = (face_mask(points, (_CROP_PIXELS, _CROP_PIXELS), grow=0.95) > 0.5).astype(np.uint8)
    for ring in (tp.RIGHT_EYE, tp.LEFT_EYE, tp.LIPS_OUTER):
        hull = cv2.convexHull(points[ring, :2].astype(np.float32))
        middle = hull.mean(0, keepdims=True)
        cv2.fillConvexPoly(mask, np.round(middle + 1.35 * (hull - middle)).astype(np.int32), 0)
    return mask > 0


def face_square(points: np.ndarray, pixels: int, side: float = 2.2) -> np.ndarray:
    """Affine map (2, 3) to an upright square around the face of a mesh (478, 3).

    Args:
        points: The mesh.
        pixels: Side of the crop.
        side: Side of the square in inter-ocular distances of the face seen from the front.
    """
    scale = pixels / (side * face_unit(points))
    offset = pixels / 2 - scale * points[tp.NOSE_TIP, :2]
    return np.array([[scale, 0, offset[0]], [0, scale, offset[1]]])


def drift(path: Path, meshes: np.ndarray) -> float:
    """Mean difference of frames from the first one, away from the head, levels of 255.

    Args:
        path: A video in which the head is still.
        meshes: (T, 478, 2) the faces that its frames show, pixels.
    """
    apart, first, away = [], None, None
    with VideoReader(path) as reader:
        for number, frame in enumerate(reader):
            if first is None:
                first = frame.image.astype(np.int16)
                mesh = np.pad(meshes[0], ((0, 0), (0, 1)))
                away = face_mask(mesh, (first.shape[1], first.shape[0]), grow=_HEAD, soft=0.0) < 0.5
            elif number % 5 == 0:
                apart.append(float(np.abs(frame.image - first)[away].mean()))
    return float(np.mean(apart)) if apart else float("nan")
