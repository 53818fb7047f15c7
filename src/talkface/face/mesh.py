"""The 478-point mesh of a face: MediaPipe's mesh and iris networks (Apache-2.0)."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from talkface.face import topology as tp
from talkface.face.detection import LEAST_PROBABILITY, Detection, region_of
from talkface.face.litert import LiteRtNetwork, sigmoid

_MESH_PIXELS, _IRIS_PIXELS = 192, 64  # sides of the crops that the networks see


@dataclass(frozen=True)
class FaceMesh:
    """One face in one picture. ``points`` is (478, 3) float32: x, y in pixels, depth z in pixels."""

    points: np.ndarray
    score: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the face points in pixels."""
        low, high = self.points[:, :2].min(0), self.points[:, :2].max(0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    @property
    def region(self) -> Detection:
        """Where to look for the face in the next frame."""
        return region_of(self.points)


class MeshNetwork:
    """Finds the mesh of the face in a region of a picture.

    Args:
        mesh: MediaPipe's mesh network, a .tflite file.
        iris: its iris network, or None: irises are then in the middle of the eyes.
        threads: of the CPU.
    """

    def __init__(self, mesh: Path, iris: Path | None, threads: int) -> None:
        self._mesh = LiteRtNetwork(mesh, threads)
        self._iris = LiteRtNetwork(iris, threads) if iris else None

    def __call__(self, image: np.ndarray, region: Detection) -> FaceMesh | None:
        """The 478-point mesh of the face in ``region``, or None when there is no face in it."""
        matrix = _crop_matrix(region.center, region.size, region.roll, _MESH_PIXELS)
        crop = _warp(image, matrix, _MESH_PIXELS)
        flat, score = self._mesh(crop)
        probability = float(sigmoid(score.ravel()[0]))
        if probability < LEAST_PROBABILITY:
            return None
        local = flat.reshape(tp.FACE_VERTICES, 3)
        points = np.empty((tp.VERTICES, 3), np.float32)
        points[: tp.FACE_VERTICES] = _uncrop(local, matrix, region.size / _MESH_PIXELS)
        if self._iris is None:
            _look_ahead(points)
        else:
            self._refine_eyes(self._iris, image, points)
        return FaceMesh(points, probability)

    def _refine_eyes(self, network: LiteRtNetwork, image: np.ndarray, points: np.ndarray) -> None:
        """Irises, and eyelids: the mesh network hardly moves lids in a blink, the iris network does."""
        axis = points[263, :2] - points[33, :2]
        roll = float(np.arctan2(axis[1], axis[0]))
        for eye, (outer, inner) in enumerate(tp.EYE_CORNERS):
            corners = points[[outer, inner], :2]
            size = max(2.3 * float(np.linalg.norm(corners[0] - corners[1])), 1.0)
            matrix = _crop_matrix(corners.mean(0), size, roll, _IRIS_PIXELS)
            crop = _warp(image, matrix, _IRIS_PIXELS)
            contour, iris = network(crop[:, ::-1] if eye == 1 else crop)  # it knows the subject's right eye
            contour, iris = contour.reshape(71, 3), iris.reshape(5, 3)
            if eye == 1:
                contour[:, 0], iris[:, 0] = _IRIS_PIXELS - contour[:, 0], _IRIS_PIXELS - iris[:, 0]
            scale = size / _IRIS_PIXELS
            iris = _uncrop(iris, matrix, scale)
            iris[:, 2] += points[[outer, inner], 2].mean() - iris[0, 2]
            start = tp.FACE_VERTICES + 5 * eye
            points[start : start + 5] = iris
            _move_lids(points, _uncrop(contour, matrix, scale), eye)


_IRIS = np.array([[0, 0], [1, 0], [0, -1], [-1, 0], [0, 1]], np.float32)  # middle, then its rim


def _look_ahead(points: np.ndarray) -> None:
    """Put the irises into the middle of the eyes, in place."""
    for eye, (outer, inner) in enumerate(tp.EYE_CORNERS):
        start = tp.FACE_VERTICES + 5 * eye
        radius = 0.2 * float(np.linalg.norm(points[outer, :2] - points[inner, :2]))
        points[start : start + 5] = points[[outer, inner]].mean(0)
        points[start : start + 5, :2] += radius * _IRIS


_CORNERS = np.array([0, 8])  # of a contour: they carry the pose and stay with the mesh network


def _move_lids(points: np.ndarray, contour: np.ndarray, eye: int) -> None:
    """Put the lids where the iris network sees them; eye corners, and depth, stay the mesh's."""
    edge, halo = tp.EYE_CONTOUR[eye], tp.EYE_HALO[eye]
    shift = (points[edge[_CORNERS], :2] - contour[_CORNERS, :2]).mean(0)
    for vertices, seen, share in ((edge, contour[:16], 1.0), (halo, contour[16:32], 0.5)):
        moving = np.setdiff1d(np.arange(16), _CORNERS)
        target = seen[moving, :2] + shift
        points[vertices[moving], :2] += share * (target - points[vertices[moving], :2])


def _crop_matrix(
    center: tuple[float, float] | np.ndarray, size: float, roll: float, pixels: int
) -> np.ndarray:
    x, y = float(center[0]), float(center[1])
    matrix = np.asarray(cv2.getRotationMatrix2D((x, y), np.degrees(roll), pixels / size), np.float64)
    matrix[:, 2] += pixels / 2 - np.array([x, y])
    return matrix


def _warp(image: np.ndarray, matrix: np.ndarray, pixels: int) -> np.ndarray:
    """Crop an RGB image to (pixels, pixels, 3) float32 in [0, 1], by area first where it shrinks much."""
    shrink = int(1 / max(np.hypot(matrix[0, 0], matrix[0, 1]), 1e-6) / 2)
    if shrink >= 2:
        corners = cv2.transform(
            np.array([[[0, 0], [pixels, 0], [0, pixels], [pixels, pixels]]], np.float64),
            cv2.invertAffineTransform(matrix),
        )[0]
        low = np.maximum(np.floor(corners.min(0)).astype(int), 0)
        high = np.minimum(np.ceil(corners.max(0)).astype(int), image.shape[1::-1])
        if (high - low >= shrink).all():
            high = low + (high - low) // shrink * shrink
            part = image[low[1] : high[1], low[0] : high[0]]
            size = (high - low) // shrink
            image = cv2.resize(part, (int(size[0]), int(size[1])), interpolation=cv2.INTER_AREA)
            matrix = matrix.copy()
            matrix[:, 2] += matrix[:, :2] @ (low + (shrink - 1) / 2)
            matrix[:, :2] *= shrink
    crop = cv2.warpAffine(
        image, matrix, (pixels, pixels), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return crop.astype(np.float32) / 255.0


def _uncrop(local: np.ndarray, matrix: np.ndarray, scale: float) -> np.ndarray:
    inverse = cv2.invertAffineTransform(matrix)
    xy = local[:, :2] @ inverse[:, :2].T + inverse[:, 2]
    return np.concatenate([xy, local[:, 2:] * scale], axis=1).astype(np.float32)
