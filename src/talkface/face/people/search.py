"""Faces of all sizes in a frame."""

from collections.abc import Iterator

import cv2
import numpy as np

from talkface.face import topology as tp
from talkface.face.detection import Detection
from talkface.face.mesh import FaceMesh
from talkface.face.tracker import FaceTracker

SMALLEST = 24  # pixels from forehead to chin; no mesh can be trusted below
_MOST = 12  # faces of a frame that are looked at, the largest ones
_PLENTY, _ENOUGH = 32, 16  # pixels that a face should have for the detector, and must have
_DETECTOR = 960  # longer side of the picture that the detector sees
_TILE, _OVERLAP = 1920, 128  # pixels


def detect_faces(tracker: FaceTracker, image: np.ndarray, smallest: float) -> list[Detection]:
    """The largest faces in an RGB picture (H, W, 3) uint8, down to ``smallest`` pixels from forehead to chin.

    The fewer pixels are needed for that, the faster it is.
    """
    longest = max(image.shape[:2])
    scale = max(_PLENTY / smallest, 320 / longest)
    if scale * longest < 0.9 * _DETECTOR:
        size = round(image.shape[1] * scale), round(image.shape[0] * scale)
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return [_moved(found, 1 / scale) for found in tracker.detect(small)[:_MOST]]
    faces = tracker.detect(image)[:_MOST]
    if smallest * _DETECTOR / longest < _ENOUGH:
        for tile, corner in _tiles(image):
            for found in tracker.detect(tile):
                face = _moved(found, 1.0, corner)
                if len(faces) < _MOST and not any(face.overlaps(other) for other in faces):
                    faces.append(face)
    return faces


def detected_mesh(tracker: FaceTracker, image: np.ndarray, region: Detection) -> FaceMesh | None:
    """The mesh of a face just detected, or None; the region is refined once from the mesh."""
    mesh = tracker.mesh(image, region)
    mesh = mesh and (tracker.mesh(image, mesh.region) or mesh)
    return mesh if mesh and face_height(mesh.points) >= SMALLEST else None


def face_height(points: np.ndarray) -> float:
    """Pixels from forehead to chin of a mesh (478, >=2)."""
    return float(np.linalg.norm(points[tp.FOREHEAD, :2] - points[tp.CHIN, :2]))


def _tiles(image: np.ndarray) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
    """Overlapping parts of a large picture with their left upper corners x, y."""
    height, width = image.shape[:2]
    if max(height, width) <= _TILE:
        return
    for top in range(0, max(1, height - _OVERLAP), _TILE - _OVERLAP):
        for left in range(0, max(1, width - _OVERLAP), _TILE - _OVERLAP):
            yield image[top : top + _TILE, left : left + _TILE], (left, top)


def _moved(face: Detection, scale: float, corner: tuple[int, int] = (0, 0)) -> Detection:
    x, y = face.center
    return Detection((x * scale + corner[0], y * scale + corner[1]), face.size * scale, face.roll, face.score)
