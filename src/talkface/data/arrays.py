"""Arrays kept beside prepared data, written whole or not at all."""

from pathlib import Path

import numpy as np


def keep_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write named arrays to a .npz file, in a folder that is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **arrays)  # type: ignore[arg-type]
    partial.replace(path)
