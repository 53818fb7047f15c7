"""Batches drawn ahead of the step that uses them: in a thread, or in as many processes as a GPU needs."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from talkface.data.side_by_side import FORKED, forked
from talkface.media.prefetch import prefetched

AHEAD = 2  # batches of each process

Draw = Callable[[np.random.Generator], Any]
"""Draws one batch: numpy arrays or tensors of the CPU, in dicts, lists and tuples."""


def drawn(draw: Draw, generator: np.random.Generator, workers: int = 0) -> Iterator[Any]:
    """Endless batches of a function, in one order whatever the processors' speed.

    Args:
        draw: must not touch a GPU where there are workers.
        generator: what is drawn from; workers have children of it.
        workers: processes; with none, a thread draws ahead.
    """
    if not workers:
        return prefetched(_endless(draw, generator))
    batches = _Batches(draw, generator.spawn(workers))
    return forked(DataLoader(batches, num_workers=workers, prefetch_factor=AHEAD, **FORKED))


def to_device(batch: Any, device: torch.device) -> Any:
    """The same batch with tensors of a device in place of arrays and of tensors of the CPU."""
    if isinstance(batch, dict):
        return {name: to_device(part, device) for name, part in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(to_device(part, device) for part in batch)
    tensor = torch.from_numpy(batch) if isinstance(batch, np.ndarray) else batch
    return tensor.to(device, non_blocking=True) if isinstance(tensor, torch.Tensor) else tensor


def _endless(draw: Draw, generator: np.random.Generator) -> Iterator[Any]:
    while True:
        yield draw(generator)


class _Batches(IterableDataset[Any]):
    """What each worker draws, from its own generator."""

    def __init__(self, draw: Draw, generators: list[np.random.Generator]) -> None:
        self.draw, self.generators = draw, generators

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        assert worker is not None  # it is only read by workers
        return _endless(self.draw, self.generators[worker.id])
