"""Reference frames: a few pictures of the person's mouth, as different as the video shows them."""

from dataclasses import dataclass

import numpy as np

# Units in which frames are compared: opening, width and jaw in canonical units, rotation in radians.
_SHAPE = np.array([0.06, 0.05, 0.06], np.float32)
_POSE = 0.2
_LOYALTY = 0.25  # how much nearer another reference must be before it takes over: spares the eye the change
_ANEW = 2.0  # seconds after which that ends, so that what is chosen does not depend on all that came before


def features(shape: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Mouths (T, 3) and rotation vectors (T, 3), radians, in comparable units, (T, 6)."""
    return np.concatenate([shape / _SHAPE, rotation / _POSE], -1).astype(np.float32)


def spread(candidates: np.ndarray, count: int) -> np.ndarray:
    """Choose up to ``count`` of (N, F) that lie far from each other, (K,) ascending indices.

    The first is the one with the smallest opening: the closed mouth.
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
        apart: seconds that a reference must be away from the frame: what is to be redrawn is not looked at.
    """

    bank: np.ndarray
    times: np.ndarray
    count: int
    apart: float = 0.12

    def __post_init__(self) -> None:
        self._last: list[int] = []
        self._term = -1

    def __call__(self, wanted: np.ndarray, time: float) -> list[int]:
        """The ``count`` references nearest to ``wanted`` (F,), nearest first; repeated if too few."""
        if int(time / _ANEW) != self._term:
            self._last, self._term = [], int(time / _ANEW)
        distance = np.linalg.norm(self.bank - wanted, axis=1)
        distance[np.abs(self.times - time) < self.apart] += 100.0
        distance[self._last] -= _LOYALTY
        order = [int(k) for k in np.argsort(distance)[: self.count]]
        self._last = order
        return (order * self.count)[: self.count]
