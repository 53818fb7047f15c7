"""Threads of a stage among others."""

from contextlib import suppress

import torch

from talkface.nn.threads import shared_cores


def test_threads_come_back_from_where_cores_are_shared() -> None:
    before = torch.get_num_threads()
    with shared_cores(stages=1000):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with suppress(ValueError), shared_cores():
        raise ValueError("broken")
    assert torch.get_num_threads() == before
