"""The clock of the blinks."""

import numpy as np
import pytest
import torch

from talkface.performance.blinks import BlinkClock


@pytest.mark.parametrize("pieces", [1, 7, 50])
def test_blinks_come_at_a_human_rate_and_close_the_eyes(pieces: int) -> None:
    minutes = 4
    open_eyes = np.ones(minutes * 60 * 25)

    def blinks(rate: float) -> np.ndarray:
        clock = BlinkClock(torch.Generator().manual_seed(3), rate)
        return np.concatenate([clock(part) for part in np.array_split(open_eyes, pieces)])

    def count(openness: np.ndarray) -> int:
        return int(((openness[1:] < 0.3) & (openness[:-1] >= 0.3)).sum())

    natural = blinks(1.0)
    assert 8 * minutes < count(natural) < 30 * minutes
    assert natural.min() == 0.0
    np.testing.assert_array_equal(natural, BlinkClock(torch.Generator().manual_seed(3))(open_eyes))
    assert count(blinks(2.0)) > 1.4 * count(natural)
    assert count(blinks(0.0)) == 0


def test_a_blink_of_the_prior_is_not_doubled() -> None:
    openness = np.ones(2000)
    openness[::50] = 0.1
    clock = BlinkClock(torch.Generator().manual_seed(0))
    closed = clock(openness) < 0.3
    assert (closed[1:] & ~closed[:-1]).sum() <= 50, "40 are the prior's own; few fall into its pauses of 2 s"
