"""Reference frames: which are kept of a person, and which are shown to the generator for each frame."""

from dataclasses import dataclass

import numpy as np

_SHAPE_UNITS = np.array([0.06, 0.05, 0.06], np.float32)  # opening, width and jaw, canonical units
_POSE_UNIT = 0.2  # radians
_HYSTERESIS = 0.25  # how much nearer another reference must be to replace the last one: changes are visible
_FORGET_AFTER = 2.0  # seconds after which the last choice is forgotten: a resumed run then chooses the same


def features(shape: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """What frames are compared by (T, 6): mouth shapes and rotation vectors (T, 3) in like units."""
    return np.concatenate([shape / _SHAPE_UNITS, rotation / _POSE_UNIT], -1).astype(np.float32)


def spread(candidates: np.ndarray, count: int) -> np.ndarray:
    """Choose candidates that lie far from each other; the one with the smallest opening is among them.

    Args:
        candidates: (N, F) features.
        count: at most so many.

    Returns:
        (K,) ascending indices.
    """
    chosen = [int(candidates[:, 0].argmin())]
    apart = np.linalg.norm(candidates - candidates[chosen[0]], axis=1)
    while len(chosen) < min(count, len(candidates)) and apart.max() > 1e-3:
        chosen.append(int(apart.argmax()))
        apart = np.minimum(apart, np.linalg.norm(candidates - candidates[chosen[-1]], axis=1))
    return np.array(sorted(chosen))


@dataclass
class Chooser:
    """Picks references for frame after frame.

    Args:
        bank: (K, F) features of the references.
        times: (K,) seconds at which they were seen.
        count: how many a frame is drawn from.
        apart: seconds that a reference must be away from the frame, whose own mouth must not be copied.
    """

    bank: np.ndarray
    times: np.ndarray
    count: int
    apart: float = 0.12

    def __post_init__(self) -> None:
        self._last: list[int] = []
        self._term = -1

    def __call__(self, goal: np.ndarray, time: float) -> list[int]:
        """The references nearest to the features ``goal`` (F,), nearest first; repeated if too few."""
        if int(time / _FORGET_AFTER) != self._term:
            self._last, self._term = [], int(time / _FORGET_AFTER)
        distance = np.linalg.norm(self.bank - goal, axis=1)
        distance[np.abs(self.times - time) < self.apart] += 100.0
        distance[self._last] -= _HYSTERESIS
        order = [int(k) for k in np.argsort(distance)[: self.count]]
        self._last = order
        return (order * self.count)[: self.count]
