"""Generation: a video that is computed while it is looked at or saved."""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, overload

import numpy as np

from talkface._version import __version__

if TYPE_CHECKING:
    from talkface.face.motion import FaceMotion


class Generation:
    """A video, computed while it is iterated or saved and not before; memory does not grow with its length.

    Args:
        frames: Begins the computation: gives an iterator of (H, W, 3) uint8 RGB frames.
        frame_count: How many frames it gives.
        fps: Frames a second.
        size: Width and height in pixels.
        audio: The file with the sound.
        seed: What the random choices were drawn from.
        provenance: What made the video: model, settings and the like, for the container's metadata.
        motion: Gives the motion of the frames so far, or None.

    Attributes:
        frame_count, fps, size, audio, seed, provenance: As given; ``fps`` as float.
    """

    def __init__(
        self,
        frames: Callable[[], Iterator[np.ndarray]],
        frame_count: int,
        fps: float | Fraction,
        size: tuple[int, int],
        audio: str | Path | None,
        seed: int,
        provenance: dict[str, str] | None = None,
        motion: "Callable[[], FaceMotion | None] | None" = None,
    ) -> None:
        self.frame_count, self.fps, self.size, self.seed = frame_count, float(fps), size, seed
        self.audio = Path(audio) if audio is not None else None
        self.provenance = {
            "version": __version__,
            **(provenance or {}),
            "seed": str(seed),
            "synthetic": "true",
        }
        self._exact_fps, self._frames, self._motion = fps, frames, motion

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._frames()

    def __len__(self) -> int:
        return self.frame_count

    @property
    def duration(self) -> float:
        """Seconds."""
        return float(self.frame_count / self._exact_fps)

    @property
    def motion(self) -> "FaceMotion | None":
        """The motion of the frames that have been computed; None before the first."""
        return self._motion() if self._motion else None

    def save(
        self,
        path: str | Path,
        overwrite: bool = False,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Path:
        """Compute the video and write it, with its sound and with a note that it is synthetic.

        Args:
            path: The file: ``.mp4``, ``.mov``, ``.mkv`` or ``.webm``.
            overwrite: Replace an existing file.
            progress: Called as ``progress("frames", done, total)`` after each frame, and before it as
                ``progress("motion", done, total)`` when the motion has come further.

        Returns:
            The path.

        Raises:
            OutputError: The file exists or cannot be written; found before anything is computed, if possible.
            TalkfaceError: What is wrong with the input.
        """
        from talkface.media.video import VideoWriter

        with VideoWriter(
            path, self.size, self._exact_fps, self.audio, metadata=self._metadata(), overwrite=overwrite
        ) as writer:
            moved = 0
            for done, frame in enumerate(self, start=1):
                writer.write(frame)
                if not progress:
                    continue
                # Motion comes in stretches ahead of its frames: ask for it only where a stretch begins.
                if done > moved and (motion := self.motion) is not None:
                    moved = len(motion)
                    progress("motion", moved, self.frame_count)
                progress("frames", done, self.frame_count)
        return writer.path

    def _metadata(self) -> dict[str, str]:
        model = self.provenance.get("model", "")
        comment = f"Synthetic video, made by talkface {__version__} {model} with seed {self.seed}"
        return {**self.provenance, "comment": " ".join(comment.split())}


Take = TypeVar("Take", bound=Generation)


class Takes(Sequence[Take]):
    """Several videos of one speech; :meth:`save` writes them all."""

    def __init__(self, takes: Sequence[Take]) -> None:
        self._takes = list(takes)

    @overload
    def __getitem__(self, index: int) -> Take: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Take]: ...
    def __getitem__(self, index: int | slice) -> Take | Sequence[Take]:
        return self._takes[index]

    def __len__(self) -> int:
        return len(self._takes)

    def save(
        self,
        path: str | Path,
        overwrite: bool = False,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> list[Path]:
        """Compute and write all takes: one as ``path``, several as :func:`take_paths` names them.

        Raises:
            OutputError, TalkfaceError: As :meth:`Generation.save`; found before anything is computed, if
                possible.
        """
        from talkface.media.files import check_output

        paths = take_paths(Path(path), len(self))
        for target in paths:
            check_output(target, overwrite)
        return [take.save(target, overwrite, progress) for take, target in zip(self, paths, strict=True)]


def take_paths(path: Path, takes: int) -> list[Path]:
    """The names of the takes: ``out.mp4``, or ``out.take1.mp4``, ``out.take2.mp4``, ..."""
    if takes == 1:
        return [path]
    return [path.with_name(f"{path.stem}.take{number}{path.suffix}") for number in range(1, takes + 1)]
