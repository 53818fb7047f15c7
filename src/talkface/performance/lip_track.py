"""What the speech wants at the time of any frame: the lip path and the features, looked up as a stream."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from talkface.performance.config import FRAME_RATE, SPEECH_WINDOW
from talkface.performance.lips import Spoken

_KEPT = 2 * SPEECH_WINDOW  # frames before the present one that may still be asked for


@dataclass(frozen=True)
class Wanted:
    """What lips are to do at one moment.

    Attributes:
        beta_mouth: (M,).
        gate: 0 where nobody speaks to 1.
        content: (2 * SPEECH_WINDOW, C) content features around the moment.
        level: (2 * SPEECH_WINDOW,) dB below the loudest.
    """

    beta_mouth: np.ndarray
    gate: float
    content: np.ndarray
    level: np.ndarray


class LipTrack:
    """Looks up a stream of stretches by time; times must not go back by more than a few frames.

    Beyond its end the mouth is closed and nothing is heard.
    """

    def __init__(self, stretches: Iterator[Spoken]) -> None:
        self._stretches = stretches
        self._first = 0  # frame at which what is held begins
        self._beta = np.zeros((0, 0), np.float32)
        self._gate = np.zeros(0, np.float32)
        self._content = np.zeros((0, 0), np.float32)
        self._level = np.zeros(0, np.float32)
        self._ended = False

    def at(self, time: float) -> Wanted:
        """What is wanted ``time`` seconds after the speech began."""
        place = max(0.0, time * FRAME_RATE)
        self._fetch(int(place))
        nearest = int(place + 0.5)  # not of what is left of it, which depends on what was forgotten
        place -= self._first
        low, share = int(place), place - int(place)
        beta = (1 - share) * self._frame(self._beta, low) + share * self._frame(self._beta, low + 1)
        gate = (1 - share) * self._frame(self._gate, low) + share * self._frame(self._gate, low + 1)
        around = 2 * (nearest - self._first) + np.arange(-SPEECH_WINDOW + 1, SPEECH_WINDOW + 1)
        inside = np.clip(around, 0, len(self._level) - 1)
        silent = around >= len(self._level)
        level = np.where(silent, -60.0, self._level[inside])
        return Wanted(beta, float(gate), self._content[inside], level.astype(np.float32))

    def _frame(self, values: np.ndarray, index: int) -> np.ndarray:
        """One frame; at rest behind the end."""
        return values[index] if index < len(values) else np.zeros_like(values[0])

    def _fetch(self, frame: int) -> None:
        """Have what is around a frame; what is passed over on the way is not kept."""
        while not self._ended and self._first + len(self._gate) <= frame + 2 * SPEECH_WINDOW:
            spoken = next(self._stretches, None)
            if spoken is None:
                self._ended = True
                break
            content = spoken.content.numpy()
            empty = not len(self._gate)
            self._beta = spoken.beta_mouth if empty else np.concatenate([self._beta, spoken.beta_mouth])
            self._content = content if empty else np.concatenate([self._content, content])
            self._gate = np.concatenate([self._gate, spoken.gate])
            self._level = np.concatenate([self._level, spoken.level.numpy()])
            self._forget(frame - _KEPT)
        self._forget(frame - _KEPT)

    def _forget(self, frame: int) -> None:
        """Let go of what came before ``frame``, but never of everything."""
        drop = min(frame - self._first, len(self._gate) - 2 * SPEECH_WINDOW)
        if drop > 100:  # not at every step: arrays are copied
            self._beta, self._gate = self._beta[drop:], self._gate[drop:]
            self._content, self._level = self._content[2 * drop :], self._level[2 * drop :]
            self._first += drop
