"""Aligned face crops of prepared clips, cut once and kept beside the tracks.

``out/crops/<key>.npz`` holds JPEG-compressed crops and the mesh in their pixels, as :class:`CropClip` does;
``out/crops-544/<key>.npz`` those of 544 pixels, and so on.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from talkface.data.arrays import keep_arrays
from talkface.data.manifest import Item, Manifest
from talkface.face import topology as tp
from talkface.face.crop import FaceRegion, cut, face_unit, transform
from talkface.face.model import FaceFit, FaceModel

logger = logging.getLogger(__name__)

FACE_REGION = FaceRegion("face", -1, 2.3, 272)  # the whole face at the mouth crop's density
_QUALITY = 95


@dataclass
class CropClip:
    """Frames of one person, aligned.

    Attributes:
        images: JPEG-compressed crops.
        points: (T, 478, 3) mesh in crop pixels.
        fit: the 3DMM's, of these frames.
        frames: (T,) their numbers in the clip.
        times: (T,) seconds at which they are shown.
        speaker: corpus and speaker.
        unit: median inter-ocular distance in the clip's own pixels.
    """

    images: list[np.ndarray]
    points: np.ndarray
    fit: FaceFit
    frames: np.ndarray
    times: np.ndarray
    speaker: str
    unit: float

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> np.ndarray:
        """RGB crop (P, P, 3) uint8, 272 pixels unless it was cut finer."""
        crop = cv2.imdecode(self.images[index], cv2.IMREAD_COLOR)
        assert crop is not None  # we compressed it
        return cv2.cvtColor(crop, cv2.COLOR_BGR2RGB)

    def only(self, chosen: np.ndarray) -> "CropClip":
        """The frames at the given places, (K,) ascending."""
        fit, motion = self.fit, self.fit.motion.resample(chosen / self.fit.motion.fps)
        pose = type(fit.pose)(fit.pose.rotation[chosen], fit.pose.scale[chosen], fit.pose.translation[chosen])
        part = FaceFit(fit.alpha, fit.neutral, motion, pose, fit.residual[chosen], fit.error)
        images = [self.images[k] for k in chosen]
        place = self.frames[chosen], self.times[chosen]
        return CropClip(images, self.points[chosen], part, *place, self.speaker, self.unit)


def face_matrix(points: np.ndarray, pixels: int = FACE_REGION.pixels) -> np.ndarray:
    """Alignment (2, 3) of crops with sides of ``pixels``: upright, nose tip in the middle."""
    axis = points[263, :2] - points[33, :2]
    axis = axis / np.linalg.norm(axis)
    scale = pixels / (FACE_REGION.side * face_unit(points))
    linear = scale * np.array([[axis[0], axis[1]], [-axis[1], axis[0]]])
    return np.concatenate([linear, (np.full(2, (pixels - 1) / 2) - linear @ points[1, :2])[:, None]], 1)


def cut_clip(
    video: Iterable[tuple[int, np.ndarray]],
    points: np.ndarray,
    frames: np.ndarray,
    pixels: int = FACE_REGION.pixels,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Compressed crops of the given frames of a video, and the mesh (T, 478, 3) in them."""
    place = {int(frame): k for k, frame in enumerate(frames)}
    images, cropped = [], []
    for index, image in video:
        mesh = points[place[index]]
        matrix = face_matrix(mesh, pixels)
        crop = cut(image, matrix, pixels)
        images.append(cv2.imencode(".jpg", crop[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1])
        cropped.append(transform(mesh, matrix))
    return images, np.stack(cropped)


def crop_clip(manifest: Manifest, item: Item, model: FaceModel, pixels: int = FACE_REGION.pixels) -> CropClip:
    """The crops of a prepared clip, all its tracked frames; cut on first use and kept by their size."""
    track = manifest.track(item)
    folder = "crops" if pixels == FACE_REGION.pixels else f"crops-{pixels}"
    path = manifest.directory / folder / f"{item.key}.npz"
    if not path.is_file():
        video = manifest.frames(item, set(track.frames.tolist()))
        _keep(path, *cut_clip(video, track.points, track.frames, pixels))
    with np.load(path) as arrays:
        ends = np.cumsum(arrays["lengths"])[:-1]
        images, points = np.split(arrays["jpeg"], ends), arrays["points"]
    fps = (len(track.times) - 1) / max(float(track.times[-1] - track.times[0]), 1e-3)
    count = len(images)  # a damaged last frame may be missing
    fit = model.fit(track.points[:count], fps)
    unit = float(np.median(tp.inter_ocular(track.points)))
    place = track.frames[:count], track.times[:count]
    return CropClip(images, points, fit, *place, item.person, unit)


def _keep(path: Path, images: list[np.ndarray], points: np.ndarray) -> None:
    lengths = np.array([len(image) for image in images])
    keep_arrays(path, jpeg=np.concatenate([i.ravel() for i in images]), lengths=lengths, points=points)
