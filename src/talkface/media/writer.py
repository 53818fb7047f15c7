"""What writers of video share: the target is checked first, and a partial file never takes its name."""

from abc import ABC, abstractmethod
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import av
import numpy as np
from av.container import OutputContainer

from talkface.errors import OutputError
from talkface.media.encode import CODECS
from talkface.media.files import MEDIA_ERRORS, check_output, output_error
from talkface.media.rate import exact_fps


class FrameWriter(ABC):
    """Writes a video frame by frame; leaving ``with`` finishes the file, or removes it after an exception.

    Args:
        path: The file.
        fps: Frames a second; 23.976 and its like are taken for the exact fraction.
        overwrite: Replace an existing file.

    Attributes:
        path: The file.
        fps: Frames a second, the exact fraction.
        frames: How many frames there are now.

    Raises:
        OutputError: The file exists, cannot be written, or has no suffix of a video that can be written.
    """

    def __init__(self, path: str | Path, fps: float | Fraction, overwrite: bool) -> None:
        self.path = check_video_output(path, overwrite)
        self.fps = exact_fps(fps)
        self.frames = 0

    def write(self, image: np.ndarray, time: float | None = None) -> None:
        """Add a frame.

        Args:
            image: (H, W, 3) uint8 RGB.
            time: Seconds at which it begins; by default a mean frame after the one before. Where the rate is
                constant, the nearest multiple of ``1 / fps`` is meant.

        Raises:
            OutputError: The disk is full or the like.
            ValueError: The image has another size or type.
        """
        try:
            self._write(image, time)
        except MEDIA_ERRORS as error:
            raise output_error(self.path, error) from error

    def close(self) -> None:
        """Finish the file and give it its name.

        Raises:
            OutputError: There are no frames, or the disk is full or the like.
        """
        try:
            if not self.frames:
                raise OutputError(f"{self.path} is not written: there are no frames")
            self._finish()
        except MEDIA_ERRORS as error:
            failure = output_error(self.path, error)
            self._abandon(failure)
            raise failure from error
        except BaseException as error:
            self._abandon(error)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        if error is None:
            self.close()
        else:
            self._abandon(error)
        return False

    @abstractmethod
    def _write(self, image: np.ndarray, time: float | None) -> None:
        """Encode a frame and count it."""

    @abstractmethod
    def _finish(self) -> None:
        """Complete the file and give it its name."""

    @abstractmethod
    def _abandon(self, error: BaseException) -> None:
        """Remove what has been written."""


def discard(container: OutputContainer, partial: Path) -> None:
    """Close a file that will not be completed, and remove it."""
    # Removed before it is closed, a large file is not rearranged first, which would take long.
    for attempt in (partial.unlink, container.close, partial.unlink):
        with suppress(*MEDIA_ERRORS, ValueError):
            attempt()


def open_output(path: Path, partial: Path) -> OutputContainer:
    """Open a partial file as what ``path`` is to become.

    Raises:
        OSError: The file cannot be written.
    """
    # The index goes to the front, for players that start before the end has come; own keys survive.
    mp4 = path.suffix.lower() in (".mp4", ".m4v", ".mov")
    options = {"movflags": "+faststart+use_metadata_tags"} if mp4 else {}
    return av.open(str(partial.absolute()), "w", options=options)


def check_video_output(path: str | Path, overwrite: bool = False) -> Path:
    """The path of a video that may be written.

    Raises:
        OutputError: It exists and ``overwrite`` is not set, cannot be written, or is no video we write.
    """
    path = Path(path)
    if path.suffix.lower() not in CODECS and not path.is_dir():
        raise OutputError(f"{path} is no video we can write; end it in {', '.join(CODECS)}")
    return check_output(path, overwrite)
