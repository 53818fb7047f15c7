"""Contact sheets of what a training draws."""

from collections.abc import Sequence

import numpy as np


def in_columns(cells: Sequence[np.ndarray], most: int = 3) -> np.ndarray:
    """Lay pictures of one size out in columns of equal height.

    Args:
        cells: (h, w, 3) each; those that do not fill a row are left out.
        most: greatest number of columns.

    Returns:
        (H, W, 3).
    """
    columns = min(most, len(cells))
    whole = cells[: len(cells) // columns * columns]
    return np.concatenate([np.concatenate(whole[k::columns], 0) for k in range(columns)], 1)
