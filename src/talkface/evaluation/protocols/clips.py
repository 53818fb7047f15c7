"""The clips of an evaluation: files with a tracked face, by group, and what is read from them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from talkface.data.manifest import Item, Manifest
from talkface.data.prepare import list_items
from talkface.errors import UnreadableMedia
from talkface.evaluation.figures import sync
from talkface.evaluation.tracking import COMMON_FPS, track_file
from talkface.face.tracker import FaceTrack, FaceTracker
from talkface.media.audio import read_audio
from talkface.media.video import VideoReader
from talkface.speech.activity import voice_activity

_VIDEO_SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi"}


@dataclass(frozen=True)
class Clip:
    """A video of a talking person.

    Attributes:
        name: Its name in reports.
        group: Reports give figures by group, too.
        path: The file.
        track: Its face.
        encoded: The same video encoded as generated ones are, if there is such a file: LSE-D and LSE-C of the
            real video are measured on it.
    """

    name: str
    group: str
    path: Path
    track: FaceTrack
    encoded: Path | None = None

    @property
    def span(self) -> tuple[float, float]:
        """First and last second in which the face is tracked."""
        return float(self.track.times[0]), float(self.track.times[-1])

    def row(self, length: int) -> dict[str, Any]:
        """The beginning of its row in a report, for ``length`` frames that are compared."""
        return {"name": self.name, "group": self.group, "seconds": length / COMMON_FPS}


@dataclass
class Library:
    """Clips of a data set, each tracked once at most."""

    manifest: Manifest
    tracker: FaceTracker
    _clips: dict[str, Clip] = field(default_factory=dict)

    def clip(self, item: Item) -> Clip:
        """The item's file and face: the prepared track, or else tracked now.

        Raises:
            TalkfaceError: It has no face, or cannot be read.
        """
        if item.key not in self._clips:
            track = self._track(item)
            self._clips[item.key] = Clip(item.key, item.group, self.manifest.file(item), track)
        return self._clips[item.key]

    def _track(self, item: Item) -> FaceTrack:
        if self.manifest.track_path(item).is_file():
            return prepared_track(self.manifest, item)
        return track_file(self.manifest.file(item), self.tracker)


def prepared_track(manifest: Manifest, item: Item) -> FaceTrack:
    """The track that ``talkface prepare`` wrote for an item."""
    track = manifest.track(item)
    return FaceTrack(0, track.times, track.points, track.found, track.frames)


def talking_items(data: Path, split: str, limit: int | None) -> tuple[Manifest, list[Item]]:
    """Talking-face clips of a split of a prepared folder, or of a folder of videos.

    Args:
        data: The folder.
        split: "val" or "train".
        limit: At most so many, spread over the list.

    Raises:
        UnreadableMedia: There is no such folder, or no such clip in it.
    """
    manifest = _manifest(Path(data))
    items = [i for i in manifest.items if i.has_video and i.has_speech and i.usable and i.split == split]
    if not items:
        raise UnreadableMedia(f"{data} has no talking-face clips in its split {split!r}")
    if limit and limit < len(items):
        items = [items[k] for k in np.linspace(0, len(items) - 1, limit).round().astype(int)]
    return manifest, items


def _manifest(data: Path) -> Manifest:
    if (data / "manifest.jsonl").is_file():
        return Manifest.load(data)
    if not data.is_dir():
        raise UnreadableMedia(f"{data} is not a folder of videos, nor one that `talkface prepare` wrote")
    return Manifest(data / "prepared", data, list_items(data))


def same_names(real: Path, generated: Path) -> list[tuple[Path, Path]]:
    """Pairs of real and generated files: the two files, or those of two folders with equal stems.

    Raises:
        UnreadableMedia: There are none.
    """
    if real.is_file() and generated.is_file():
        return [(real, generated)]
    true, made = _videos(real), _videos(generated)
    if not made.keys() & true.keys():
        raise UnreadableMedia(f"no video in {generated} has the name of one in {real}")
    return [(true[name], made[name]) for name in sorted(made.keys() & true.keys())]


def _videos(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in folder.glob("*") if path.suffix.lower() in _VIDEO_SUFFIXES}


def voice(path: Path, start: float, length: int) -> tuple[np.ndarray, bool]:
    """Where somebody speaks in a file.

    Args:
        path: The file.
        start: Seconds to begin at.
        length: Frames at 25 fps.

    Returns:
        Whether somebody speaks in each frame, (length,) bool; whether the file is anything but silent.
    """
    samples = read_audio(path)
    active = voice_activity(samples)
    index = np.minimum(round(start * 2 * COMMON_FPS) + 2 * np.arange(length), max(0, len(active) - 1))
    return active[index], bool(np.abs(samples).max(initial=0.0) > sync.LEAST_PEAK)


def frames_at(path: Path, numbers: list[int]) -> Iterator[np.ndarray]:
    """Frames (H, W, 3) uint8 of a video by ascending number; the last one for numbers beyond it."""
    wanted, held = list(numbers), None
    with VideoReader(path) as reader:
        for index, frame in enumerate(reader):
            held = frame.image
            while wanted and index >= wanted[0]:
                wanted.pop(0)
                yield held
            if not wanted:
                return
    for _ in wanted:
        if held is not None:
            yield held


def spread(path: Path, count: int) -> list[int]:
    """``count`` frame numbers spread over a video, without the first frame."""
    with VideoReader(path) as reader:
        last = max(0, round(reader.duration * reader.fps) - 1)
    return [round(last * (k + 1) / count) for k in range(count)]


def aligned_frames(real: Path, generated: Path) -> Iterator[tuple[int, np.ndarray, int, np.ndarray]]:
    """Every generated frame beside the real one nearest in time.

    Yields:
        Number and picture (H, W, 3) uint8 of the real frame, then of the generated one; the shorter ends it.
    """
    with VideoReader(real) as source, VideoReader(generated) as made:
        ahead = enumerate(source)
        here, after = next(ahead, None), next(ahead, None)
        for number, frame in enumerate(made):
            while after and here and abs(after[1].time - frame.time) <= abs(here[1].time - frame.time):
                here, after = after, next(ahead, None)
            if here is None or (after is None and frame.time - here[1].time > 1 / source.fps):
                return
            yield here[0], here[1].image, number, frame.image
