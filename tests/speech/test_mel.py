"""The log-mel spectrogram."""

import pytest
import torch

from talkface.speech.mel import BINS, HOP, SAMPLE_RATE, log_mel, mel_filters, mel_power


@pytest.mark.parametrize("frequency", [200.0, 1000.0, 4000.0])
def test_a_tone_is_in_the_band_of_its_frequency(frequency: float) -> None:
    tone = torch.sin(2 * torch.pi * frequency * torch.arange(SAMPLE_RATE) / SAMPLE_RATE)[None]
    spectrum = log_mel(tone)
    assert spectrum.shape == (1, BINS, SAMPLE_RATE // HOP)
    loudest = int(spectrum[0].mean(1).argmax())
    hertz = torch.linspace(0, SAMPLE_RATE / 2, mel_filters().shape[1])
    band = hertz[mel_filters()[loudest] > 0]
    assert band.min() - 40 <= frequency <= band.max() + 40


def test_levels_relative_to_the_peak_do_not_depend_on_loudness() -> None:
    sound = torch.randn(1, SAMPLE_RATE, generator=torch.Generator().manual_seed(0))
    loud, quiet = (log_mel(x, mel_power(x).log10().amax()) for x in (sound, 0.01 * sound))
    torch.testing.assert_close(loud, quiet, atol=1e-4, rtol=0)
    assert loud.max() == pytest.approx(1.5)
    assert loud.min() >= -0.5
