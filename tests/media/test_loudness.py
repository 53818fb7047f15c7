"""Loudness is measured as BS.1770 says."""

from pathlib import Path

import numpy as np
import pytest

from media_samples import tone, write_float_wav
from talkface.media.audio import probe_audio, stream_audio
from talkface.media.loudness import LoudnessMeter


@pytest.mark.parametrize(("seconds", "level"), [(3.0, 1.0), (3.0, 0.1), (0.2, 0.1)])
def test_loudness_of_a_sine(tmp_path: Path, seconds: float, level: float) -> None:
    path = write_float_wav(tmp_path / "a.wav", tone(seconds, 48000, level=level, hertz=997), 48000)
    info = probe_audio(path)
    # The standard's own test: a full-scale sine of 997 Hz in one channel is -3.01 LUFS.
    assert info.loudness_lufs == pytest.approx(-3.01 + 20 * np.log10(level), abs=0.1)
    again = LoudnessMeter()
    for part in stream_audio(path, gain=info.gain(-23)):
        again.push(part)
    assert again.loudness() == pytest.approx(-23, abs=0.1)


def test_pauses_do_not_count_for_loudness(tmp_path: Path) -> None:
    speech = tone(3.0, 16000, level=0.1, hertz=997)
    padded = np.concatenate([speech, np.zeros((16000 * 6, 1), np.float32)])
    path = write_float_wav(tmp_path / "a.wav", padded, 16000)
    assert probe_audio(path).loudness_lufs == pytest.approx(-23.01, abs=0.6)
