"""Files of the hub: hashes, atomic writes, and the cache of fetched models."""

import hashlib
import os
from pathlib import Path


def cache_directory() -> Path:
    """Where fetched models are kept: ``TALKFACE_CACHE``, else ``talkface`` in the user's cache directory."""
    if chosen := os.environ.get("TALKFACE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "talkface"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_size(file: Path) -> int:
    """Bytes of a file; 0 if there is none."""
    try:
        return file.stat().st_size if file.is_file() else 0
    except OSError:  # pip removed it meanwhile
        return 0


def write_atomically(path: Path, data: bytes) -> None:
    """Other processes see the old file or the whole new one, never a part."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def one_line(error: object) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())
