"""Lip motion and speech features by time: a stream of stretches, looked up at the time of any video frame."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from talkface.performance.config import FRAME_RATE, SPEECH_WINDOW
from talkface.performance.lips import SpokenLips

_KEPT = 2 * SPEECH_WINDOW  # frames before the latest one that may still be asked for
_SILENCE = -60.0  # dB, the level after the end


@dataclass(frozen=True)
class LipTarget:
    """What the lips are to do at one moment, and the speech around it.

    Attributes:
        beta_mouth: (M,) coefficients of lips and jaw.
        gate: the voice gate, 0 where nobody speaks to 1.
        content: (2 * SPEECH_WINDOW, C) content features around the moment.
        level: (2 * SPEECH_WINDOW,) dB relative to the loudest sound.
    """

    beta_mouth: np.ndarray
    gate: float
    content: np.ndarray
    level: np.ndarray


class LipTrack:
    """Looks up a stream of stretches by time.

    Times must not go back by more than ten frames: earlier ones are forgotten. After the end of the speech
    the mouth is closed and the sound is silence.

    Args:
        stretches: consecutive, from the beginning of the speech.
    """

    def __init__(self, stretches: Iterator[SpokenLips]) -> None:
        self._stretches = stretches
        self._first = 0  # number of the first frame that is kept
        self._beta = np.zeros((0, 0), np.float32)
        self._gate = np.zeros(0, np.float32)
        self._content = np.zeros((0, 0), np.float32)
        self._level = np.zeros(0, np.float32)
        self._ended = False

    def at(self, time: float) -> LipTarget:
        """The target ``time`` seconds after the speech began."""
        place = max(0.0, time * FRAME_RATE)
        self._fetch(int(place))
        nearest = int(place + 0.5)  # before _first is taken off: rounding must not depend on what is kept
        place -= self._first
        low, share = int(place), place - int(place)
        beta = (1 - share) * self._frame(self._beta, low) + share * self._frame(self._beta, low + 1)
        gate = (1 - share) * self._frame(self._gate, low) + share * self._frame(self._gate, low + 1)
        around = 2 * (nearest - self._first) + np.arange(-SPEECH_WINDOW + 1, SPEECH_WINDOW + 1)
        inside = np.clip(around, 0, len(self._level) - 1)
        silent = around >= len(self._level)
        level = np.where(silent, _SILENCE, self._level[inside])
        return LipTarget(beta, float(gate), self._content[inside], level.astype(np.float32))

    def _frame(self, values: np.ndarray, index: int) -> np.ndarray:
        """One frame; zeros after the end."""
        return values[index] if index < len(values) else np.zeros_like(values[0])

    def _fetch(self, frame: int) -> None:
        """Read stretches up to some frames after ``frame``, and forget what lies well before it."""
        while not self._ended and self._first + len(self._gate) <= frame + 2 * SPEECH_WINDOW:
            stretch = next(self._stretches, None)
            if stretch is None:
                self._ended = True
                break
            content = stretch.content.numpy()
            empty = not len(self._gate)
            self._beta = stretch.beta_mouth if empty else np.concatenate([self._beta, stretch.beta_mouth])
            self._content = content if empty else np.concatenate([self._content, content])
            self._gate = np.concatenate([self._gate, stretch.gate])
            self._level = np.concatenate([self._level, stretch.level.numpy()])
            self._forget(frame - _KEPT)
        self._forget(frame - _KEPT)

    def _forget(self, frame: int) -> None:
        """Forget what came before ``frame``, but keep the last frames in any case."""
        drop = min(frame - self._first, len(self._gate) - 2 * SPEECH_WINDOW)
        if drop > 100:  # not at every step: arrays are copied
            self._beta, self._gate = self._beta[drop:], self._gate[drop:]
            self._content, self._level = self._content[2 * drop :], self._level[2 * drop :]
            self._first += drop
