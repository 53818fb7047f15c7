"""Work on many items in several processes, where there are processors for it; results keep their order."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from torch.utils.data import DataLoader, Dataset

Item = TypeVar("Item")
Result = TypeVar("Result")

_FEW, _MOST = 4, 32  # processors: with fewer, processes of their own cost more than they give


def parallel_map(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int | None = None
) -> Iterator[Result]:
    """Results of a function for each item, in order.

    Args:
        function: must not touch a GPU; what it changes is lost.
        items: any.
        workers: processes; as many as suit the machine unless told, and with 0 none but this one.
    """
    if workers is None:
        processors = os.cpu_count() or 1
        workers = min(processors - 1, _MOST) if processors >= _FEW else 0
    if not workers:
        return map(function, items)
    count = min(workers, max(1, len(items)))
    return forked(DataLoader(_Made(function, items), num_workers=count, collate_fn=_as_it_is, **FORKED))


FORKED: dict[str, Any] = {"batch_size": None, "multiprocessing_context": "fork"}
"""Arguments of a loader whose processes share what its data set has loaded."""


def forked(loader: DataLoader[Any]) -> Iterator[Any]:
    """Start a loader's processes while OpenCV has no threads.

    A forked process has one thread only and would wait for OpenCV's others for ever.
    """
    import cv2

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return iter(loader)
    finally:
        cv2.setNumThreads(threads)


class _Made(Dataset[Any]):
    def __init__(self, function: Callable[[Any], Any], items: Sequence[Any]) -> None:
        self.function, self.items = function, items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:  # noqa: ANN401 - whatever the function makes
        return self.function(self.items[index])


def _as_it_is(result: Result) -> Result:
    return result
