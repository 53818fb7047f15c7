"""Where the shots of a video begin: hard cuts, found in a stream."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from talkface.media.decode import Frame

_GRID = (16, 12)  # blocks across and down
_RETURN = 2  # frames after which a flash has gone
CHANGE = 0.06  # least difference at a cut, of 1
_RATIO = 3.0  # of the difference at a cut to that of the frames before


def number_shots(frames: "Iterable[Frame]") -> "Iterator[tuple[Frame, int]]":
    """Give every frame back with the number of its shot, counted from 0; two frames behind the source.

    A cut is a change that is large, much larger than those just before, and not undone two frames later:
    flashes, camera motion and somebody walking past are none. Fades have no cut.
    """
    waiting: deque[tuple[Frame, np.ndarray]] = deque()
    last: np.ndarray | None = None
    shot, usual = 0, 0.0

    def step() -> "tuple[Frame, int]":
        nonlocal last, shot, usual
        frame, here = waiting.popleft()
        if last is not None:
            change = difference(last, here)
            after = [difference(last, later) for _, later in waiting]
            if min([change, *after]) > max(CHANGE, _RATIO * usual):
                shot, usual = shot + 1, 0.0
            else:
                usual = max(0.7 * usual, change)
        last = here
        return frame, shot

    for frame in frames:
        waiting.append((frame, blocks(frame.image)))
        if len(waiting) > _RETURN:
            yield step()
    while waiting:
        yield step()


def blocks(image: np.ndarray) -> np.ndarray:
    """Mean colours (12, 16, 3) float32 in 0 to 1, of a few pixels of each block."""
    height, width = image.shape[:2]
    step = max(1, min(height // (4 * _GRID[1]), width // (4 * _GRID[0])))
    sparse = np.ascontiguousarray(image[::step, ::step])
    return cv2.resize(sparse, _GRID, interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """How much two pictures differ, 0 to 1: mean of the blocks' changes, the largest channel's each."""
    return float(np.abs(a - b).max(-1).mean())
