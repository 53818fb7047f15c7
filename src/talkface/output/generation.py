"""What every verb gives: takes of a video, computed while they are looked at or saved."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TypeVar, overload

import numpy as np

from talkface.errors import InvalidOption
from talkface.face.motion import FaceMotion
from talkface.output.take import Progress, Take

_MOST_TAKES = 64
AnyTake = TypeVar("AnyTake", bound=Take)


class Generation(Sequence[AnyTake]):
    """The takes of one call of a verb: videos that differ in what was drawn at random.

    Nothing is computed before it is asked for, and memory does not grow with the length of the videos.
    What is said of one video (:attr:`fps`, :meth:`frames`, ...) is said of the first take.
    """

    def __init__(self, takes: Sequence[AnyTake]) -> None:
        self.takes = list(takes)

    @overload
    def __getitem__(self, index: int) -> AnyTake: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[AnyTake]: ...
    def __getitem__(self, index: int | slice) -> AnyTake | Sequence[AnyTake]:
        return self.takes[index]

    def __len__(self) -> int:
        return len(self.takes)

    @property
    def frame_count(self) -> int:
        """Frames of a take."""
        return self.takes[0].frame_count

    @property
    def fps(self) -> float:
        """Frames a second, on average where the rate is variable."""
        return self.takes[0].fps

    @property
    def exact_fps(self) -> Fraction:
        """Frames a second as a fraction."""
        return self.takes[0].exact_fps

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.takes[0].size

    @property
    def duration(self) -> float:
        """Seconds of a take."""
        return self.takes[0].duration

    @property
    def seed(self) -> int | None:
        """The first take's seed; the others' follow. None where nothing is drawn at random."""
        return self.takes[0].seed

    @property
    def provenance(self) -> Mapping[str, str]:
        """What made the video: program, model and settings."""
        return self.takes[0].provenance

    @property
    def motion(self) -> FaceMotion | None:
        """Motion of the first take's frames that have been computed; None before the first, or in an edit."""
        return self.takes[0].motion

    def frames(self, take: int = 0) -> Iterator[np.ndarray]:
        """Frames (H, W, 3) uint8 RGB of a take."""
        return self.takes[take].frames()

    def save(
        self,
        path: str | Path,
        overwrite: bool = False,
        resume: bool = False,
        progress: Progress | None = None,
    ) -> list[Path]:
        """Compute and write all takes: one as ``path``, several as :func:`take_paths` names them.

        The arguments are those of :meth:`Take.save`.

        Returns:
            The paths.

        Raises:
            OutputError: A file exists or cannot be written; found before anything is computed, if possible.
            TalkfaceError: What is wrong with the input.
        """
        paths = take_paths(Path(path), len(self))
        for take, target in zip(self, paths, strict=True):
            if not (resume and take.is_finished(target)):
                take.check_target(target, overwrite)
        return [
            take.save(target, overwrite, resume, progress) for take, target in zip(self, paths, strict=True)
        ]


def check_takes(takes: int) -> int:
    """A number of takes that can be made.

    Raises:
        InvalidOption: It is too small or too large.
    """
    if not 1 <= takes <= _MOST_TAKES:
        raise InvalidOption(f"takes is {takes}; choose a number from 1 to {_MOST_TAKES}")
    return int(takes)


def take_paths(path: Path, takes: int) -> list[Path]:
    """The names of the takes: ``out.mp4``, or ``out.take1.mp4``, ``out.take2.mp4``, ..."""
    if takes == 1:
        return [path]
    return [path.with_name(f"{path.stem}.take{number}{path.suffix}") for number in range(1, takes + 1)]


def takes_of(make: Callable[[int], AnyTake], seeds: Sequence[int]) -> Generation[AnyTake]:
    """A take for each seed."""
    return Generation([make(seed) for seed in seeds])
