"""Sharing of the cores between networks that run at the same time."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def shared_cores(stages: int = 4) -> Iterator[None]:
    """Let torch use a share of its threads, at least one, in the calling thread.

    With all of them, its threads would busily wait for those that other stages keep off the cores.

    Args:
        stages: How many stages of a pipeline work at the same time.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // stages))
    try:
        yield
    finally:
        torch.set_num_threads(before)
