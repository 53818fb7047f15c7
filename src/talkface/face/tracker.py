"""Faces in pictures and videos: detection, the 478-point mesh, tracks over time."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from talkface.face import topology as tp
from talkface.face.detection import Detection, FaceDetector, region_of
from talkface.face.mesh import FaceMesh, MeshNetwork
from talkface.hub import model_path as hub_model_path


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
        short_range = model_path("face_detection_short_range.tflite")
        mesh, iris = model_path("face_landmark.tflite"), model_path("iris_landmark.tflite") if eyes else None
        yunet = model_path("face_detection_yunet_2023mar.onnx")
        self._detector = FaceDetector(short_range, yunet, threads)
        self._mesh = MeshNetwork(mesh, iris, threads)

    def detect(self, image: np.ndarray) -> list[Detection]:
        """All faces in an RGB picture (H, W, 3) uint8, largest first; from any thread."""
        return self._detector(image)

    def mesh(self, image: np.ndarray, region: Detection) -> FaceMesh | None:
        """The 478-point mesh of the face in ``region``, or None when there is no face in it."""
        return self._mesh(image, region)

    def track_image(self, image: np.ndarray) -> list[FaceMesh]:
        """Meshes of all faces in a picture, largest first; the region is refined once from the mesh."""
        meshes = []
        for region in self.detect(image):
            mesh = self.mesh(image, region)
            if mesh is not None:
                mesh = self.mesh(image, region_of(mesh.points)) or mesh
                meshes.append(mesh)
        return sorted(meshes, key=lambda mesh: -float(tp.inter_ocular(mesh.points)))

    def track_video(
        self, frames: Iterable[tuple[float, np.ndarray]], detect_every: int = 25, max_gap: int = 25
    ) -> list[FaceTrack]:
        """Follow every face through (time in seconds, RGB image) pairs.

        A face keeps its id while its region overlaps from frame to frame; gaps of up to ``max_gap`` frames
        are interpolated, longer ones split the track.

        Returns:
            Tracks, longest first, ids 0, 1, ... in that order.
        """
        active: list[_OpenTrack] = []
        done: list[_OpenTrack] = []
        for index, (time, image) in enumerate(frames):
            for track in active:
                track.update(index, time, self.mesh(image, track.region))
            active = _without_doubles(active, done)
            lost = not active or any(one.missed for one in active)
            if index % detect_every == 0 or lost:
                self._seed(image, index, time, active)
            done += [one for one in active if one.missed > max_gap]
            active = [one for one in active if one.missed <= max_gap]
        tracks = sorted(done + active, key=lambda one: -len(one.points))
        return [one.closed(number) for number, one in enumerate(tracks) if one.points]

    def _seed(self, image: np.ndarray, index: int, time: float, active: list["_OpenTrack"]) -> None:
        """Begin tracks of the faces in a picture that nobody follows, or go on with those that were lost."""
        for region in self.detect(image):
            near = [one for one in active if one.region.overlaps(region)]
            if any(not one.missed for one in near):
                continue
            mesh = self.mesh(image, region)
            if mesh is not None:
                track = near[0] if near else _OpenTrack()
                track.update(index, time, self.mesh(image, region_of(mesh.points)) or mesh)
                if not near:
                    active.append(track)


class _OpenTrack:
    """A track that may still grow: a face's points so far and the region to look at next."""

    def __init__(self) -> None:
        self.region = Detection((0.0, 0.0), 1.0, 0.0, 0.0)
        self.points: list[np.ndarray] = []
        self.frames: list[int] = []
        self.times: list[float] = []
        self.missed = 0

    def update(self, index: int, time: float, mesh: FaceMesh | None) -> None:
        """Add a frame; None where no face was found in the region."""
        if mesh is None:
            self.missed += 1
            return
        self.missed = 0
        if self.frames and self.frames[-1] == index:
            return
        self.region = region_of(mesh.points)
        self.points.append(mesh.points)
        self.frames.append(index)
        self.times.append(time)

    def closed(self, number: int) -> FaceTrack:
        """All of it; gaps are interpolated."""
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
        return FaceTrack(number, times, full.reshape(len(frames), tp.VERTICES, 3), found, frames)


def _without_doubles(active: list[_OpenTrack], done: list[_OpenTrack]) -> list[_OpenTrack]:
    """Two tracks that have run onto the same face: the older one goes on."""
    kept: list[_OpenTrack] = []
    for track in sorted(active, key=lambda one: -len(one.points)):
        if any(other.region.overlaps(track.region) and not other.missed for other in kept):
            done.append(track)
        else:
            kept.append(track)
    return kept
