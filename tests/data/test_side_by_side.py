"""Work that several processes share."""

import numpy as np
import pytest

from talkface.data.parallel import parallel_map


@pytest.mark.parametrize("workers", [0, 2])
def test_side_by_side_keeps_the_order(workers: int) -> None:
    found = list(parallel_map(lambda k: (k, np.full(2, k)), range(7), workers))
    assert [k for k, _ in found] == list(range(7))
    assert all((values == k).all() for k, values in found)
