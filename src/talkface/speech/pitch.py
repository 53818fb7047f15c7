"""Pitch of a voice, from the autocorrelation of short windows."""

import torch
from torch import Tensor

from talkface.speech.features import SAMPLES_PER_FEATURE
from talkface.speech.mel import SAMPLE_RATE

LOWEST, HIGHEST = 60.0, 420.0
"""Range of the pitch in Hz."""
_WINDOW_SAMPLES = 1024
_OCTAVE_COST = 0.06  # of correlation
_REFERENCE = 160.0  # Hz that count as 0 octaves


def pitch(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Pitch and periodicity of every 20 ms.

    Args:
        samples: (N,) 16 kHz mono.

    Returns:
        Pitch (T,) in octaves above 160 Hz, meaningless where the sound is not periodic; and periodicity (T,)
        in [0, 1].
    """
    count = max(1, len(samples) // SAMPLES_PER_FEATURE)
    around = (_WINDOW_SAMPLES - SAMPLES_PER_FEATURE) // 2
    padded = torch.nn.functional.pad(samples, (around, _WINDOW_SAMPLES))
    frames = padded.unfold(0, _WINDOW_SAMPLES, SAMPLES_PER_FEATURE)[:count]
    frames = (frames - frames.mean(1, keepdim=True)) * torch.hann_window(
        _WINDOW_SAMPLES, device=samples.device
    )
    power = torch.fft.rfft(frames, 2 * _WINDOW_SAMPLES).abs().square()
    correlation = torch.fft.irfft(power)[:, : _WINDOW_SAMPLES // 2]
    # A window's own autocorrelation falls with the lag; without that, low voices would be missed.
    window = torch.hann_window(_WINDOW_SAMPLES, device=samples.device)
    own = torch.fft.irfft(torch.fft.rfft(window, 2 * _WINDOW_SAMPLES).abs().square())[: _WINDOW_SAMPLES // 2]
    correlation = correlation / (correlation[:, :1] + 1e-6) / (own / own[0])
    first, last = int(SAMPLE_RATE / HIGHEST), int(SAMPLE_RATE / LOWEST)
    lags = torch.arange(first, last, device=samples.device)
    among = correlation[:, first:last]
    # Twice the period fits as well as the period: an octave more must be worth it (Boersma, 1993, Sec. 4).
    best = (among - _OCTAVE_COST * torch.log2(lags / first)).argmax(1, keepdim=True)
    octaves = torch.log2(SAMPLE_RATE / lags[best[:, 0]] / _REFERENCE)
    return octaves, among.gather(1, best)[:, 0].clamp(0, 1)
