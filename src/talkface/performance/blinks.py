"""Blinks that the prior leaves out (ours, not the paper's).

Blinks are rare and short, and clips of a few seconds teach a prior little about how often they come. What it
draws is kept and completed; where the eyes have stayed open for longer than people's do, a blink is added
whose time is drawn from the seed and whose course is the mean of the training clips' blinks.
"""

import math

import numpy as np
import torch

#: Openness of the lids over one blink at 25 fps: median course of the training clips' blinks, made to close.
COURSE = np.array([0.94, 0.42, 0.0, 0.22, 0.64, 0.79, 0.85, 0.89, 0.93])
#: Log-normal intervals between blinks, seconds: about 17 a minute, as people blink while they talk.
MEDIAN_INTERVAL, SPREAD = 3.2, 0.5
_CLOSED = 0.4  # openness below which the prior's own motion counts as a blink


class BlinkClock:
    """Adds blinks to a stream of lid openness at 25 fps.

    Args:
        generator: the seed's randomness, on the CPU.
        rate: 1 is natural, 2 twice as many, 0 none.
        fps: frames per second.
    """

    def __init__(self, generator: torch.Generator, rate: float = 1.0, fps: float = 25.0) -> None:
        self.generator, self.rate, self.fps = generator, rate, fps
        self._frame = 0
        self._start = math.inf
        self._plan(0, float(torch.rand((), generator=generator)))  # somewhere between two blinks

    def _plan(self, frame: int, share: float = 1.0) -> None:
        """Draw when the next blink begins, counted from ``frame``: after a ``share`` of an interval."""
        if self.rate > 0:
            normal = float(torch.randn((), generator=self.generator))
            seconds = share * MEDIAN_INTERVAL * math.exp(SPREAD * normal) / self.rate
            shortest = 0 if share < 1 else len(COURSE) + 2
            self._start = frame + max(round(seconds * self.fps), shortest)

    def __call__(self, openness: np.ndarray) -> np.ndarray:
        """Openness (T,) of the next T frames, 1 open and 0 closed, with blinks; with none at rate 0."""
        out = np.maximum(openness, 0.75) if self.rate == 0 else openness.copy()
        for k in range(len(out)):
            frame = self._frame + k
            if self.rate > 0 and out[k] < _CLOSED and frame < self._start:
                self._plan(frame)  # the prior has blinked by itself
            position = frame - self._start
            if 0 <= position < len(COURSE):
                out[k] = min(out[k], COURSE[int(position)])
            elif position >= len(COURSE):
                self._plan(frame)
        self._frame += len(out)
        return out
