"""What is measured: one person's tracked face in a video, resampled to 25 frames per second."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from talkface.errors import NoFaceFound
from talkface.face import topology as tp
from talkface.face.model import FaceModel
from talkface.face.motion import FaceMotion
from talkface.face.tracker import FaceTrack, FaceTracker
from talkface.media.video import VideoReader

COMMON_FPS = 25.0  # frames per second at which all videos are compared


@dataclass(frozen=True)
class TrackedFace:
    """A face over time, at 25 frames per second.

    Attributes:
        points: (T, 478, 3) mesh in pixels of the video.
        motion: T frames of coefficients of the :class:`FaceModel`.
        found: (T,) bool, whether the tracker saw the face in the nearest frame.
    """

    points: np.ndarray
    motion: FaceMotion
    found: np.ndarray

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, part: slice) -> "TrackedFace":
        return TrackedFace(self.points[part], self.motion[part], self.found[part])

    @property
    def opening(self) -> np.ndarray:
        """Inner-lip opening over inter-ocular distance, (T,)."""
        return tp.aperture(self.points)

    @property
    def width(self) -> np.ndarray:
        """Distance between the corners of the mouth over inter-ocular distance, (T,)."""
        return self._distance(*tp.MOUTH_CORNERS)

    @property
    def jaw(self) -> np.ndarray:
        """Distance between chin and nose tip over inter-ocular distance, (T,)."""
        return self._distance(tp.CHIN, tp.NOSE_TIP)

    def _distance(self, a: int, b: int) -> np.ndarray:
        gap = np.linalg.norm(self.points[:, a, :2] - self.points[:, b, :2], axis=-1)
        relative: np.ndarray = gap / tp.inter_ocular(self.points)
        return relative


def resample_track(
    track: FaceTrack, model: FaceModel, start: float = 0.0, stop: float = np.inf
) -> TrackedFace:
    """Resample a track to 25 fps and fit the 3DMM.

    Args:
        track: The face in the frames of a video.
        model: The 3DMM.
        start: First second; later if the track begins later.
        stop: Last second; earlier if the track ends earlier.

    Returns:
        Meshes at multiples of 1/25 s of the video's own time, interpolated linearly.
    """
    begin, end = max(start, float(track.times[0])), min(stop, float(track.times[-1]))
    first, last = ticks_within(begin, end)
    times = np.arange(first, last + 1) / COMMON_FPS
    right = np.clip(np.searchsorted(track.times, times), 1, max(1, len(track.times) - 1))
    left = right - 1
    right = np.minimum(right, len(track.times) - 1)
    span = np.maximum(track.times[right] - track.times[left], 1e-6)
    share = np.clip((times - track.times[left]) / span, 0.0, 1.0)[:, None, None]
    points = ((1 - share) * track.points[left] + share * track.points[right]).astype(np.float32)
    nearest = np.where(share[:, 0, 0] > 0.5, right, left)
    return TrackedFace(points, model.fit(points, COMMON_FPS).motion, track.found[nearest])


def ticks_within(start: float, stop: float) -> tuple[int, int]:
    """First and last multiple of 1/25 s from ``start`` to ``stop`` seconds, counted from time 0."""
    return int(np.ceil(start * COMMON_FPS - 1e-6)), int(np.floor(stop * COMMON_FPS + 1e-6))


def common_span(tracks: list[FaceTrack]) -> tuple[float, float]:
    """First and last second that all tracks cover."""
    return max(float(t.times[0]) for t in tracks), min(float(t.times[-1]) for t in tracks)


def of_equal_length(faces: list[TrackedFace]) -> list[TrackedFace]:
    """All of them cut to the length of the shortest."""
    length = min(map(len, faces))
    return [face[:length] for face in faces]


def track_file(path: Path, tracker: FaceTracker, like: FaceTrack | None = None) -> FaceTrack:
    """The longest track of a video file.

    Args:
        path: The video.
        tracker: Finds the faces.
        like: Prefer tracks that lie where this one does: the same person in a copy of its video.

    Raises:
        NoFaceFound: There is none.
    """
    with VideoReader(path) as reader:
        tracks = tracker.track_video((frame.time, frame.image) for frame in reader)
    if not tracks:
        raise NoFaceFound(f"no face found in {path.name}; give a video with a clearly visible face")
    near = [track for track in tracks if like is not None and head_distance(track, like) < 0.5]
    return (near or tracks)[0]


def head_distance(a: FaceTrack, b: FaceTrack) -> float:
    """Median over time of the distance between the outer eye corners, in inter-ocular distances."""
    corners = np.array(tp.EYE_OUTER)
    where = b.points[:, corners, :2].reshape(len(b.points), -1)
    there = np.stack([np.interp(a.times, b.times, column) for column in where.T], -1).reshape(-1, 2, 2)
    gap = np.linalg.norm(a.points[:, corners, :2] - there, axis=-1).mean(-1)
    return float(np.median(gap / np.maximum(tp.inter_ocular(a.points), 1e-6)))
