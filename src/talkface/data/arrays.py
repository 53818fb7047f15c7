"""Arrays kept beside prepared data, written whole or not at all; and arrays that compress well."""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

Kept = TypeVar("Kept")


def keep_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write named arrays to a .npz file, in a folder that is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **arrays)  # type: ignore[arg-type]  # the stub takes a name for allow_pickle
    partial.replace(path)


def kept_arrays(kind: type[Kept], path: Path, make: Callable[[], Kept]) -> Kept:
    """A dataclass of arrays from a .npz file, made and written on first use."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # always a dataclass
    if not path.is_file():
        made: Any = make()
        keep_arrays(path, **{name: getattr(made, name) for name in names})
    with np.load(path) as arrays:
        return kind(**{name: arrays[name] for name in names})


def packed_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays as bytes that compress well: column after column, first all lower bytes, then all upper ones."""
    head = json.dumps({key: [str(array.dtype), list(array.shape)] for key, array in arrays.items()}).encode()
    parts = [len(head).to_bytes(4, "little"), head]
    for array in arrays.values():
        columns = np.ascontiguousarray(array.reshape(len(array), -1).T).view(np.uint8)
        parts.append(np.ascontiguousarray(columns.reshape(-1, array.dtype.itemsize).T).tobytes())
    return b"".join(parts)


def unpacked_arrays(data: bytes) -> dict[str, np.ndarray]:
    """The arrays that :func:`packed_arrays` made bytes of."""
    place = 4 + int.from_bytes(data[:4], "little")
    found = {}
    for key, (kind, shape) in json.loads(data[4:place]).items():
        size, count = np.dtype(kind).itemsize, int(np.prod(shape))
        part = np.frombuffer(data, np.uint8, size * count, place).reshape(size, count)
        columns = np.ascontiguousarray(part.T).view(kind).reshape(-1, shape[0])
        found[key] = np.ascontiguousarray(columns.T).reshape(shape)
        place += size * count
    return found
