"""Sound at another sample rate, layout or format, frame by frame."""

from fractions import Fraction

import av
import numpy as np


class Resampler:
    """Turns frames of any rate, layout and format, even changing ones, into frames of one kind."""

    def __init__(self, rate: int, layout: str, sample_format: str = "fltp") -> None:
        self._kind = sample_format, layout, rate
        self._source: tuple[str, str, int] | None = None
        self._resampler: av.AudioResampler | None = None

    def push(self, frame: av.AudioFrame) -> list[av.AudioFrame]:
        """Take one more frame; returns those that are ready."""
        source, ready = (frame.format.name, frame.layout.name, frame.sample_rate), []
        if source != self._source:
            ready = self.flush()
            # Mixing down must not get louder: two equal channels mix into the same one.
            self._resampler = av.AudioResampler(*self._kind, options={"rematrix_maxval": "1"})
            self._source = source
        frame.pts = None
        assert self._resampler
        return ready + self._resampler.resample(frame)

    def flush(self) -> list[av.AudioFrame]:
        """The remaining frames."""
        resampler, self._resampler, self._source = self._resampler, None, None
        return resampler.resample(None) if resampler else []


class MonoMixer:
    """Mixes frames down to mono at one rate; the number of samples fits the duration of the frames."""

    def __init__(self, rate: int) -> None:
        self.seconds = Fraction(0)
        self._rate, self._given = rate, 0
        self._resampler = Resampler(rate, "mono")

    def push(self, frame: av.AudioFrame) -> np.ndarray:
        """Take one more frame; returns the (N,) float32 samples that are ready."""
        self.seconds += Fraction(frame.samples, frame.sample_rate)
        return self._samples(self._resampler.push(frame))

    def flush(self) -> np.ndarray:
        """The remaining (N,) float32 samples."""
        given = self._given
        rest = self._samples(self._resampler.flush())
        wanted = max(0, round(self.seconds * self._rate) - given)
        return np.pad(rest[:wanted], (0, max(0, wanted - len(rest))))

    def _samples(self, frames: list[av.AudioFrame]) -> np.ndarray:
        parts = [frame.to_ndarray().reshape(-1) for frame in frames]
        samples = np.concatenate([np.zeros(0, np.float32), *parts])
        self._given += len(samples)
        return samples
