"""What is measured: one person's tracked face in a video, on a common clock of 25 frames a second."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from talkface.errors import NoFaceFound
from talkface.face import topology as tp
from talkface.face.model import FaceModel
from talkface.face.motion import FaceMotion
from talkface.face.tracker import FaceTrack, FaceTracker
from talkface.media.video import VideoReader

RATE = 25.0  # frames a second at which everything is compared


@dataclass(frozen=True)
class Performance:
    """A face over time.

    Attributes:
        points: (T, 478, 3) mesh, pixels.
        motion: (T) coefficients of the FaceModel.
        found: (T,) whether the face was seen.
    """

    points: np.ndarray
    motion: FaceMotion
    found: np.ndarray

    def __len__(self) -> int:
        return len(self.points)

    def first(self, length: int) -> "Performance":
        """The first ``length`` frames."""
        return Performance(self.points[:length], self.motion[:length], self.found[:length])

    @property
    def opening(self) -> np.ndarray:
        """Inner-lip opening over inter-ocular distance, (T,)."""
        return tp.aperture(self.points)

    @property
    def width(self) -> np.ndarray:
        """Distance of the mouth's corners over inter-ocular distance, (T,)."""
        return self._distance(*tp.MOUTH_CORNERS)

    @property
    def jaw(self) -> np.ndarray:
        """Distance of chin and nose tip over inter-ocular distance, (T,)."""
        return self._distance(tp.CHIN, tp.NOSE_TIP)

    def _distance(self, a: int, b: int) -> np.ndarray:
        gap = np.linalg.norm(self.points[:, a, :2] - self.points[:, b, :2], axis=-1)
        return gap / tp.inter_ocular(self.points)


def perform(track: FaceTrack, model: FaceModel, start: float = 0.0, stop: float = np.inf) -> Performance:
    """Bring a track to 25 fps on the clock of its file, from ``start`` to ``stop`` seconds at most."""
    begin, end = max(start, float(track.times[0])), min(stop, float(track.times[-1]))
    times = np.arange(np.ceil(begin * RATE - 1e-6), np.floor(end * RATE + 1e-6) + 1) / RATE
    right = np.clip(np.searchsorted(track.times, times), 1, max(1, len(track.times) - 1))
    left = right - 1
    right = np.minimum(right, len(track.times) - 1)
    span = np.maximum(track.times[right] - track.times[left], 1e-6)
    share = np.clip((times - track.times[left]) / span, 0.0, 1.0)[:, None, None]
    points = ((1 - share) * track.points[left] + share * track.points[right]).astype(np.float32)
    nearest = np.where(share[:, 0, 0] > 0.5, right, left)
    return Performance(points, model.fit(points, RATE).motion, track.found[nearest])


def track_file(path: Path, tracker: FaceTracker, like: FaceTrack | None = None) -> FaceTrack:
    """The longest track of a video file.

    Args:
        path: the video.
        tracker: finds the faces.
        like: prefer tracks that lie where this one does, that is, the same person in a copy of its video.

    Raises:
        NoFaceFound: there is none.
    """
    with VideoReader(path) as reader:
        tracks = tracker.track_video((frame.time, frame.image) for frame in reader)
    if not tracks:
        raise NoFaceFound(f"no face found in {path.name}; give a video with a clearly visible face")
    near = [track for track in tracks if like is not None and head_distance(track, like) < 0.5]
    return (near or tracks)[0]


def head_distance(a: FaceTrack, b: FaceTrack) -> float:
    """Median distance of the eyes' outer corners over time, in inter-ocular distances."""
    corners = np.array(tp.EYE_OUTER)
    where = b.points[:, corners, :2].reshape(len(b.points), -1)
    there = np.stack([np.interp(a.times, b.times, column) for column in where.T], -1).reshape(-1, 2, 2)
    gap = np.linalg.norm(a.points[:, corners, :2] - there, axis=-1).mean(-1)
    return float(np.median(gap / np.maximum(tp.inter_ocular(a.points), 1e-6)))
