"""Paths of media files: checks before the work, partial files, and errors in one line."""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import av
from av.container import InputContainer

from talkface.errors import OutputError, UnreadableMedia

logger = logging.getLogger(__name__)

MEDIA_ERRORS = (OSError, av.FFmpegError)
"""What reading and writing of media files raises."""

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
"""Suffixes of the picture files that can be written."""

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or write elsewhere",
    errno.EDQUOT: "the disk quota is used up; free some space or write elsewhere",
    errno.EFBIG: "it grows larger than this disk or process allows; write elsewhere",
    errno.EACCES: "permission is denied; write elsewhere",
    errno.EROFS: "the disk is read-only; write elsewhere",
    errno.ENAMETOOLONG: "the name is too long",
}


def check_input(path: str | Path) -> Path:
    """The path of a file that exists and holds something.

    Raises:
        UnreadableMedia: It is missing, a directory, empty or may not be read.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise UnreadableMedia(f"{path} is a directory; give a file")
        if not path.exists():
            raise UnreadableMedia(f"{path} does not exist; check the name")
        if path.stat().st_size == 0 and path.is_file():
            raise UnreadableMedia(f"{path} is empty (0 bytes); get the file again")
        with path.open("rb"):
            return path
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        reason = error.strerror if isinstance(error, OSError) else error
        raise UnreadableMedia(f"{path} cannot be read: {reason}") from error


def check_output(path: str | Path, overwrite: bool = False) -> Path:
    """The path of a file that may be written.

    Raises:
        OutputError: It exists and ``overwrite`` is not set, is a directory, or lies in no writable directory.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise OutputError(f"{path} is a directory; give the name of a file")
        if path.exists() and not overwrite:
            raise OutputError(f"{path} exists already; choose another name, or set overwrite to replace it")
        if not path.parent.is_dir():
            raise OutputError(f"{path} cannot be written: there is no directory {path.parent}; make it first")
        # Trying is the only sure test: permissions lie to root and on network disks.
        trial = partial_path(path)
        trial.open("ab").close()
        trial.unlink()
    except (OSError, ValueError) as error:
        raise output_error(path, error) from error
    return path


def check_picture_name(path: Path) -> None:
    """Check that a file has the suffix of a picture.

    Raises:
        OutputError: It has not.
    """
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise OutputError(f"{path} is no name of a picture; choose {', '.join(PICTURE_SUFFIXES)}")


def partial_path(path: Path) -> Path:
    """Where a file grows until it is complete: beside its target, with the same suffix."""
    return path.with_name(f".{path.stem}.partial{path.suffix}")


def output_error(path: Path, error: Exception) -> OutputError:
    """Say in one line why a file could not be written."""
    number = getattr(error, "errno", None)
    reason = _REASONS.get(number or 0) or getattr(error, "strerror", None) or str(error)
    return OutputError(f"{path} cannot be written: {reason}")


@contextmanager
def replacing(path: str | Path, overwrite: bool = True) -> Iterator[Path]:
    """Give a partial file to write, which takes the place of ``path`` at the end, or goes after an error.

    Raises:
        OutputError: The file cannot be written.
    """
    path = check_output(path, overwrite)
    partial = partial_path(path)
    try:
        yield partial
        partial.replace(path)
    except MEDIA_ERRORS as error:
        raise output_error(path, error) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def open_media(path: str | Path) -> InputContainer:
    """Open a sound or video file; close it after use.

    Raises:
        UnreadableMedia: There is no such file, or it is neither sound nor video.
    """
    path = check_input(path)
    try:
        # An absolute path is never taken for a URL, and a playlist may not reach out to the network.
        return av.open(
            str(path.absolute()), metadata_errors="replace", container_options={"protocol_whitelist": "file"}
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UnreadableMedia(
            f"{path} is no sound or video file that can be read: it is damaged, cut off or of another kind"
        ) from error


def is_picture(path: Path) -> bool:
    """Whether a file is a still picture."""
    from PIL import Image

    try:
        with Image.open(path):
            return True
    except Exception:  # Pillow's readers raise errors of many kinds on foreign data
        return False
