"""A video to be edited gives its frames at their own times, whatever it is, and says what it does to them."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from media_samples import (
    damage,
    gradient,
    number_of,
    numbered,
    tone,
    write_film,
    write_sound,
    write_video,
)
from talkface.errors import InvalidOption, UnreadableMedia
from talkface.media.rate import exact_fps
from talkface.media.source import SourceVideo, parse_time
from talkface.media.video import VideoReader, VideoWriter

SAME_FOLDER = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
RATES = [23.976, 24.0, 25.0, 29.97, 30.0, 50.0, 60.0]


def numbers(source: SourceVideo) -> list[int]:
    return [number_of(frame.image) for frame in source]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 numbered frames, 29.97 a second, a keyframe every 30."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    return write_film(path, map(numbered, range(100)), exact_fps(29.97), keyframes=30)


# -- time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize("fps", RATES)
def test_constant_rates_are_exact(tmp_path: Path, fps: float, suffix: str) -> None:
    rate = exact_fps(fps)
    source = SourceVideo(write_film(tmp_path / f"a.{suffix}", map(numbered, range(40)), rate))
    assert (source.fps, source.variable, source.frame_count) == (rate, False, 40)
    assert source.duration == pytest.approx(float(40 / rate))
    frames = list(source)
    assert [number_of(frame.image) for frame in frames] == list(range(40))
    assert [frame.time for frame in frames] == pytest.approx([k / rate for k in range(40)], abs=1e-3)


@SAME_FOLDER
@given(steps=st.lists(st.integers(5, 300), min_size=3, max_size=40), suffix=st.sampled_from(["mp4", "mkv"]))
def test_variable_rate_keeps_its_times(tmp_path: Path, steps: list[int], suffix: str) -> None:
    times = (np.cumsum([0, *steps]) / 1000).tolist()
    path = write_video(tmp_path / f"a.{suffix}", [numbered(n) for n in range(len(times))], times)
    source = SourceVideo(path)
    frames = list(source)
    assert [frame.time for frame in frames] == pytest.approx(times, abs=1e-3)
    assert [number_of(frame.image) for frame in frames] == list(range(len(times)))
    assert source.last == pytest.approx(times[-1], abs=1e-3)
    assert source.duration > source.last
    assert source.variable or max(steps) - min(steps) <= 3
    assert suffix == "mkv" or source.frame_count == len(times)


def test_a_rate_that_changes_late_is_variable(tmp_path: Path) -> None:
    times = [n / 25 for n in range(400)] + [16 + n / 10 for n in range(50)]
    path = write_video(tmp_path / "a.mp4", [numbered(n, 40, 16) for n in range(450)], times)
    source = SourceVideo(path)
    assert (source.variable, source.frame_count) == (True, 450)
    assert [frame.time for frame in source] == pytest.approx(times, abs=1e-3)


@SAME_FOLDER
@given(begin=st.integers(0, 3200), length=st.integers(60, 3000))
def test_from_to(film: Path, begin: int, length: int) -> None:
    start, stop = begin / 1000, (begin + length) / 1000
    rate = exact_fps(29.97)
    wanted = [k for k in range(100) if start - 1e-3 <= k / rate < stop - 1e-3]
    if not wanted:
        with pytest.raises(InvalidOption):
            SourceVideo(film, start, stop)
        return
    source = SourceVideo(film, start, stop)
    frames = list(source)
    assert [number_of(frame.image) for frame in frames] == wanted
    assert frames[0].time == 0
    assert frames[-1].time == pytest.approx(source.last, abs=1e-6)
    assert source.frame_count == len(wanted)
    assert source.duration == pytest.approx(float(len(wanted) / rate))


@SAME_FOLDER
@given(begin=st.floats(0, 3.3), end=st.floats(0, 3.4))
def test_any_order(film: Path, begin: float, end: float) -> None:
    source, rate = SourceVideo(film), exact_fps(29.97)
    wanted = [k for k in range(100) if k / rate >= begin - 1e-3]
    assert [number_of(frame.image) for frame in source.frames(begin)] == wanted
    backwards = [k for k in range(100) if k / rate < end - 1e-3]
    assert [number_of(frame.image) for frame in source.backwards(end)] == backwards[::-1]
    times = np.linspace(begin, 3.3, 17)
    nearest = [abs(np.arange(100) / float(rate) - time).argmin() for time in times]
    assert [number_of(frame.image) for frame in source.nearest(times)] == nearest


def test_from_to_at_variable_rate(tmp_path: Path) -> None:
    """A picture that is shown for long is there, too, where the stretch begins or ends within it."""
    times = [0.0, 0.04, 0.08, 3.0, 3.03, 3.1]
    path = write_video(tmp_path / "a.mp4", [numbered(n) for n in range(6)], times)
    source = SourceVideo(path, 2.0, 3.05)
    assert [(number_of(frame.image), round(frame.time, 3)) for frame in source] == [(2, 0), (3, 1), (4, 1.03)]
    assert source.duration == pytest.approx(1.05)
    assert SourceVideo(path, 0.0, 2.0).duration == pytest.approx(2.0)


KINDS = [
    ("a.flv", "libx264", "yuv420p"),
    ("a.wmv", "wmv2", "yuv420p"),
    ("a.webm", "libvpx-vp9", "yuv420p"),
    ("a.mov", "prores_ks", "yuv422p10le"),
    ("a.mov", "qtrle", "argb"),
    ("a.mkv", "ffv1", "yuv420p"),
    ("a.mxf", "mpeg2video", "yuv420p"),
    ("a.gif", "gif", "rgb8"),
]


@pytest.mark.parametrize(("name", "codec", "pixels"), KINDS, ids=[f"{n}-{c}" for n, c, _ in KINDS])
def test_kinds_of_files(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.gop_size = 160, 64, pixels, 20
        for number in range(75):
            frame = av.VideoFrame.from_ndarray(numbered(number, 160, 64), format="rgb24")
            frame = frame.reformat(format=pixels)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert numbers(SourceVideo(path)) == list(range(75))
    source = SourceVideo(path, 1.0, 2.0)
    assert (source.fps, source.variable, source.frame_count, source.duration) == (25, False, 25, 1.0)
    assert numbers(source) == list(range(25, 50))
    assert [number_of(frame.image) for frame in source.backwards(0.2)] == [29, 28, 27, 26, 25]


def test_beginning_between_keyframes(tmp_path: Path) -> None:
    """A recording of a broadcast begins anywhere; time counts from the first picture that can be seen."""
    whole = write_film(tmp_path / "a.ts", map(numbered, range(100)), Fraction(25), keyframes=20).read_bytes()
    path = tmp_path / "b.ts"
    path.write_bytes(whole[len(whole) * 45 // 100 // 188 * 188 :])
    source = SourceVideo(path)
    frames = list(source)
    first = number_of(frames[0].image)
    assert first in (40, 60)
    assert [number_of(frame.image) for frame in frames] == list(range(first, 100))
    assert [frame.time for frame in frames] == pytest.approx([k / 25 for k in range(100 - first)], abs=1e-3)
    assert (source.frame_count, source.variable, source.damaged) == (100 - first, False, 0)
    assert numbers(SourceVideo(path, 0.52, 0.7)) == list(range(first + 13, first + 18))


@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg"])
def test_files_without_times(tmp_path: Path, codec: str) -> None:
    path = write_video(
        tmp_path / "a.avi",
        [numbered(n) for n in range(30)],
        codec=codec,
        pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p",
        options={"bf": "2"} if codec == "mpeg4" else {"q": "2"},
    )
    assert numbers(SourceVideo(path)) == list(range(30))
    assert len(numbers(SourceVideo(path, 0.5, 1.0))) in (12, 13)


def test_raw_stream(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.h264", map(numbered, range(30)), Fraction(25))
    source = SourceVideo(path)
    assert numbers(source) == list(range(30))
    assert [number_of(frame.image) for frame in source.backwards(0.2)] == [4, 3, 2, 1, 0]


def test_several_at_once(film: Path) -> None:
    """Threads may each read the same video."""
    source = SourceVideo(film)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(numbers, [source] * 4)) == [list(range(100))] * 4


def test_fast_look(tmp_path: Path, film: Path) -> None:
    for count in (5, 32, 200):
        frames = list(SourceVideo(film).sparse(count))
        assert len(frames) <= count
        assert len(frames) >= min(count, 100) * 0.75
        assert [number_of(frame.image) / 29.97 for frame in frames] == pytest.approx(
            [frame.time for frame in frames], abs=2e-3
        )
    path = tmp_path / "long.mp4"
    write_film(path, (numbered(n // 4, 40, 16) for n in range(3000)), Fraction(50), keyframes=100)
    source = SourceVideo(path, 10.0, 50.0)
    frames = list(source.sparse(32))
    times = np.array([frame.time for frame in frames])
    assert len(frames) == 32
    assert (np.diff(times) > 0).all()
    assert all(((times >= begin) & (times < begin + 10)).sum() >= 4 for begin in (0, 10, 20, 30))
    assert [number_of(frame.image) for frame in frames] == [int((10 + t) * 50 + 0.5) // 4 for t in times]


def test_fast_look_shows_frames_as_they_are(tmp_path: Path) -> None:
    """Frames that are left out are none that others refer to: B-frames may be."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 255, (64, 400, 3), np.uint8)
    images = [np.roll(noise[:, 2 * k : 2 * k + 64], k % 7, axis=0) for k in range(150)]
    options = {"bf": "5", "preset": "slow", "crf": "30", "x264-params": "b-pyramid=normal:ref=6:scenecut=0"}
    source = SourceVideo(write_video(tmp_path / "pyramid.mp4", images, options=options))
    whole = {round(frame.time * 25): frame.image for frame in source}
    looked_at = list(source.sparse(16))
    assert len(looked_at) >= 12
    for frame in looked_at:
        np.testing.assert_array_equal(frame.image, whole[round(frame.time * 25)])


# -- pictures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotated_phone_video(tmp_path: Path, degrees: int) -> None:
    upright = gradient(64, 48)
    stored = np.ascontiguousarray(np.rot90(upright, -degrees // 90))
    source = SourceVideo(write_video(tmp_path / "a.mp4", [stored] * 3, rotation=degrees))
    assert (source.size, source.rotation) == ((64, 48), degrees)
    assert any("upright" in note for note in source.notes)
    for frame in source:
        assert np.abs(frame.image.astype(int) - upright).mean() < 4


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mpg", "mpeg2video"), ("a.mkv", "libx264")]
)
def test_interlaced_video(tmp_path: Path, name: str, codec: str) -> None:
    images = []
    for number in range(30):
        image = np.zeros((64, 128, 3), np.uint8)
        for field in range(2):  # a bar that moves 4 pixels from field to field
            left = 8 * number % 96 + 4 * field
            image[field::2, left : left + 16] = 220
        images.append(image)
    options = {"x264-params": "tff=1", "crf": "10"} if codec == "libx264" else {"b": "4000000"}
    times = [n / 25 for n in range(30)]
    if codec == "mpeg2video":  # knows no rate of 1000 a second
        path = _write_mpeg2(tmp_path / name, images)
    else:
        path = write_video(tmp_path / name, images, times, codec=codec, options=options, interlaced=True)
    source = SourceVideo(path)
    assert source.interlaced
    assert "interlaced video is deinterlaced" in source.notes
    frames = list(source)
    assert [frame.time for frame in frames] == pytest.approx(times, abs=1e-3)
    combed = [np.abs(np.diff(image[..., 1].astype(int), axis=0)).mean() for image in images[5:25]]
    smooth = [np.abs(np.diff(frame.image[..., 1].astype(int), axis=0)).mean() for frame in frames[5:25]]
    assert np.mean(smooth) < 0.3 * np.mean(combed)
    assert [frame.time for frame in SourceVideo(path, 0.4).frames()] == pytest.approx(times[:20], abs=1e-3)


def _write_mpeg2(path: Path, images: list[np.ndarray]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        flags = av.codec.context.Flags
        stream.codec_context.flags |= flags.interlaced_dct | flags.interlaced_me
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("size", [(33, 47), (34, 47), (33, 48)])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    path = write_video(tmp_path / "a.mkv", [gradient(*size)] * 3, codec="ffv1", pix_fmt="yuv444p")
    source = SourceVideo(path)
    assert source.size == size
    assert any("odd size" in note for note in source.notes)
    with VideoWriter(tmp_path / "b.mp4", source.size, source.fps, like=source) as writer:
        for frame in source:
            writer.write(frame.image, frame.time)
    with VideoReader(tmp_path / "b.mp4") as video:
        assert video.size == (size[0] + size[0] % 2, size[1] + size[1] % 2)


def test_bit_rate_stays_in_its_class(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (72, 128, 3), np.uint8)
    images = [np.roll(noise, 7 * number, 1) for number in range(250)]
    path = write_film(tmp_path / "a.mp4", images, Fraction(25), crf=45)
    source, ratios = SourceVideo(path), []
    for like in (source, None):
        copy = tmp_path / "b.mp4"
        with VideoWriter(copy, source.size, source.fps, like=like, overwrite=True) as writer:
            for image in images:
                writer.write(image)
        ratios.append(copy.stat().st_size / path.stat().st_size)
    assert 2 < ratios[0] < 7
    assert ratios[1] > 1.5 * ratios[0], "without the limit it takes far more"


@pytest.mark.parametrize(
    ("name", "codec", "pixels"), [("a.avi", "rawvideo", "yuv420p"), ("a.mov", "qtrle", "rgb24")]
)
def test_edited_from_raw_pictures(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    """Whose bit rates and tags no encoder takes."""
    images = [np.random.default_rng(n).integers(0, 255, (720, 1280, 3), np.uint8) for n in range(3)]
    source = SourceVideo(write_video(tmp_path / name, images, codec=codec, pix_fmt=pixels))
    assert (source.bit_rate or 0) > 10**8
    with VideoWriter(tmp_path / "b.mp4", source.size, source.fps, like=source) as writer:
        for frame in source:
            writer.write(frame.image, frame.time)
    assert SourceVideo(tmp_path / "b.mp4").frame_count == 3


# -- sound -----------------------------------------------------------------------------------------


def pitch(samples: np.ndarray) -> float:
    """Hz of the loudest tone in 16 kHz sound."""
    return float(np.abs(np.fft.rfft(samples * np.hanning(len(samples)))).argmax() * 16000 / len(samples))


def test_several_audio_tracks(tmp_path: Path) -> None:
    sounds = [tone(2.0, 16000, hertz=hertz) for hertz in (300, 500, 700)]
    path = write_film(tmp_path / "a.mp4", map(numbered, range(50)), Fraction(25), sounds)
    for stream, hertz in enumerate((300, 500, 700)):
        source = SourceVideo(path, 0.5, 1.5, audio_stream=stream)
        assert (source.audio_streams, source.has_audio) == (3, True)
        heard = np.concatenate(list(source.speech()))
        assert len(heard) == 16000 * 25 // 25
        assert pitch(heard) == pytest.approx(hertz, abs=3)
    with pytest.raises(UnreadableMedia, match="3 audio stream"):
        SourceVideo(path, audio_stream=3)


def test_speech_is_beside_its_frames(tmp_path: Path) -> None:
    sound = np.zeros((32000, 1), np.float32)
    sound[24000:] = tone(0.5, 16000)
    path = write_film(tmp_path / "a.mp4", map(numbered, range(75)), Fraction(25), [sound])
    for start in (0.0, 1.0):
        source = SourceVideo(path, start)
        heard = np.concatenate(list(source.speech(block_seconds=0.3)))
        assert len(heard) == round(source.duration * 16000)
        assert np.argmax(np.abs(heard) > 0.1) / 16000 == pytest.approx(1.5 - start, abs=0.02)


# -- what is wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_damage_in_the_middle(tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (24, 40, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    images = [np.concatenate([numbered(n, 160, 32), np.roll(noise, n, 1)]) for n in range(60)]
    path = tmp_path / f"a.{suffix}"
    write_film(path, images, Fraction(25), keyframes=15)
    if suffix == "mkv":
        data = bytearray(path.read_bytes())
        with av.open(str(path)) as container:
            places = [(packet.pos or 0, packet.size) for packet in container.demux(video=0) if packet.size]
        for place, size in places[20:22]:  # behind the head of its block
            data[place + 40 : place + size] = bytes(size - 40)
        path.write_bytes(data)
    else:
        damage(path, [20, 21])
    source = SourceVideo(path)
    with caplog.at_level(logging.WARNING):
        frames = list(source)
    assert source.frame_count == 60
    assert 40 <= len(frames) < 60
    assert source.damaged >= 60 - len(frames) > 0
    assert "damaged" in caplog.text
    # Those before, and those from the next keyframe on, are what they are, when they are.
    whole = [frame for frame in frames if frame.time < 0.79 or frame.time >= 1.2]
    assert len(whole) == 20 + 30
    for frame in whole:
        assert np.abs(frame.image[:32].astype(int) - numbered(round(frame.time * 25), 160, 32)).mean() < 12


def test_cut_off_at_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = tmp_path / "a.mp4"
    with VideoWriter(whole, (80, 32), 25) as writer:  # its index comes first, so that it opens
        for number in range(100):
            writer.write(numbered(number) + np.uint8(number % 7))
    path = tmp_path / "b.mp4"
    path.write_bytes(whole.read_bytes()[: round(whole.stat().st_size * 0.7)])
    source = SourceVideo(path)
    frames = numbers(source)
    assert frames == list(range(len(frames)))
    assert 10 < len(frames) < 95
    assert len(frames) <= source.frame_count <= 100


def sound_only(path: Path) -> None:
    write_sound(path, tone(0.2, 16000), 16000, "aac")


def short_film(path: Path) -> None:
    write_film(path, map(numbered, range(25)), Fraction(25))


BAD: list[tuple[str, Callable[[Path], object], dict[str, float], type[Exception], str]] = [
    ("missing.mp4", lambda path: None, {}, UnreadableMedia, "does not exist"),
    ("sound.m4a", sound_only, {}, UnreadableMedia, "sound file"),
    ("text.mp4", lambda path: path.write_text("no film" * 99), {}, UnreadableMedia, "damaged"),
    ("a.mp4", short_film, {"start": 1.0}, InvalidOption, "is over before 1 s"),
    ("b.mp4", short_film, {"start": 0.5, "stop": 0.5}, InvalidOption, "later than start"),
    ("c.mp4", short_film, {"start": -1.0}, InvalidOption, "at least 0"),
    ("d.mp4", short_film, {"start": float("nan")}, InvalidOption, "at least 0"),
    ("e.mp4", short_film, {"start": 0.505, "stop": 0.515}, InvalidOption, "no frame between"),
    ("f.mp4", short_film, {"audio_stream": 1}, UnreadableMedia, "0 audio stream"),
]


@pytest.mark.parametrize(
    ("name", "make", "options", "error", "says"), BAD, ids=[f"{b[0]}-{b[4]}" for b in BAD]
)
def test_refused(
    tmp_path: Path,
    name: str,
    make: Callable[[Path], object],
    options: dict[str, Any],
    error: type[Exception],
    says: str,
) -> None:
    make(tmp_path / name)
    with pytest.raises(error, match=says) as caught:
        SourceVideo(tmp_path / name, **options)
    assert "\n" not in str(caught.value)


def test_stop_behind_the_end_is_the_end(film: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert SourceVideo(film, stop=60.0).frame_count == 100
    assert "ends at 3.34 s" in caplog.text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("12.5", 12.5), ("00:10", 10), ("1:02:03.5", 3723.5), ("90:00", 5400), (" 0 ", 0), ("0:00.25", 0.25)],
)
def test_times(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "a", "-1", "1:60", "1:60:00", "1:2:3:4", "nan", "1e3", ":10", "10:", "1,5"]
)
def test_no_times(text: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        parse_time(text)
    assert "\n" not in str(caught.value)


@given(seconds=st.integers(0, 10**6))
def test_times_there_and_back(seconds: int) -> None:
    assert parse_time(f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}") == seconds
