"""Videos keep times, sizes, colours and sound; what goes wrong leaves nothing behind."""

import errno
import logging
import resource
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from media_samples import gradient, packets, tone, write_float_wav, write_sound, write_video
from talkface.errors import OutputError, UnreadableMedia
from talkface.media.audio import probe_audio, read_audio
from talkface.media.files import output_error
from talkface.media.rate import exact_fps, frame_count
from talkface.media.video import VideoReader, VideoWriter

SAME_FOLDER = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
RATES = st.sampled_from([12.0, 23.976, 24.0, 25.0, 29.97, 30.0, 50.0, 59.94, 60.0])


def write(
    path: Path,
    count: int,
    fps: float = 25,
    size: tuple[int, int] = (32, 32),
    audio: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    with VideoWriter(path, size, fps, audio, overwrite=overwrite) as writer:
        for number in range(count):
            writer.write(gradient(*size, number % 50))
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def lengths(path: Path) -> tuple[float, float]:
    """Seconds of the pictures and of the sound, as players show them."""
    with VideoReader(path) as video:
        return len(list(video)) / video.fps, probe_audio(path).duration


# -- reading ---------------------------------------------------------------------------------------


@SAME_FOLDER
@given(steps=st.lists(st.integers(5, 400), min_size=1, max_size=12), suffix=st.sampled_from(["mp4", "mkv"]))
def test_variable_frame_rate(tmp_path: Path, steps: list[int], suffix: str) -> None:
    times = np.cumsum([0, *steps]) / 1000
    images = [gradient(32, 32, number) for number in range(len(times))]
    with VideoReader(write_video(tmp_path / f"a.{suffix}", images, times.tolist())) as video:
        read = [frame.time for frame in video]
        assert video.fps > 0
    assert np.allclose(read, times, atol=0.0011)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation(tmp_path: Path, degrees: int) -> None:
    upright = gradient(64, 48)
    # Players turn by the given angle, against the clock.
    stored = np.ascontiguousarray(np.rot90(upright, -degrees // 90))
    path = write_video(tmp_path / "a.mp4", [stored] * 3, rotation=degrees)
    with VideoReader(path) as video:
        assert video.size == (64, 48)
        for frame in video:
            assert np.abs(frame.image.astype(int) - upright).mean() < 4


PIXELS = [
    ("a.mp4", "libx264", "yuv420p"),
    ("a.mp4", "libx264", "yuv444p"),
    ("a.mkv", "libx264", "yuv420p10le"),
    ("a.mp4", "libx264", "gray"),
    ("a.mkv", "ffv1", "yuv422p10le"),
    ("a.mkv", "ffv1", "bgra"),
    ("a.mov", "qtrle", "argb"),
    ("a.mov", "png", "rgb48be"),
    ("a.avi", "mjpeg", "yuvj420p"),
    ("a.webm", "libvpx-vp9", "yuv420p"),
    ("a.gif", "gif", "rgb8"),
]


@pytest.mark.parametrize(("name", "codec", "pixels"), PIXELS, ids=[f"{c}-{p}" for _, c, p in PIXELS])
def test_pixel_formats(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    image = gradient(64, 48)
    expected = image if pixels != "gray" else np.repeat((image @ [0.299, 0.587, 0.114])[..., None], 3, 2)
    path = write_video(tmp_path / name, [image] * 3, codec=codec, pix_fmt=pixels)
    with VideoReader(path) as video:
        frames = list(video)
        assert video.size == (64, 48)
        assert not video.has_audio
    assert len(frames) == 3
    assert frames[1].time == pytest.approx(0.04, abs=0.002)
    # Eight bits for all colours are few; grey is written without saying that black is 0.
    limit = {"rgb8": 25, "gray": 8}.get(pixels, 4)
    assert np.abs(frames[1].image.astype(float) - expected).mean() < limit


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"x264-params": "sar=2/1"})
        stream.width, stream.height, stream.pix_fmt = 32, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(gradient(32, 48), format="rgb24")))
        container.mux(stream.encode(None))
    with VideoReader(path) as video:
        assert video.size == (64, 48)
        assert next(iter(video)).image.shape == (48, 64, 3)


def test_damaged_frames_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.avi"
    images = [np.random.default_rng(number).integers(0, 255, (64, 64, 3), np.uint8) for number in range(20)]
    write_video(path, images, codec="mjpeg", pix_fmt="yuvj420p")
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        places = [((packet.pos or 0) + 8, packet.size) for packet in container.demux(video=0) if packet.size]
    for place, size in places[5:8]:  # after the head of its chunk
        data[place : place + size] = bytes(size)
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING), VideoReader(path) as video:
        frames = list(video)
    assert len(frames) == 17
    assert frames[5].time == pytest.approx(8 / 25, abs=0.01)
    assert "damaged" in caplog.text


def test_one_reader_reads_twice_and_knows_its_file(tmp_path: Path) -> None:
    source = write_sound(tmp_path / "a.m4a", tone(1.0, 16000), 16000, "aac")
    path = write(tmp_path / "a.mp4", 25, audio=source)
    with VideoReader(path) as video:
        assert [frame.time for frame in video] == [frame.time for frame in video]
        assert (video.has_audio, video.size) == (True, (32, 32))
        assert (video.fps, video.duration) == (25.0, 1.0)
        assert abs(video.audio_offset) < 0.001


def cut_film(path: Path) -> None:
    write_video(path, [gradient(64, 64, number) for number in range(20)])
    path.write_bytes(path.read_bytes()[:600])


BAD: list[tuple[str, Callable[[Path], object], str]] = [
    ("missing.mp4", lambda path: None, "does not exist"),
    ("folder.mp4", lambda path: path.mkdir(), "directory"),
    ("empty.mp4", lambda path: path.write_bytes(b""), "empty"),
    ("text.mp4", lambda path: path.write_text("no film" * 99), "no sound or video"),
    ("noise.mp4", lambda path: path.write_bytes(np.random.default_rng(0).bytes(9999)), "damaged"),
    ("cut.mp4", cut_film, "cut off"),
    ("voice.wav", lambda path: write_sound(path, tone(0.2, 16000), 16000, "pcm_s16le"), "sound file"),
    ("picture.jpg", lambda path: Image.new("RGB", (64, 64)).save(path), "picture"),
    ("picture.png", lambda path: Image.new("RGB", (64, 64)).save(path), "picture"),
]


@pytest.mark.parametrize(("name", "make", "says"), BAD, ids=[name for name, *_ in BAD])
def test_read_refused(tmp_path: Path, name: str, make: Callable[[Path], object], says: str) -> None:
    path = tmp_path / name
    make(path)
    with pytest.raises(UnreadableMedia, match=says) as caught:
        list(VideoReader(path))
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


# -- writing ---------------------------------------------------------------------------------------


@SAME_FOLDER
@given(width=st.integers(2, 70), height=st.integers(2, 70))
def test_sizes(tmp_path: Path, width: int, height: int) -> None:
    grey = gradient(width, height)[..., [0, 0, 0]]
    path = tmp_path / "a.mp4"
    with VideoWriter(path, (width, height), 25, overwrite=True) as writer:
        writer.write(grey)
    with VideoReader(path) as video:
        image = next(iter(video)).image
    assert video.size == (width + width % 2, height + height % 2)
    assert image.shape == (*video.size[::-1], 3)
    assert np.abs(image[:height, :width].astype(int) - grey).mean() < 6


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".m4v"])
def test_colours_are_kept_and_tagged(tmp_path: Path, suffix: str) -> None:
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128], [255, 255, 255], [0, 0, 0]])
    image = np.repeat(np.repeat(colours[None], 32, 1), 32, 0).astype(np.uint8)
    path = tmp_path / f"a{suffix}"
    with VideoWriter(path, (192, 32), 25, metadata={"synthetic": "true", "model": "é"}) as writer:
        for _ in range(3):
            writer.write(image)
    with VideoReader(path) as video:
        read = next(iter(video)).image
    middles = read[16, 16::32].astype(int)
    assert np.abs(middles - colours).max() <= 6
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_range, context.pix_fmt) == (1, 1, "yuv420p")
        metadata = {key.lower(): value for key, value in container.metadata.items()}
        assert (metadata["synthetic"], metadata["model"]) == ("true", "é")


SOUNDS = [
    ("a.m4a", "aac", 44100),
    ("a.mp3", "libmp3lame", 44100),
    ("a.opus", "libopus", 48000),
    ("a.flac", "flac", 16000),
    ("b.m4a", "alac", 48000),
    ("a.ac3", "ac3", 48000),
    ("a.eac3", "eac3", 48000),
    ("a.mkv", "aac", 48000),
    ("a.wav", "pcm_s16le", 16000),
    ("a.mp4", "aac", 8000),
]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
@pytest.mark.parametrize(("name", "codec", "rate"), SOUNDS, ids=[f"{n}-{c}" for n, c, _ in SOUNDS])
def test_sound_is_passed_through_unchanged_if_possible(
    tmp_path: Path, name: str, codec: str, rate: int, suffix: str
) -> None:
    source = write_sound(tmp_path / name, tone(1.2, rate, 2), rate, codec)
    count = frame_count(probe_audio(source).duration, 25)
    path = write(tmp_path / f"out{suffix}", count, audio=source)
    unchanged = {
        ".mp4": codec != "pcm_s16le",
        ".mkv": True,
        ".mov": codec not in ("flac", "libopus"),
        ".webm": codec == "libopus",
    }[suffix]
    if unchanged and not codec.startswith("pcm"):  # raw samples have no packets of their own
        assert packets(path) == packets(source)
    pictures, sound = lengths(path)
    # Matroska does not say where in the last packet to stop.
    slack = 0.0 if suffix in (".mp4", ".mov") else 2048 / rate
    assert abs(sound - pictures) <= 1 / 25 + slack
    before, after = read_audio(source), read_audio(path)
    shift = (onset(after) - onset(before)) / 16000
    with VideoReader(path) as video:
        # Where the container cannot leave samples out, the sound starts that much before the pictures.
        assert abs(shift + video.audio_offset) <= 0.005
        assert suffix not in (".mp4", ".mov") or abs(video.audio_offset) < 0.001


def onset(sound: np.ndarray) -> int:
    """The first sample that is loud."""
    return int(np.argmax(np.abs(sound) > 0.1))


@SAME_FOLDER
@given(
    fps=RATES,
    seconds=st.floats(0.3, 2.0),
    extra=st.floats(0.0, 1.5),
    kind=st.sampled_from(
        [("v.m4a", "aac", 8000), ("v.m4a", "aac", 48000), ("v.flac", "flac", 16000), ("v.wav", "", 22050)]
    ),
)
def test_sound_ends_with_the_pictures(
    tmp_path: Path, fps: float, seconds: float, extra: float, kind: tuple[str, str, int]
) -> None:
    name, codec, rate = kind
    voice = tone(seconds + extra, rate)
    if codec:
        source = write_sound(tmp_path / name, voice, rate, codec)
    else:
        source = write_float_wav(tmp_path / name, voice, rate)
    count = frame_count(seconds, fps)
    path = write(tmp_path / "a.mp4", count, fps, (16, 16), audio=source, overwrite=True)
    with VideoReader(path) as video:
        assert len(list(video)) == count
        assert video.fps == pytest.approx(float(exact_fps(fps)), rel=1e-3)
    assert abs(probe_audio(path).duration - count / exact_fps(fps)) <= 1 / exact_fps(fps) + 1e-3


@pytest.mark.parametrize("channels", range(1, 7))
@pytest.mark.parametrize("rate", [8000, 11025, 96000, 37800])
def test_encoded_sound_keeps_channels_and_rate(tmp_path: Path, channels: int, rate: int) -> None:
    source = write_float_wav(tmp_path / "a.wav", tone(0.6, rate, channels), rate)
    info = probe_audio(write(tmp_path / "a.mp4", 15, audio=source))
    assert (info.codec, info.channels) == ("aac", channels)
    assert info.sample_rate == (48000 if rate == 37800 else rate)
    assert info.duration == pytest.approx(0.6, abs=0.04)


def test_shorter_sound_and_no_sound(tmp_path: Path) -> None:
    source = write_sound(tmp_path / "a.m4a", tone(0.4, 16000), 16000, "aac")
    pictures, sound = lengths(write(tmp_path / "a.mp4", 25, audio=source))
    assert (pictures, round(sound, 3)) == (1.0, 0.4)
    with VideoReader(write(tmp_path / "b.mp4", 25)) as video:
        assert not video.has_audio


def test_sound_of_a_video_that_starts_late(tmp_path: Path) -> None:
    source = tmp_path / "late.mkv"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("flac", rate=16000, layout="mono")
        whole = np.full((1, 16000), 8000, "<i2")
        frame = av.AudioFrame.from_ndarray(whole, format="s16", layout="mono")
        frame.sample_rate, frame.pts = 16000, 160_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    path = write(tmp_path / "a.mp4", 25, audio=source)
    assert packets(path) == packets(source)
    assert lengths(path) == (1.0, pytest.approx(1.0, abs=0.002))


def test_sound_is_interleaved(tmp_path: Path) -> None:
    source = write_sound(tmp_path / "a.m4a", tone(8.0, 16000), 16000, "aac")
    path = write(tmp_path / "a.mkv", 200, audio=source)
    with av.open(str(path)) as container:
        times: dict[str, float] = {"audio": 0.0, "video": 0.0}
        for packet in container.demux():
            if packet.size and packet.dts is not None:
                times[packet.stream.type] = float(packet.dts * packet.time_base)
                assert abs(times["audio"] - times["video"]) < 1.5


@pytest.mark.parametrize("name", ['it\'s $HOME "x" %03d #é日本 :1.mp4', "-i.mp4", "http:x.mp4"])
def test_odd_names(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = write_sound(Path("it's :%d $x é.wav").absolute(), tone(0.2, 16000), 16000, "pcm_s16le")
    write(Path(name), 5, audio=source.name)
    assert probe_audio(name).duration == pytest.approx(0.2)
    assert names(tmp_path) == sorted([name, source.name])


def write_and_fail(
    path: Path, error: type[BaseException], audio: Path | None = None, overwrite: bool = False
) -> None:
    with VideoWriter(path, (32, 32), 25, audio, overwrite=overwrite) as writer:
        for number in range(40):
            writer.write(gradient(32, 32, number))
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_left_after_an_error(tmp_path: Path, error: type[BaseException]) -> None:
    source = write_sound(tmp_path / "a.m4a", tone(2.0, 16000), 16000, "aac")
    with pytest.raises(error):
        write_and_fail(tmp_path / "a.mp4", error, audio=source)
    assert names(tmp_path) == ["a.m4a"]


def test_old_file_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists already"):
        VideoWriter(path, (32, 32), 25)
    with pytest.raises(RuntimeError):
        write_and_fail(path, RuntimeError, overwrite=True)
    assert path.read_bytes() == b"precious"
    with pytest.raises(OutputError, match="no frames"):
        write(path, 0, overwrite=True)
    assert path.read_bytes() == b"precious"
    write(path, 3, overwrite=True)
    assert names(tmp_path) == ["a.mp4"]
    with VideoReader(path) as video:
        assert len(list(video)) == 3


@pytest.mark.parametrize(
    "name", ["nowhere/a.mp4", "a.docx", "a", "folder.mp4", "/proc/a.mp4", "x" * 300 + ".mp4"]
)
def test_write_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(OutputError) as caught:
        VideoWriter(tmp_path / name, (32, 32), 25)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["folder.mp4"]


def test_bad_sound_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound" * 99)
    with pytest.raises(UnreadableMedia):
        VideoWriter(tmp_path / "a.mp4", (32, 32), 25, tmp_path / "text.wav")
    assert names(tmp_path) == ["text.wav"]


def test_wrong_frames_are_a_bug(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", (32, 32), 25) as writer:
        writer.write(gradient(32, 32))
        for image in (gradient(32, 30), gradient(32, 32).astype(float), gradient(32, 32)[..., 0]):
            with pytest.raises(ValueError, match="frame is"):
                writer.write(image)
    assert names(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.9, 0.97, 0.999])
def test_full_disk(tmp_path: Path, suffix: str, part: float) -> None:
    """No file of this process may grow larger, as if the disk were full at some stage of the writing."""
    source = write_sound(tmp_path / "a.wav", tone(2.0, 16000), 16000, "pcm_s16le")
    whole = write(tmp_path / f"whole{suffix}", 50, audio=source).stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(whole * part), hard))
    try:
        with pytest.raises(OutputError, match="cannot be written") as caught:
            write(tmp_path / f"a{suffix}", 50, audio=source)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["a.wav", f"whole{suffix}"]


def test_full_disk_is_called_so(tmp_path: Path) -> None:
    for number, says in ((errno.ENOSPC, "disk is full"), (errno.EACCES, "permission")):
        message = str(output_error(tmp_path / "a.mp4", av.error.FFmpegError(number, "x")))
        assert says in message
        assert "a.mp4" in message
