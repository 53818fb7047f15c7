"""Batches drawn ahead of the step that uses them: in a thread, or in as many processes as a GPU needs."""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from talkface.data.parallel import FORKED, forked
from talkface.media.prefetch import prefetched

BATCHES_AHEAD = 2  # of each process that draws

Batch: TypeAlias = Any
"""What a step is given: arrays or tensors in dicts, lists or tuples, laid out as each task likes."""

Draw = Callable[[np.random.Generator], Batch]
"""Draws one batch: numpy arrays or tensors of the CPU, in dicts, lists and tuples."""


def drawn(draw: Draw, generator: np.random.Generator, workers: int = 0) -> Iterator[Batch]:
    """Endless batches of a function, in one order whatever the processors' speed.

    Args:
        draw: must not touch a GPU where there are workers.
        generator: what is drawn from; each worker has a child of it.
        workers: processes that draw; with 0, a thread draws ahead.
    """
    if not workers:
        return prefetched(_endless(draw, generator))
    batches = _Batches(draw, generator.spawn(workers))
    return forked(DataLoader(batches, num_workers=workers, prefetch_factor=BATCHES_AHEAD, **FORKED))


def to_device(batch: Batch, device: torch.device | str) -> Batch:
    """The same batch on a device: arrays become tensors, and tensors of the CPU are moved."""
    if isinstance(batch, dict):
        return {name: to_device(part, device) for name, part in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(to_device(part, device) for part in batch)
    tensor = torch.from_numpy(batch) if isinstance(batch, np.ndarray) else batch
    return tensor.to(device, non_blocking=True) if isinstance(tensor, torch.Tensor) else tensor


def _endless(draw: Draw, generator: np.random.Generator) -> Iterator[Batch]:
    while True:
        yield draw(generator)


class _Batches(IterableDataset[Any]):
    """What each worker draws, from its own generator."""

    def __init__(self, draw: Draw, generators: list[np.random.Generator]) -> None:
        self.draw, self.generators = draw, generators

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        assert worker is not None  # it is only read by workers
        return _endless(self.draw, self.generators[worker.id])
