"""Arrays kept beside prepared data, written whole or not at all."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

Kept = TypeVar("Kept")


def keep_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write named arrays to a .npz file, in a folder that is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **arrays)  # type: ignore[arg-type]
    partial.replace(path)


def kept_arrays(kind: type[Kept], path: Path, make: Callable[[], Kept]) -> Kept:
    """A dataclass of arrays from a .npz file, made and written on first use."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    if not path.is_file():
        made: Any = make()
        keep_arrays(path, **{name: getattr(made, name) for name in names})
    with np.load(path) as arrays:
        return kind(**{name: arrays[name] for name in names})
