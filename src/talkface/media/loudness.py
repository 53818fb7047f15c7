"""How loud sound is (ITU-R BS.1770), and a limiter for what is too loud."""

from functools import lru_cache

import numpy as np

SILENT_LUFS = -70.0
"""Loudness of silence: the absolute gate of BS.1770."""


class LoudnessMeter:
    """Gated loudness after ITU-R BS.1770-4 of 16 kHz mono sound, given piece by piece.

    The power of each block of 0.4 s is weighted in the frequency domain, where the K filter is a curve.
    What lies above 8 kHz does not count.
    """

    _RATE, _BLOCK, _HOP = 16000, 6400, 1600

    def __init__(self) -> None:
        self._waiting: list[np.ndarray] = []
        self._powers: list[float] = []

    def push(self, samples: np.ndarray) -> None:
        """Take (N,) more samples."""
        self._waiting.append(samples)
        if sum(map(len, self._waiting)) >= 4 * self._BLOCK:  # several blocks at once are faster
            self._measure()

    def _measure(self) -> None:
        held = np.concatenate([np.zeros(0, np.float32), *self._waiting])
        if len(held) >= self._BLOCK:
            blocks = np.lib.stride_tricks.sliding_window_view(held, self._BLOCK)[:: self._HOP]
            self._powers += _weighted_power(blocks, np.hanning(self._BLOCK)).tolist()
            held = held[len(blocks) * self._HOP :]
        self._waiting = [held]

    def loudness(self) -> float:
        """Loudness so far in LUFS, at least -70."""
        self._measure()
        powers, rest = np.array(self._powers), self._waiting[0]
        if not len(powers) and len(rest):  # shorter than one block
            powers = _weighted_power(rest[None], np.ones(len(rest)))
        powers = powers[_lufs(powers) > SILENT_LUFS]
        if not len(powers):
            return SILENT_LUFS
        powers = powers[_lufs(powers) > _lufs(powers.mean()) - 10]  # 10 LU below what the first gate let pass
        return float(_lufs(powers.mean()))


def _weighted_power(blocks: np.ndarray, window: np.ndarray) -> np.ndarray:
    """K-weighted mean square (B,) of blocks (B, N) of 16 kHz sound."""
    size = blocks.shape[1]
    spectrum = np.abs(np.fft.rfft(blocks * window)) ** 2
    power: np.ndarray = spectrum @ _curve(size) / (size * (window**2).sum())
    return power


@lru_cache(maxsize=2)
def _curve(size: int) -> np.ndarray:
    """K weights of the bins of a real spectrum, where each bin but the outermost counts twice."""
    both_sides = np.full(size // 2 + 1, 2.0)
    both_sides[0] = 1.0
    if size % 2 == 0:
        both_sides[-1] = 1.0
    weights: np.ndarray = both_sides * _k_weighting(np.fft.rfftfreq(size, 1 / 16000))
    return weights


def _k_weighting(hertz: np.ndarray) -> np.ndarray:
    """Squared gain of the K filter: a shelf for the head, then a high-pass (BS.1770-4, given for 48 kHz)."""
    z = np.exp(-2j * np.pi * hertz / 48000)
    shelf = np.polyval([1.19839281085285, -2.69169618940638, 1.53512485958697], z)
    shelf /= np.polyval([0.73248077421585, -1.69065929318241, 1.0], z)
    high_pass = (1 - z) ** 2 / np.polyval([0.99007225036621, -1.99004745483398, 1.0], z)
    gain: np.ndarray = np.abs(shelf * high_pass) ** 2
    return gain


def _lufs(power: np.ndarray) -> np.ndarray:
    loudness: np.ndarray = -0.691 + 10 * np.log10(np.maximum(power, 1e-12))
    return loudness


class Limiter:
    """Turns sound down smoothly around samples above 1, looking ahead, so that nothing is clipped."""

    _REACH = 0.01  # seconds before and after a peak within which the gain changes

    def __init__(self, rate: int, channels: int) -> None:
        self._reach = max(1, round(self._REACH * rate))
        self._samples = np.zeros((0, channels))
        # The gain that each sample needs; begins 2 * reach samples before those held.
        self._gains = np.ones(2 * self._reach)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take (M, channels) more samples; returns the (N, channels) that are ready."""
        self._samples = np.concatenate([self._samples, samples])
        self._gains = np.concatenate([self._gains, 1 / np.abs(samples).max(1, initial=1.0)])
        return self._ready(len(self._samples) - 2 * self._reach)

    def flush(self) -> np.ndarray:
        """The remaining samples."""
        self._gains = np.concatenate([self._gains, np.ones(2 * self._reach)])
        return self._ready(len(self._samples))

    def _ready(self, count: int) -> np.ndarray:
        from scipy.ndimage import minimum_filter1d, uniform_filter1d

        if count <= 0:
            return self._samples[:0]
        # The mean of the smallest gains around a sample is at most the gain that it needs.
        reach, width = self._reach, 2 * self._reach + 1
        smallest = minimum_filter1d(self._gains[: count + 4 * reach], width)[reach:-reach]
        gains = uniform_filter1d(smallest, width)[reach:-reach]
        ready: np.ndarray = self._samples[:count] * gains[:, None]
        self._samples, self._gains = self._samples[count:], self._gains[count:]
        return ready
