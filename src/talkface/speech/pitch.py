"""Pitch of a voice, from the autocorrelation of short windows."""

import torch
from torch import Tensor

from talkface.speech.features import SAMPLES_PER_FEATURE
from talkface.speech.mel import SAMPLE_RATE

LOWEST, HIGHEST = 60.0, 420.0
"""Hz that are looked for."""
_WINDOW = 1024
_OCTAVE_COST = 0.06
_MIDDLE = 160.0  # Hz that count as 0


def pitch(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Pitch of each 20 ms and how periodic the sound is.

    Args:
        samples: (N,) 16 kHz mono.

    Returns:
        pitch: (T,) octaves above 160 Hz; of no meaning where the sound is not periodic.
        periodicity: (T,) 0 to 1.
    """
    count = max(1, len(samples) // SAMPLES_PER_FEATURE)
    around = (_WINDOW - SAMPLES_PER_FEATURE) // 2
    padded = torch.nn.functional.pad(samples, (around, _WINDOW))
    frames = padded.unfold(0, _WINDOW, SAMPLES_PER_FEATURE)[:count]
    frames = (frames - frames.mean(1, keepdim=True)) * torch.hann_window(_WINDOW, device=samples.device)
    power = torch.fft.rfft(frames, 2 * _WINDOW).abs().square()
    correlation = torch.fft.irfft(power)[:, : _WINDOW // 2]
    # A window's own autocorrelation falls with the lag; without that, low voices would be missed.
    window = torch.hann_window(_WINDOW, device=samples.device)
    own = torch.fft.irfft(torch.fft.rfft(window, 2 * _WINDOW).abs().square())[: _WINDOW // 2]
    correlation = correlation / (correlation[:, :1] + 1e-6) / (own / own[0])
    first, last = int(SAMPLE_RATE / HIGHEST), int(SAMPLE_RATE / LOWEST)
    lags = torch.arange(first, last, device=samples.device)
    among = correlation[:, first:last]
    # Twice the period fits as well as the period: an octave more must be worth it (Boersma, 1993, Sec. 4).
    best = (among - _OCTAVE_COST * torch.log2(lags / first)).argmax(1, keepdim=True)
    octaves = torch.log2(SAMPLE_RATE / lags[best[:, 0]] / _MIDDLE)
    return octaves, among.gather(1, best)[:, 0].clamp(0, 1)
