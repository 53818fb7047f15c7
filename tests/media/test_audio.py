"""Sound of every kind becomes 16 kHz mono of the right length and loudness, or is refused in one line."""

import resource
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from media_samples import gradient, tone, write_float_wav, write_sound, write_video
from talkface.errors import AudioTooShort, UnreadableMedia
from talkface.media.audio import probe_audio, read_audio, stream_audio

SAME_FOLDER = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

FORMATS = [
    ("a.wav", "pcm_s16le", 44100),
    ("b.wav", "pcm_u8", 8000),
    ("c.wav", "pcm_f64le", 48000),
    ("a.flac", "flac", 96000),
    ("a.mp3", "libmp3lame", 44100),
    ("a.m4a", "aac", 44100),
    ("b.m4a", "alac", 48000),
    ("a.opus", "libopus", 48000),
    ("a.ac3", "ac3", 48000),
    ("a.aac", "aac", 16000),
    ("a.mkv", "aac", 22050),
    ("a.webm", "libopus", 48000),
    ("a.aiff", "pcm_s24be", 44100),
]


@pytest.mark.parametrize(("name", "codec", "rate"), FORMATS, ids=[f"{n}-{c}" for n, c, _ in FORMATS])
def test_formats(tmp_path: Path, name: str, codec: str, rate: int) -> None:
    path = write_sound(tmp_path / name, tone(1.5, rate, 2), rate, codec)
    info = probe_audio(path)
    # Encoders without an edit list or the like add their padding, at most two packets.
    padding = (
        0.0 if codec.startswith("pcm") or codec in ("flac", "alac", "libmp3lame", "libopus") else 2048 / rate
    )
    padding = 0.0 if name == "a.m4a" else padding
    assert 0 <= info.duration - 1.5 <= padding + 1e-9
    assert (info.sample_rate, info.channels) == (rate, 2)
    samples = read_audio(path)
    assert samples.dtype == np.float32
    assert abs(len(samples) - info.duration * 16000) <= 1
    assert np.sqrt(np.mean(samples[4000:-4000] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.08)


@SAME_FOLDER
@given(
    rate=st.sampled_from([8000, 11025, 12000, 16000, 22050, 32000, 44100, 48000, 88200, 96000]),
    channels=st.integers(1, 6),
    count=st.integers(1, 20000),
    block=st.floats(0.01, 3.0),
)
def test_any_rate_and_layout(tmp_path: Path, rate: int, channels: int, count: int, block: float) -> None:
    path = write_float_wav(tmp_path / "a.wav", tone(count / rate, rate, channels), rate)
    info = probe_audio(path)
    assert info.duration == count / rate
    assert (info.sample_rate, info.channels) == (rate, channels)
    blocks = list(stream_audio(path, block_seconds=block))
    size = max(1, round(block * 16000))
    assert [len(part) for part in blocks[:-1]] == [size] * (len(blocks) - 1)
    whole = np.concatenate([*blocks, np.zeros(0, np.float32)])
    assert len(whole) == round(count / rate * 16000)
    assert np.array_equal(whole, read_audio(path)) if len(whole) else True


def test_six_channels_without_layout_keep_the_centre(tmp_path: Path) -> None:
    centre = np.zeros((16000, 6), "<i2")
    centre[:, 2] = (tone(1.0, 16000)[:, 0] * 32767).astype("<i2")
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((6, 2, 16000, 0, "NONE", ""))
        file.writeframes(centre.tobytes())
    info = probe_audio(tmp_path / "a.wav")
    assert info.channels == 6
    assert info.loudness_lufs > -40


def test_equal_channels_mix_into_the_same(tmp_path: Path) -> None:
    loud = tone(0.5, 16000, 2, level=0.95)
    write_float_wav(tmp_path / "a.wav", loud, 16000)
    assert np.allclose(read_audio(tmp_path / "a.wav"), loud[:, 0], atol=1e-3)


def test_not_a_number_becomes_silence(tmp_path: Path) -> None:
    samples = tone(1.0, 44100, 2)
    samples[1000:2000], samples[5000, 0], samples[6000] = np.nan, np.inf, -np.inf
    path = write_float_wav(tmp_path / "a.wav", samples, 44100)
    heard = read_audio(path)
    assert np.isfinite(heard).all()
    assert np.abs(heard).max() <= 1
    assert np.abs(heard[400:700]).max() < 0.01
    assert np.isfinite(probe_audio(path).loudness_lufs)


def test_silence_and_clipping(tmp_path: Path) -> None:
    silent = probe_audio(write_float_wav(tmp_path / "a.wav", np.zeros((16000, 1), np.float32), 16000))
    assert silent.loudness_lufs == -70
    assert silent.gain() == 1.0
    path = write_float_wav(tmp_path / "b.wav", tone(1.0, 16000, level=5.0), 16000)
    assert np.abs(read_audio(path)).max() == 1.0


def test_start_and_other_rates(tmp_path: Path) -> None:
    path = write_float_wav(tmp_path / "a.wav", tone(2.0, 16000), 16000)
    late = np.concatenate(list(stream_audio(path, start=1.25)))
    assert np.array_equal(late, read_audio(path)[20000:])
    assert len(read_audio(path, 24000)) == 48000


def test_sound_inside_a_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a b$.mp4", [gradient(32, 32)] * 25, sound=tone(1.0, 16000))
    assert probe_audio(path).duration == pytest.approx(1.0, abs=1e-6)


def test_memory_is_flat(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, 48000, 0, "NONE", ""))
        for _ in range(180):
            file.writeframes((tone(1.0, 48000, 2) * 32767).astype("<i2").tobytes())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(map(len, stream_audio(path))) == 180 * 16000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # kB; the file has 34 MB


def test_gap_is_filled_with_silence(tmp_path: Path) -> None:
    """A stream whose second half comes a second late, as recorders of calls write it."""
    import av

    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for number in range(10):
            whole = np.full((1, 1600), 8000, "<i2")
            frame = av.AudioFrame.from_ndarray(whole, format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16000, number * 1600 + (16000 if number >= 5 else 0)
            container.mux(stream.encode(frame))
    heard = read_audio(path)
    assert len(heard) == 32000
    assert np.abs(heard[8100:23900]).max() == 0


def truncated_m4a(path: Path) -> None:
    write_sound(path, tone(1.0, 16000), 16000, "aac")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncated_film(path: Path) -> None:
    """Its index comes first, so that it opens."""
    from talkface.media.video import VideoWriter

    voice = write_sound(path.with_suffix(".m4a"), tone(4.0, 16000), 16000, "aac")
    with VideoWriter(path, (32, 32), 25, voice) as writer:
        for number in range(100):
            writer.write(gradient(32, 32, number))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncated_wav(path: Path) -> None:
    write_sound(path, tone(2.0, 16000), 16000, "pcm_s16le")
    path.write_bytes(path.read_bytes()[:30_000])


def truncated_flac(path: Path) -> None:
    write_float = np.random.default_rng(0).uniform(-1, 1, (32000, 1)).astype(np.float32)
    write_sound(path, write_float, 16000, "flac")
    path.write_bytes(path.read_bytes()[:30_000])


def garbage(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(20_000))


BAD: list[tuple[str, Callable[[Path], object], type[Exception], str]] = [
    ("missing.wav", lambda path: None, UnreadableMedia, "does not exist"),
    ("folder.wav", lambda path: path.mkdir(), UnreadableMedia, "directory"),
    ("empty.wav", lambda path: path.write_bytes(b""), UnreadableMedia, "empty"),
    ("text.wav", lambda path: path.write_text("no sound" * 99), UnreadableMedia, "sound"),
    ("text.txt", lambda path: path.write_text("no sound\n" * 99), UnreadableMedia, "audio"),
    ("noise.wav", garbage, UnreadableMedia, "damaged"),
    ("noise.mp3", garbage, UnreadableMedia, "damaged"),
    ("noise.m4a", garbage, UnreadableMedia, "damaged"),
    ("cut.m4a", truncated_m4a, UnreadableMedia, "cut off"),
    ("cut.mp4", truncated_film, UnreadableMedia, "truncated"),
    ("cut.wav", truncated_wav, UnreadableMedia, "truncated"),
    ("cut.flac", truncated_flac, UnreadableMedia, "truncated"),
    ("picture.jpg", lambda path: Image.new("RGB", (64, 64)).save(path), UnreadableMedia, "picture"),
    ("picture.png", lambda path: Image.new("RGB", (64, 64)).save(path), UnreadableMedia, "picture"),
    ("picture.gif", lambda path: Image.new("RGB", (64, 64)).save(path), UnreadableMedia, "picture"),
    (
        "mute.mp4",
        lambda path: write_video(path, [gradient(32, 32)] * 5),
        UnreadableMedia,
        "without audio stream",
    ),
    (
        "nothing.wav",
        lambda path: write_float_wav(path, np.zeros((0, 1)), 16000),
        AudioTooShort,
        "zero length",
    ),
]


@pytest.mark.parametrize(("name", "make", "error", "says"), BAD, ids=[name for name, *_ in BAD])
@pytest.mark.parametrize("read", [probe_audio, read_audio])
def test_refused(
    tmp_path: Path,
    name: str,
    make: Callable[[Path], object],
    error: type[Exception],
    says: str,
    read: Callable[[Path], object],
) -> None:
    path = tmp_path / name
    make(path)
    with pytest.raises(error, match=says) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)
