"""Log-mel spectrogram in Whisper's convention (80 bins, 100 frames per second, 16 kHz)."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

SAMPLE_RATE = 16_000
FFT_SIZE = 400  # samples
HOP = 160  # samples between frames
BINS = 80


def _hz_to_mel(frequency: np.ndarray) -> np.ndarray:
    linear = 3.0 * frequency / 200.0
    logarithmic = 15.0 + np.log(np.maximum(frequency, 1e-9) / 1000.0) * 27.0 / np.log(6.4)
    return np.where(frequency >= 1000.0, logarithmic, linear)


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel >= 15.0, 1000.0 * np.exp(np.log(6.4) / 27.0 * (mel - 15.0)), 200.0 * mel / 3.0)


@lru_cache(maxsize=1)
def mel_filters() -> Tensor:
    """Slaney-normalised triangular filters, (BINS, FFT_SIZE // 2 + 1)."""
    bins = np.linspace(0, SAMPLE_RATE / 2, FFT_SIZE // 2 + 1)
    edges = _mel_to_hz(np.linspace(0.0, _hz_to_mel(np.array(SAMPLE_RATE / 2)), BINS + 2))
    slopes = edges[:, None] - bins[None]
    width = np.diff(edges)
    rising, falling = -slopes[:-2] / width[:-1, None], slopes[2:] / width[1:, None]
    filters = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return torch.from_numpy(filters.astype(np.float32))


def mel_power(samples: Tensor) -> Tensor:
    """Mel power spectrogram (B, BINS, N // HOP) of samples (B, N), 16 kHz."""
    window = torch.hann_window(FFT_SIZE, device=samples.device)
    spectrum = torch.stft(samples, FFT_SIZE, HOP, window=window, return_complex=True)[..., :-1]
    return mel_filters().to(samples.device) @ spectrum.abs().square()


def log_mel(samples: Tensor, peak: Tensor | float | None = None) -> Tensor:
    """Log-mel spectrogram, Whisper's scaling: log10 power, 8 decades deep, then (x + 4) / 4.

    Args:
        samples: (B, N) in [-1, 1], 16 kHz. For exact frame counts, N is a multiple of ``HOP``.
        peak: log10 power of the loudest moment, (B, 1, 1) or a number. When given, levels are shifted so that
            it becomes 1.5, whatever the loudness of the recording; when not, levels stay absolute, as
            Whisper has them.

    Returns:
        (B, BINS, N // HOP); from -0.5 (80 dB below the peak) to 1.5 when ``peak`` is given.
    """
    log = mel_power(samples).clamp_min(1e-10).log10()
    if peak is None:
        log = torch.maximum(log, log.amax(dim=(1, 2), keepdim=True) - 8.0)
    else:
        log = (log - peak).clamp_min(-8.0) + 2.0
    return (log + 4.0) / 4.0
