"""Faces in pictures and videos: detection, the 478-point mesh, tracks over time.

Runs MediaPipe's detection, mesh and iris networks (Apache-2.0) with LiteRT, and YuNet (MIT) for the
faces that MediaPipe's short-range detector misses: small ones and many at once.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np

from talkface.face import topology
from talkface.hub import model_path as hub_model_path

logger = logging.getLogger(__name__)

_MESH_SIZE = 192
_IRIS_SIZE = 64
_SCORE = 0.5


@dataclass(frozen=True)
class Detection:
    """A face found in a picture: centre (x, y), side of its square region and roll, pixels and radians."""

    center: tuple[float, float]
    size: float
    roll: float
    score: float

    def overlaps(self, other: "Detection") -> bool:
        """Whether both are about the same face: their centres are close for their size."""
        return _overlap(self, other)


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
        return _region_of(self.points)


@dataclass
class FaceTrack:
    """One person over time: ``times`` (T,) seconds, ``points`` (T, 478, 3), ``found`` (T,) bool.

    Frames inside the track where the face was lost are interpolated and marked ``found`` False.
    """

    id: int
    times: np.ndarray
    points: np.ndarray
    found: np.ndarray
    frames: np.ndarray = field(default_factory=lambda: np.zeros(0, int))


def _interpreter(path: Path, threads: int):
    from ai_edge_litert.interpreter import Interpreter

    network = Interpreter(str(path), num_threads=threads)
    network.allocate_tensors()
    return network


class _Network:
    """A LiteRT model with one image input; outputs by size, largest first. Threads wait for each other."""

    def __init__(self, path: Path, threads: int) -> None:
        self._network = _interpreter(path, threads)
        self._input = self._network.get_input_details()[0]["index"]
        details = self._network.get_output_details()
        self._outputs = [d["index"] for d in sorted(details, key=lambda d: -int(np.prod(d["shape"])))]
        self._busy = Lock()

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        with self._busy:
            self._network.set_tensor(self._input, np.ascontiguousarray(image[None], np.float32))
            self._network.invoke()
            return [self._network.get_tensor(index).copy() for index in self._outputs]


def _sigmoid(value: np.ndarray | float) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-np.clip(value, -60, 60)))


def _short_range_anchors() -> np.ndarray:
    anchors = []
    for stride, repeats in ((8, 2), (16, 6)):
        grid = (np.arange(128 // stride) + 0.5) * stride / 128
        y, x = np.meshgrid(grid, grid, indexing="ij")
        anchors.append(np.repeat(np.stack([x, y], -1).reshape(-1, 2), repeats, axis=0))
    return np.concatenate(anchors).astype(np.float32)


def _region(
    eye_right: np.ndarray, eye_left: np.ndarray, center: np.ndarray, size: float, score: float
) -> Detection:
    delta = eye_left - eye_right
    return Detection((float(center[0]), float(center[1])), size, float(np.arctan2(delta[1], delta[0])), score)


class FaceTracker:
    """Finds and follows faces.

    Args:
        threads: CPU threads of each network.
        model_path: maps a model's file name to a path; by default the hub's table of third-party models.
        eyes: look at irises and eyelids more closely, which takes most of a mesh's time; else irises are in
            the middle of the eyes.
    """

    def __init__(
        self, threads: int = 1, model_path: Callable[[str], Path] | None = None, eyes: bool = True
    ) -> None:
        if model_path is None:
            model_path = hub_model_path
        self._detector = _Network(model_path("face_detection_short_range.tflite"), threads)
        self._mesh = _Network(model_path("face_landmark.tflite"), threads)
        self._iris = _Network(model_path("iris_landmark.tflite"), threads) if eyes else None
        self._yunet_path = model_path("face_detection_yunet_2023mar.onnx")
        self._yunet: cv2.FaceDetectorYN | None = None
        self._anchors = _short_range_anchors()
        self._detecting = Lock()

    # -- detection -------------------------------------------------------------------------------

    def detect(self, image: np.ndarray) -> list[Detection]:
        """All faces in an RGB picture (H, W, 3) uint8, largest first; from any thread."""
        with self._detecting:
            found = self._detect_many(image) or self._detect_short_range(image)
        return sorted(found, key=lambda d: -d.size)

    def _detect_short_range(self, image: np.ndarray) -> list[Detection]:
        height, width = image.shape[:2]
        side = max(height, width)
        scale = 128 / side
        small = cv2.resize(
            image, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
        )
        top, left = (128 - small.shape[0]) // 2, (128 - small.shape[1]) // 2
        canvas = np.zeros((128, 128, 3), np.float32)
        canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
        boxes, scores = self._detector(canvas / 127.5 - 1.0)
        probability = _sigmoid(scores[0, :, 0])
        best = int(probability.argmax())
        if probability[best] < _SCORE:
            return []
        box = boxes[0, best] / 128
        keypoints = box[4:].reshape(6, 2) + self._anchors[best]
        to_image = lambda p: (p * 128 - (left, top)) / scale  # noqa: E731
        size = 1.5 * float(max(box[2], box[3])) * side
        eyes = to_image(keypoints[0]), to_image(keypoints[1])
        return [_region(*eyes, to_image(box[:2] + self._anchors[best]), size, float(probability[best]))]

    def _detect_many(self, image: np.ndarray) -> list[Detection]:
        height, width = image.shape[:2]
        scale = min(1.0, 960 / max(height, width))
        size = max(16, round(width * scale)), max(16, round(height * scale))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        if self._yunet is None:
            self._yunet = cv2.FaceDetectorYN.create(str(self._yunet_path), "", size, 0.6, 0.3, 200)
        self._yunet.setInputSize(size)
        faces: Any  # OpenCV's stubs leave out that it may be None
        _, faces = self._yunet.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        if faces is None:
            return []
        ratio = np.array([width / size[0], height / size[1]])
        detections = []
        for face in faces:
            low, extent = face[:2] * ratio, face[2:4] * ratio
            eye_right, eye_left = face[4:6] * ratio, face[6:8] * ratio
            detections.append(
                _region(eye_right, eye_left, low + extent / 2, 1.4 * float(extent.max()), float(face[14]))
            )
        return detections

    # -- mesh ------------------------------------------------------------------------------------

    def mesh(self, image: np.ndarray, region: Detection) -> FaceMesh | None:
        """The 478-point mesh of the face in ``region``, or None when there is no face in it."""
        matrix = _crop_matrix(region.center, region.size, region.roll, _MESH_SIZE)
        crop = _warp(image, matrix, _MESH_SIZE)
        flat, score = self._mesh(crop)
        probability = float(_sigmoid(score.ravel()[0]))
        if probability < _SCORE:
            return None
        local = flat.reshape(topology.FACE_VERTICES, 3)
        points = np.empty((topology.VERTICES, 3), np.float32)
        points[: topology.FACE_VERTICES] = _uncrop(local, matrix, region.size / _MESH_SIZE)
        if self._iris is None:
            _look_ahead(points)
        else:
            self._refine_eyes(self._iris, image, points)
        return FaceMesh(points, probability)

    def _refine_eyes(self, network: _Network, image: np.ndarray, points: np.ndarray) -> None:
        """Irises, and eyelids: the mesh network hardly moves lids in a blink, the iris network does."""
        axis = points[263, :2] - points[33, :2]
        roll = float(np.arctan2(axis[1], axis[0]))
        for eye, (outer, inner) in enumerate(((33, 133), (263, 362))):
            corners = points[[outer, inner], :2]
            size = max(2.3 * float(np.linalg.norm(corners[0] - corners[1])), 1.0)
            matrix = _crop_matrix(corners.mean(0), size, roll, _IRIS_SIZE)
            crop = _warp(image, matrix, _IRIS_SIZE)
            contour, iris = network(crop[:, ::-1] if eye == 1 else crop)  # it knows the subject's right eye
            contour, iris = contour.reshape(71, 3), iris.reshape(5, 3)
            if eye == 1:
                contour[:, 0], iris[:, 0] = _IRIS_SIZE - contour[:, 0], _IRIS_SIZE - iris[:, 0]
            scale = size / _IRIS_SIZE
            iris = _uncrop(iris, matrix, scale)
            iris[:, 2] += points[[outer, inner], 2].mean() - iris[0, 2]
            start = topology.FACE_VERTICES + 5 * eye
            points[start : start + 5] = iris
            _move_lids(points, _uncrop(contour, matrix, scale), eye)

    def track_image(self, image: np.ndarray) -> list[FaceMesh]:
        """Meshes of all faces in a picture, largest first; the region is refined once from the mesh."""
        meshes = []
        for region in self.detect(image):
            mesh = self.mesh(image, region)
            if mesh is not None:
                mesh = self.mesh(image, _region_of(mesh.points)) or mesh
                meshes.append(mesh)
        return sorted(meshes, key=lambda m: -float(topology.inter_ocular(m.points)))

    # -- video -----------------------------------------------------------------------------------

    def track_video(
        self, frames: Iterable[tuple[float, np.ndarray]], detect_every: int = 25, max_gap: int = 25
    ) -> list[FaceTrack]:
        """Follow every face through (time in seconds, RGB image) pairs.

        A face keeps its id while its region overlaps from frame to frame; gaps of up to ``max_gap`` frames
        are interpolated, longer ones split the track.

        Returns:
            Tracks, longest first, ids 0, 1, ... in that order.
        """
        active: list[_Follower] = []
        done: list[_Follower] = []
        for index, (time, image) in enumerate(frames):
            for follower in active:
                follower.update(index, time, self.mesh(image, follower.region))
            active = _without_doubles(active, done)
            lost = not active or any(f.missed for f in active)
            if index % detect_every == 0 or lost:
                self._seed(image, index, time, active)
            done += [f for f in active if f.missed > max_gap]
            active = [f for f in active if f.missed <= max_gap]
        followers = sorted(done + active, key=lambda f: -len(f.points))
        return [f.track(number) for number, f in enumerate(followers) if f.points]

    def _seed(self, image: np.ndarray, index: int, time: float, active: list["_Follower"]) -> None:
        for region in self.detect(image):
            near = [f for f in active if _overlap(f.region, region)]
            if any(not f.missed for f in near):
                continue
            mesh = self.mesh(image, region)
            if mesh is not None:
                follower = near[0] if near else _Follower()
                follower.update(index, time, self.mesh(image, _region_of(mesh.points)) or mesh)
                if not near:
                    active.append(follower)


class _Follower:
    """A face being followed: its points so far and the region to look at next."""

    def __init__(self) -> None:
        self.region = Detection((0.0, 0.0), 1.0, 0.0, 0.0)
        self.points: list[np.ndarray] = []
        self.frames: list[int] = []
        self.times: list[float] = []
        self.missed = 0

    def update(self, index: int, time: float, mesh: FaceMesh | None) -> None:
        if mesh is None:
            self.missed += 1
            return
        self.missed = 0
        if self.frames and self.frames[-1] == index:
            return
        self.region = _region_of(mesh.points)
        self.points.append(mesh.points)
        self.frames.append(index)
        self.times.append(time)

    def track(self, number: int) -> FaceTrack:
        frames = np.arange(self.frames[0], self.frames[-1] + 1)
        known = np.array(self.frames)
        stacked = np.stack(self.points).reshape(len(known), -1)
        found = np.isin(frames, known)
        if found.all():
            full = stacked
        else:
            right = np.clip(np.searchsorted(known, frames), 1, len(known) - 1)
            left = right - 1
            weight = ((frames - known[left]) / (known[right] - known[left]))[:, None]
            full = (stacked[left] * (1 - weight) + stacked[right] * weight).astype(np.float32)
        times = np.interp(frames, known, np.array(self.times))
        return FaceTrack(number, times, full.reshape(len(frames), topology.VERTICES, 3), found, frames)


def _without_doubles(active: list[_Follower], done: list[_Follower]) -> list[_Follower]:
    """Two followers that have run onto the same face: the older one goes on."""
    kept: list[_Follower] = []
    for follower in sorted(active, key=lambda f: -len(f.points)):
        if any(_overlap(other.region, follower.region) and not other.missed for other in kept):
            done.append(follower)
        else:
            kept.append(follower)
    return kept


def _overlap(a: Detection, b: Detection) -> bool:
    distance = np.hypot(a.center[0] - b.center[0], a.center[1] - b.center[1])
    return distance < 0.35 * max(a.size, b.size)


_IRIS = np.array([[0, 0], [1, 0], [0, -1], [-1, 0], [0, 1]], np.float32)  # middle, then its rim


def _look_ahead(points: np.ndarray) -> None:
    """Put the irises into the middle of the eyes, in place."""
    for eye, (outer, inner) in enumerate(((33, 133), (263, 362))):
        start = topology.FACE_VERTICES + 5 * eye
        radius = 0.2 * float(np.linalg.norm(points[outer, :2] - points[inner, :2]))
        points[start : start + 5] = points[[outer, inner]].mean(0)
        points[start : start + 5, :2] += radius * _IRIS


_CORNERS = np.array([0, 8])  # of a contour: they carry the pose and stay with the mesh network


def _move_lids(points: np.ndarray, contour: np.ndarray, eye: int) -> None:
    """Put the lids where the iris network sees them; eye corners, and depth, stay the mesh's."""
    edge, halo = topology.EYE_CONTOUR[eye], topology.EYE_HALO[eye]
    shift = (points[edge[_CORNERS], :2] - contour[_CORNERS, :2]).mean(0)
    for vertices, seen, share in ((edge, contour[:16], 1.0), (halo, contour[16:32], 0.5)):
        moving = np.setdiff1d(np.arange(16), _CORNERS)
        target = seen[moving, :2] + shift
        points[vertices[moving], :2] += share * (target - points[vertices[moving], :2])


def _region_of(points: np.ndarray) -> Detection:
    """The square that the mesh network expects next: 1.5 x the face's extent, upright along the eyes."""
    xy = points[: topology.FACE_VERTICES, :2]
    axis = xy[263] - xy[33]
    roll = float(np.arctan2(axis[1], axis[0]))
    cos, sin = np.cos(roll), np.sin(roll)
    upright = xy @ np.array([[cos, -sin], [sin, cos]], np.float32)
    low, high = upright.min(0), upright.max(0)
    center = np.array([[cos, -sin], [sin, cos]]) @ ((low + high) / 2)
    return Detection((float(center[0]), float(center[1])), 1.5 * float((high - low).max()), roll, 1.0)


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
