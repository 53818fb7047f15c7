"""Where faces are in a picture: YuNet (MIT) and, where it finds none, MediaPipe's detector (Apache-2.0)."""

from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np

from talkface.face import topology as tp
from talkface.face.litert import LiteRtNetwork, sigmoid

LEAST_PROBABILITY = 0.5
"""From which a network is believed that there is a face."""
_SHORT_RANGE_PIXELS = 128
_YUNET_PIXELS = 960  # longer side, at most


@dataclass(frozen=True)
class Detection:
    """A face found in a picture: centre (x, y), side of its square region and roll, pixels and radians."""

    center: tuple[float, float]
    size: float
    roll: float
    score: float

    def overlaps(self, other: "Detection") -> bool:
        """Whether both are about the same face: their centres are close for their size."""
        distance = np.hypot(self.center[0] - other.center[0], self.center[1] - other.center[1])
        return bool(distance < 0.35 * max(self.size, other.size))


class FaceDetector:
    """Finds faces.

    Args:
        short_range: MediaPipe's detector, a .tflite file.
        yunet: YuNet, an .onnx file.
        threads: of the CPU.
    """

    def __init__(self, short_range: Path, yunet: Path, threads: int) -> None:
        self._short_range = LiteRtNetwork(short_range, threads)
        self._anchors = _short_range_anchors()
        self._yunet_path = yunet
        self._yunet: cv2.FaceDetectorYN | None = None
        self._busy = Lock()

    def __call__(self, image: np.ndarray) -> list[Detection]:
        """All faces in an RGB picture (H, W, 3) uint8, largest first; from any thread."""
        with self._busy:
            found = self._detect_many(image) or self._detect_short_range(image)
        return sorted(found, key=lambda d: -d.size)

    def _detect_short_range(self, image: np.ndarray) -> list[Detection]:
        """The clearest face, which should be near the camera."""
        (height, width), pixels = image.shape[:2], _SHORT_RANGE_PIXELS
        side = max(height, width)
        scale = pixels / side
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        top, left = (pixels - small.shape[0]) // 2, (pixels - small.shape[1]) // 2
        canvas = np.zeros((pixels, pixels, 3), np.float32)
        canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
        boxes, scores = self._short_range(canvas / 127.5 - 1.0)
        probability = sigmoid(scores[0, :, 0])
        best = int(probability.argmax())
        if probability[best] < LEAST_PROBABILITY:
            return []
        box = boxes[0, best] / pixels
        keypoints = box[4:].reshape(6, 2) + self._anchors[best]
        places = np.stack([keypoints[0], keypoints[1], box[:2] + self._anchors[best]])
        eye_right, eye_left, center = (places * pixels - (left, top)) / scale
        extent = 1.5 * float(max(box[2], box[3])) * side
        return [_region(eye_right, eye_left, center, extent, float(probability[best]))]

    def _detect_many(self, image: np.ndarray) -> list[Detection]:
        """Faces of many sizes."""
        height, width = image.shape[:2]
        scale = min(1.0, _YUNET_PIXELS / max(height, width))
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
            side = 1.4 * float(extent.max())
            detections.append(_region(eye_right, eye_left, low + extent / 2, side, float(face[14])))
        return detections


def _short_range_anchors() -> np.ndarray:
    """Centres (896, 2) of the short-range detector's boxes, 0 to 1."""
    pixels, anchors = _SHORT_RANGE_PIXELS, []
    for stride, repeats in ((8, 2), (16, 6)):
        grid = (np.arange(pixels // stride) + 0.5) * stride / pixels
        y, x = np.meshgrid(grid, grid, indexing="ij")
        anchors.append(np.repeat(np.stack([x, y], -1).reshape(-1, 2), repeats, axis=0))
    return np.concatenate(anchors).astype(np.float32)


def _region(
    eye_right: np.ndarray, eye_left: np.ndarray, center: np.ndarray, size: float, score: float
) -> Detection:
    """A region of a side in pixels, upright along the eyes (x, y)."""
    delta = eye_left - eye_right
    return Detection((float(center[0]), float(center[1])), size, float(np.arctan2(delta[1], delta[0])), score)


def region_of(points: np.ndarray) -> Detection:
    """The square that the mesh network expects next: 1.5 x the face's extent, upright along the eyes."""
    xy = points[: tp.FACE_VERTICES, :2]
    axis = xy[263] - xy[33]
    roll = float(np.arctan2(axis[1], axis[0]))
    cos, sin = np.cos(roll), np.sin(roll)
    upright = xy @ np.array([[cos, -sin], [sin, cos]], np.float32)
    low, high = upright.min(0), upright.max(0)
    center = np.array([[cos, -sin], [sin, cos]]) @ ((low + high) / 2)
    return Detection((float(center[0]), float(center[1])), 1.5 * float((high - low).max()), roll, 1.0)
