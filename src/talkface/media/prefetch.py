"""Items computed ahead of their reader, in a thread."""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def prefetched(items: Iterable[T], depth: int = 2) -> Generator[T, None, None]:
    """The same items in the same order, computed in a thread up to ``depth`` ahead, beginning at once.

    An error is raised where its item would have come. When the reader stops, the thread ends after the item
    it is computing.
    """
    source, end = iter(items), object()
    worker = ThreadPoolExecutor(1)
    following: deque[Any] = deque(worker.submit(next, source, end) for _ in range(depth))

    def read() -> Generator[T, None, None]:
        with worker:
            try:
                while (item := following.popleft().result()) is not end:
                    following.append(worker.submit(next, source, end))
                    yield item
            finally:
                for waiting in following:
                    waiting.cancel()

    return read()
