"""A video that is written in several runs is the same as one that is written in one."""

import json
import resource
import signal
import subprocess
import sys
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TypedDict, Unpack

import av
import numpy as np
import pytest

from media_samples import (
    number_of,
    numbered,
    packets,
    tone,
    write_film,
    write_float_wav,
    write_sound,
    write_video,
)
from talkface.errors import OutputError, UnreadableMedia
from talkface.media.audio import probe_audio
from talkface.media.decode import Frame
from talkface.media.segments import SegmentedWriter
from talkface.media.source import SourceVideo
from talkface.media.timeline import Timeline

SUFFIXES = ["mp4", "mkv", "webm", "mov"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SourceVideo]:
    """Videos of 110 numbered frames, at constant and variable rate."""
    folder = tmp_path_factory.mktemp("sources")
    constant = write_film(folder / "a.mp4", map(numbered, range(110)), Fraction(30000, 1001))
    steps = np.random.default_rng(0).integers(5, 70, 109)
    times = (np.cumsum([0, *steps]) / 1000).tolist()
    variable = write_video(folder / "b.mp4", [numbered(n) for n in range(110)], times)
    return {"constant": SourceVideo(constant), "variable": SourceVideo(variable)}


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sound(tmp_path_factory.mktemp("voice") / "a.m4a", tone(3.0, 16000), 16000, "aac")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Options(TypedDict, total=False):
    audio: Path
    metadata: dict[str, str]
    overwrite: bool
    resume: bool
    fingerprint: str
    crf: int


def write(
    path: Path,
    timeline: Timeline,
    stop: int | None = None,
    error: BaseException | None = None,
    **options: Unpack[Options],
) -> int:
    """Write a timeline, from where an earlier run was interrupted, or until an error."""
    with SegmentedWriter(
        path,
        like=timeline.source,
        segment_seconds=1.0,
        duration=timeline.duration,
        **Options(fingerprint="same") | options,
    ) as writer:
        for frame in islice(timeline.frames(writer.time_done), stop):
            writer.write(frame.image, frame.time)
        if error:
            raise error
    return writer.frames_done


def interrupted(path: Path, timeline: Timeline, stop: int, **options: Unpack[Options]) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(path, timeline, stop, KeyboardInterrupt(), **options)


def video_packets(path: Path) -> list[tuple[int | None, int | None, int | None, bytes]]:
    """Times and content."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [(p.pts, p.dts, p.duration, bytes(p)) for p in container.demux(stream) if p.size]


def shown(path: Path) -> list[tuple[int, float]]:
    return [(number_of(frame.image), frame.time) for frame in SourceVideo(path)]


@pytest.mark.parametrize("kind", ["constant", "variable"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_whole(tmp_path: Path, sources: dict[str, SourceVideo], voice: Path, kind: str, suffix: str) -> None:
    source = sources[kind]
    timeline, path = Timeline(source, 60.0, "cut_off"), tmp_path / f"a.{suffix}"
    write(path, timeline, audio=voice, metadata={"model": "debug"})
    assert names(tmp_path) == [path.name]
    wanted = [(number_of(frame.image), pytest.approx(frame.time, abs=1.1e-3)) for frame in source]
    assert shown(path) == wanted
    written = SourceVideo(path)
    assert (written.variable, written.size) == (source.variable, source.size)
    if suffix in ("mp4", "mov"):
        assert written.frame_count == 110
        assert written.duration == pytest.approx(source.duration, abs=1e-3)
        assert [time for _, time in shown(path)] == pytest.approx([f.time for f in source], abs=1e-6)
        assert path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat")
    if suffix != "webm":
        assert packets(path) == packets(voice)
    assert probe_audio(path).duration == pytest.approx(3.0, abs=0.15)
    with av.open(str(path)) as container:
        assert {key.lower(): value for key, value in container.metadata.items()}["model"] == "debug"


@pytest.mark.parametrize("kind", ["constant", "variable"])
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("mode", ["cut_off", "bounce"])
def test_resumed(
    tmp_path: Path, sources: dict[str, SourceVideo], voice: Path, kind: str, suffix: str, mode: str
) -> None:
    timeline = Timeline(sources[kind], 5.0, mode)
    one, two = tmp_path / f"one.{suffix}", tmp_path / f"two.{suffix}"
    write(one, timeline, audio=voice)
    interrupted(two, timeline, 70, audio=voice)
    assert not two.exists()
    interrupted(two, timeline, 35, audio=voice, resume=True)
    done = write(two, timeline, audio=voice, resume=True)
    assert done >= 75
    assert shown(two) == shown(one)
    assert video_packets(two) == video_packets(one)
    assert names(tmp_path) == sorted([one.name, two.name])


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import numpy as np
from media_samples import numbered
from talkface.media.segments import SegmentedWriter
with SegmentedWriter({path!r}, size=(80, 32), fps=25, segment_seconds=1.0, fingerprint="x") as writer:
    for number in range(90):
        writer.write(numbered(number))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    code = KILLED.format(tests=str(Path(__file__).parents[1]), path=str(path))
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    assert names(tmp_path) == [".a.mp4.parts"]
    with SegmentedWriter(
        path, size=(80, 32), fps=25, segment_seconds=1.0, fingerprint="x", resume=True
    ) as writer:
        assert (writer.frames_done, writer.time_done) == (75, pytest.approx(74 / 25))
        for number in range(writer.frames_done, 110):
            writer.write(numbered(number))
        assert writer.frames == 110
    assert shown(path) == [(number, pytest.approx(number / 25)) for number in range(110)]
    assert names(tmp_path) == [path.name]


def test_what_does_not_fit_is_not_taken(tmp_path: Path, sources: dict[str, SourceVideo]) -> None:
    """Other inputs, other options, or no wish to resume."""
    timeline, path = Timeline(sources["constant"], 60.0, "cut_off"), tmp_path / "a.mp4"
    over = Options(overwrite=True)
    several: list[Options] = [{"fingerprint": "other", "resume": True}, {"crf": 30, "resume": True}, {}]
    for options in several:
        interrupted(path, timeline, 80, overwrite=True)
        assert write(path, timeline, **over | options) == 0
        assert len(shown(path)) == 110
        assert names(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize("harm", ["shorter", "gone", "state"])
def test_damaged_parts_are_made_again(tmp_path: Path, sources: dict[str, SourceVideo], harm: str) -> None:
    timeline, path = Timeline(sources["constant"], 60.0, "cut_off"), tmp_path / "a.mp4"
    interrupted(path, timeline, 100)
    parts = tmp_path / ".a.mp4.parts"
    part = parts / json.loads((parts / "state.json").read_text())["segments"][1]["name"]
    if harm == "shorter":
        part.write_bytes(part.read_bytes()[:-1])
    elif harm == "gone":
        part.unlink()
    else:
        (parts / "state.json").write_text("{")
    assert write(path, timeline, resume=True) == (0 if harm == "state" else 30)
    assert [number for number, _ in shown(path)] == list(range(110))


def test_interruption_is_told(
    tmp_path: Path, sources: dict[str, SourceVideo], caplog: pytest.LogCaptureFixture
) -> None:
    timeline, path = Timeline(sources["constant"], 60.0, "cut_off"), tmp_path / "a.mp4"
    interrupted(path, timeline, 20)
    assert names(tmp_path) == []  # nothing is finished
    assert not caplog.records
    interrupted(path, timeline, 100)
    assert len(caplog.records) == 1
    assert "90 frames" in caplog.text
    assert "set resume" in caplog.text


def test_other_errors_leave_nothing(tmp_path: Path, sources: dict[str, SourceVideo], voice: Path) -> None:
    timeline, path = Timeline(sources["constant"], 60.0, "cut_off"), tmp_path / "a.mp4"
    for error in (RuntimeError("a bug"), UnreadableMedia("damaged")):
        with pytest.raises(type(error)):
            write(path, timeline, 100, error, audio=voice)
        assert names(tmp_path) == []
    path.write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists already"):
        write(path, timeline)
    with pytest.raises(RuntimeError):
        write(path, timeline, 100, RuntimeError(), overwrite=True)
    assert path.read_bytes() == b"precious"
    with pytest.raises(OutputError, match="no frames"):
        write(path, timeline, 0, overwrite=True)
    assert path.read_bytes() == b"precious"
    assert names(tmp_path) == ["a.mp4"]


def test_sound_that_cannot_be_read_is_found_first(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound" * 99)
    with pytest.raises(UnreadableMedia):
        SegmentedWriter(tmp_path / "a.mp4", size=(32, 32), fps=25, audio=tmp_path / "text.wav")
    assert names(tmp_path) == ["text.wav"]


def test_full_disk_costs_nothing_that_is_finished(
    tmp_path: Path, sources: dict[str, SourceVideo], voice: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No file of this process may grow larger, as if the disk were full when all is put together."""
    timeline, path = Timeline(sources["constant"], 60.0, "cut_off"), tmp_path / "a.mp4"
    write(path, timeline, audio=voice)
    size = path.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (round(size * 0.8), hard))
    try:
        with pytest.raises(OutputError, match="cannot be written") as caught:
            write(path, timeline, audio=voice, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert "110 frames" in caplog.text
    assert names(tmp_path) == [".a.mp4.parts", "a.mp4"]
    assert path.stat().st_size == size
    assert write(path, timeline, audio=voice, overwrite=True, resume=True) == 110
    assert [number for number, _ in shown(path)] == list(range(110))
    assert names(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize("seconds", [1.0, 10.0])
def test_sound_that_is_longer_ends_with_the_pictures(
    tmp_path: Path, sources: dict[str, SourceVideo], seconds: float
) -> None:
    timeline, path = Timeline(sources["variable"], seconds, "cut_off"), tmp_path / "a.mp4"
    long = write_float_wav(tmp_path / "long.wav", tone(10.0, 16000), 16000)
    write(path, timeline, audio=long)
    assert probe_audio(path).duration == pytest.approx(timeline.duration, abs=0.07)
    assert SourceVideo(path).duration == pytest.approx(timeline.duration, abs=1e-3)


def test_the_chosen_track_is_heard(tmp_path: Path) -> None:
    sounds = [tone(1.0, 16000, hertz=hertz) for hertz in (300, 900)]
    path = write_film(tmp_path / "a.mp4", map(numbered, range(25)), Fraction(25), sounds)
    out = tmp_path / "b.mp4"
    with SegmentedWriter(out, like=SourceVideo(path), audio=path, audio_stream=1) as writer:
        for number in range(25):
            writer.write(numbered(number))
    heard = np.concatenate(list(SourceVideo(out).speech()))
    assert np.abs(np.fft.rfft(heard)).argmax() == pytest.approx(900, abs=3)


def test_gaps_stay_gaps(tmp_path: Path) -> None:
    """Where frames of a constant rate are missing, those after them keep their times."""
    frames = [Frame(numbered(n), n / 25) for n in range(60) if n not in (10, 11, 30, 49, 50, 51)]
    path = tmp_path / "a.mp4"
    with SegmentedWriter(path, size=(80, 32), fps=25, segment_seconds=1.0) as writer:
        for frame in frames:
            writer.write(frame.image, frame.time)
    assert shown(path) == [(round(f.time * 25), pytest.approx(f.time)) for f in frames]
