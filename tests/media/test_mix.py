"""Sounds are mixed without loss and without clipping."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from media_samples import tone, write_float_wav, write_sound
from talkface.errors import InvalidOption, OutputError, UnreadableMedia
from talkface.media.audio import probe_audio, read_audio
from talkface.media.mix import mix_to

SAME_FOLDER = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_mixing(tmp_path: Path, suffix: str) -> None:
    """Sounds of all kinds are added; one of them stays as it is to the last of 16 bits."""
    first = tone(2.5, 48000, level=0.3, hertz=300)
    second = tone(1.2, 16000, 2, level=0.2, hertz=700)
    sounds = [
        write_sound(tmp_path / "a.flac", first, 48000, "flac"),
        write_float_wav(tmp_path / "b.wav", second, 16000),
    ]
    info = probe_audio(mix_to(sounds, tmp_path / f"mix.{suffix}"))
    assert (info.duration, info.sample_rate, info.channels) == (2.5, 48000, 2)
    mixed = read_audio(tmp_path / f"mix.{suffix}", 16000)
    wanted = read_audio(sounds[0]) + np.pad(read_audio(sounds[1]), (0, 20800))
    for part in (slice(100, 19100), slice(19300, 39900)):  # resampling rings where a tone begins or ends
        assert np.abs(mixed - wanted)[part].max() < 1e-3
    alone = mix_to(sounds[:1], tmp_path / f"alone.{suffix}")
    assert np.array_equal(read_audio(alone, 48000), read_audio(sounds[0], 48000))
    assert sorted(path.suffix for path in tmp_path.iterdir()) == sorted(
        [".flac", ".wav", *2 * [f".{suffix}"]]
    )


@SAME_FOLDER
@given(levels=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=4), seconds=st.floats(0.001, 2.5))
def test_mixing_does_not_clip(tmp_path: Path, levels: list[float], seconds: float) -> None:
    sounds = []
    for number, level in enumerate(levels):
        voice = tone(seconds, 16000, level=level, hertz=200 + 50 * number)
        voice[: len(voice) // 2] *= 0.1
        sounds.append(write_float_wav(tmp_path / f"{number}.wav", voice, 16000))
    mixed = read_audio(mix_to(sounds, tmp_path / "mix.flac"))
    whole = np.sum([read_audio(sound).astype(float) for sound in sounds], axis=0)
    assert len(mixed) == len(whole)
    assert np.abs(mixed).max() <= 1.0
    quiet = slice(0, max(0, len(whole) // 2 - 400))
    assert np.allclose(mixed[quiet], whole[quiet], atol=1e-6)  # far from what is loud, nothing changes
    loud = np.abs(whole) > 0.01
    gain = mixed[loud] / whole[loud]
    assert (gain < 1 + 1e-4).all()
    assert (gain > 1 / max(1.0, np.abs(whole).max()) - 1e-4).all()
    # The gain changes slowly, so that waves keep their shape.
    assert np.abs(np.diff(gain)).max(initial=0) < 0.02 + 0.01 * np.diff(np.flatnonzero(loud)).max(initial=1)


def test_mixing_refused(tmp_path: Path) -> None:
    sound = write_float_wav(tmp_path / "a.wav", tone(0.1, 16000), 16000)
    for paths, name in (([sound], "mix.mp3"), ([], "mix.wav")):
        with pytest.raises(InvalidOption):
            mix_to(paths, tmp_path / name)
    with pytest.raises(UnreadableMedia):
        mix_to([sound, tmp_path / "missing.wav"], tmp_path / "mix.wav")
    with pytest.raises(OutputError):
        mix_to([sound], tmp_path / "nowhere" / "mix.wav")
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]
