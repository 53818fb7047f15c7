"""A take: one video, computed while it is looked at or saved."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np

from talkface._version import __version__
from talkface.errors import OutputError, UnreadableMedia
from talkface.face.motion import FaceMotion
from talkface.media.decode import Frame
from talkface.media.files import check_output, open_media
from talkface.media.mix import mix_to
from talkface.media.prefetch import prefetched
from talkface.media.segments import SegmentedWriter
from talkface.media.source import SourceVideo

Progress = Callable[[str, int, int], None]
"""Told how far a stage is: its name, units done, units in all."""

_AHEAD = 12  # frames that are drawn while others are encoded, at most
_AHEAD_BYTES = 100e6  # that they may take


class Clock(Protocol):
    """When the frames of a video are shown; a :class:`~talkface.media.timeline.Timeline` is one."""

    @property
    def frame_count(self) -> int:
        """How many frames there are."""
        ...

    @property
    def fps(self) -> Fraction:
        """Frames a second, on average where the rate is variable."""
        ...

    @property
    def variable(self) -> bool:
        """Whether frames come at other times than multiples of ``1 / fps``."""
        ...

    @property
    def duration(self) -> float:
        """Seconds until the last frame ends."""
        ...


@dataclass(frozen=True)
class ConstantRate:
    """A clock of ``frame_count`` frames at ``fps`` frames a second."""

    frame_count: int
    fps: Fraction
    variable: bool = False

    @property
    def duration(self) -> float:
        """Seconds until the last frame ends."""
        return float(self.frame_count / self.fps)

    def done(self, after: float | None) -> int:
        """How many frames begin at ``after`` seconds or earlier; none for None."""
        return 0 if after is None else min(self.frame_count, round(after * self.fps) + 1)

    def shown(self, images: Iterable[np.ndarray], first: int = 0) -> Iterator[Frame]:
        """Images as frames with their times, beginning with number ``first``."""
        for number, image in enumerate(images, start=first):
            yield Frame(image, float(number / self.fps))


class Take:
    """A video, computed while it is iterated or saved and not before; memory does not grow with its length.

    Args:
        frames: Begins the computation behind a time in seconds, or at the start for None.
        clock: When the frames are shown.
        size: Width and height in pixels.
        sounds: Files that are heard, together.
        provenance: What made the video: program, model and the like, for the container's metadata.
        fingerprint: Tells what the frames are made from and how; see :func:`fingerprint_of`.
        seed: What random choices were drawn from; None where there are none.
        source: The video that was edited, whose colours and codec settings are kept; None for a new one.
        motion: Gives the motion of the frames so far, or None.
        perform: Computes all of the motion, without drawing anything.
    """

    def __init__(
        self,
        frames: Callable[[float | None], Iterator[Frame]],
        clock: Clock,
        size: tuple[int, int],
        *,
        sounds: Sequence[Path] = (),
        provenance: Mapping[str, str] | None = None,
        fingerprint: str = "",
        seed: int | None = None,
        source: SourceVideo | None = None,
        motion: Callable[[], FaceMotion | None] | None = None,
        perform: Callable[[], object] | None = None,
    ) -> None:
        self.clock, self.size, self.seed, self.sounds = clock, size, seed, list(sounds)
        self.source, self._timed, self._motion, self._perform = source, frames, motion, perform
        self.fingerprint = hashlib.sha256(f"{fingerprint} {seed}".encode()).hexdigest()
        self.provenance: Mapping[str, str] = {
            "version": __version__,
            **(provenance or {}),
            **({} if seed is None else {"seed": str(seed)}),
            "synthetic": "true",
        }

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.frames()

    def __len__(self) -> int:
        return self.frame_count

    @property
    def frame_count(self) -> int:
        """How many frames there are; about, in an edited video of variable rate."""
        return self.clock.frame_count

    @property
    def fps(self) -> float:
        """Frames a second, on average where the rate is variable."""
        return float(self.clock.fps)

    @property
    def exact_fps(self) -> Fraction:
        """Frames a second as a fraction."""
        return self.clock.fps

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.clock.duration

    @property
    def motion(self) -> FaceMotion | None:
        """The motion of the frames that have been computed; None before the first, or in an edit."""
        return self._motion() if self._motion else None

    def perform(self) -> FaceMotion | None:
        """All of the motion, computed without drawing frames; None where there is none, as in dubbing."""
        known = self.motion
        if self._perform and (known is None or len(known) < self.frame_count):
            self._perform()
        return self.motion

    def frames(self) -> Iterator[np.ndarray]:
        """Frames (H, W, 3) uint8 RGB."""
        return (frame.image for frame in self.timed())

    def timed(self, after: float | None = None) -> Iterator[Frame]:
        """Frames with their times in seconds: those that begin later than ``after``, or all."""
        return self._timed(after)

    def save(
        self,
        path: str | Path,
        overwrite: bool = False,
        resume: bool = False,
        progress: Progress | None = None,
    ) -> Path:
        """Compute the video and write it, with its sound and with a note that it is synthetic.

        Args:
            path: The file: ``.mp4``, ``.mov``, ``.mkv`` or ``.webm``.
            overwrite: Replace an existing file.
            resume: Go on where an interrupted run of the same inputs and options was; a video that was
                finished stays as it is.
            progress: Called as ``progress("frames", done, total)`` after each frame, and before it as
                ``progress("motion", done, total)`` when the motion has come further.

        Returns:
            The path.

        Raises:
            OutputError: The file exists or cannot be written; found before anything is computed, if possible.
            TalkfaceError: What is wrong with the input.
        """
        path = Path(path)
        if resume and self.is_finished(path):
            return path
        self.check_target(path, overwrite)
        with self._sound() as sound:
            self._write(path, sound, overwrite, resume, progress)
        return path

    def check_target(self, path: Path, overwrite: bool) -> None:
        """See to it that a file may be written, and is nothing that the video is made from.

        Raises:
            OutputError: It may not, or it is.
        """
        inputs = [*self.sounds, *([self.source.path] if self.source else [])]
        if path.exists() and any(path.samefile(one) for one in inputs if one.exists()):
            raise OutputError(f"{path} is an input; choose another output")
        check_output(path, overwrite)

    def _write(
        self, path: Path, sound: Path | None, overwrite: bool, resume: bool, progress: Progress | None
    ) -> None:
        with SegmentedWriter(
            path,
            size=self.size,
            fps=self.clock.fps,
            variable=self.clock.variable,
            like=self.source,
            audio=sound,
            metadata=self._metadata(),
            overwrite=overwrite,
            resume=resume,
            fingerprint=self.fingerprint,
            duration=self.clock.duration,
        ) as writer:
            moved = 0
            for frame in prefetched(self.timed(writer.time_done), depth=self._ahead()):
                writer.write(frame.image, frame.time)
                if not progress:
                    continue
                # Motion comes in stretches ahead of its frames: ask for it only where a stretch begins.
                if writer.frames > moved and (motion := self.motion) is not None:
                    moved = len(motion)
                    progress("motion", moved, self.frame_count)
                progress("frames", writer.frames, self.frame_count)

    @contextmanager
    def _sound(self) -> Iterator[Path | None]:
        """The file with the sound; several are mixed into one that goes at the end."""
        if len(self.sounds) < 2:
            yield self.sounds[0] if self.sounds else None
            return
        folder = Path(tempfile.mkdtemp(prefix="talkface-"))
        try:
            yield mix_to(self.sounds, folder / "speech.wav")
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _ahead(self) -> int:
        """Frames that are drawn ahead of the encoder."""
        return max(2, min(_AHEAD, int(_AHEAD_BYTES / (3 * self.size[0] * self.size[1]))))

    def _metadata(self) -> dict[str, str]:
        model = self.provenance.get("model", "")
        drawn = "" if self.seed is None else f" with seed {self.seed}"
        comment = f"Synthetic video, made by talkface {__version__} {model}{drawn}"
        return {
            **self.provenance,
            "fingerprint": self.fingerprint,
            "comment": " ".join(comment.split()),
        }

    def is_finished(self, path: Path) -> bool:
        """Whether a file is this very video, as an earlier run wrote it."""
        if not path.is_file():
            return False
        try:
            with open_media(path) as container:
                told = {key.lower(): value for key, value in container.metadata.items()}
        except UnreadableMedia:
            return False
        return told.get("fingerprint") == self.fingerprint


def fingerprint_of(files: Iterable[Path], *options: object) -> str:
    """Tells what frames are made from and how, for resuming: this version, files as they are, options."""
    known = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    text = json.dumps([__version__, known, *options], default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: object) -> object:
    """A value as JSON holds it, the same in every process."""
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: getattr(value, one.name) for one in fields(value)}
    return sorted(value, key=str) if isinstance(value, set | frozenset) else str(value)
