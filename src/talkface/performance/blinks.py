"""The blink clock: adds most of the blinks of a performance (ours, not the paper's).

Blinks are rare and short, and clips of a few seconds teach the diffusion prior little about how often they
come. What lid motion it draws is kept. Where the eyes have stayed open for longer than a drawn interval, the
clock adds a blink: its time is drawn from the seed, its course is the median one of the training clips.
"""

import math

import numpy as np
import torch

#: Openness of the lids over one blink at 25 fps, 1 open and 0 closed: the clips' median, made to close fully.
COURSE = np.array([0.94, 0.42, 0.0, 0.22, 0.64, 0.79, 0.85, 0.89, 0.93])
#: Log-normal intervals between blinks, seconds: about 17 a minute, as people blink while they talk.
MEDIAN_INTERVAL, SPREAD = 3.2, 0.5
_CLOSED = 0.4  # openness below which the prior's own motion counts as a blink
_NO_BLINKS = 0.75  # least openness where blinks are switched off


class BlinkClock:
    """Adds blinks to a stream of lid openness.

    Args:
        generator: the seed's randomness, on the CPU.
        rate: 1 is natural, 2 twice as many, 0 none.
        fps: frames per second.
    """

    def __init__(self, generator: torch.Generator, rate: float = 1.0, fps: float = 25.0) -> None:
        self.generator, self.rate, self.fps = generator, rate, fps
        self._frame = 0
        self._start = math.inf
        self._plan(0, float(torch.rand((), generator=generator)))  # the stream begins between two blinks

    def _plan(self, frame: int, share: float = 1.0) -> None:
        """Draw when the next blink begins: after a ``share`` of an interval, counted from ``frame``."""
        if self.rate > 0:
            normal = float(torch.randn((), generator=self.generator))
            seconds = share * MEDIAN_INTERVAL * math.exp(SPREAD * normal) / self.rate
            shortest = 0 if share < 1 else len(COURSE) + 2
            self._start = frame + max(round(seconds * self.fps), shortest)

    def __call__(self, openness: np.ndarray) -> np.ndarray:
        """Add blinks to the next T frames.

        Args:
            openness: (T,) of the lids, 1 open and 0 closed.

        Returns:
            (T,) openness with blinks; at rate 0 the lids stay open.
        """
        out: np.ndarray = np.maximum(openness, _NO_BLINKS) if self.rate == 0 else openness.copy()
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
