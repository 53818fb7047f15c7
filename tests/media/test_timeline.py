"""Which frame is shown when, at all rates and in all modes, beside shorter and longer speech."""

import logging
import math
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from media_samples import number_of, numbered, write_film, write_video
from talkface.errors import InvalidOption
from talkface.media.rate import exact_fps, frame_count
from talkface.media.source import SourceVideo
from talkface.media.timeline import MODES, Timeline

FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
RATES = [23.976, 25.0, 29.97, 30.0, 50.0, 60.0]
STEPS = [40, 40, 7, 90, 33, 33, 34, 120, 40, 15, 60, 41]
"""Milliseconds between the frames of the variable rate."""
COUNT = 13


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[float, SourceVideo]:
    """Videos of 13 numbered frames by rate; 0 is variable."""
    folder = tmp_path_factory.mktemp("films")
    sources = {}
    for fps in RATES:
        path = folder / f"{fps}.mp4"
        sources[fps] = SourceVideo(write_film(path, map(numbered, range(COUNT)), exact_fps(fps), keyframes=5))
    times = np.cumsum([0, *STEPS]) / 1000
    path = write_video(folder / "variable.mp4", [numbered(n) for n in range(COUNT)], times.tolist())
    sources[0.0] = SourceVideo(path)
    return sources


def shown(timeline: Timeline, after: float | None = None) -> list[tuple[int, float]]:
    """Numbers and times."""
    return [(number_of(frame.image), frame.time) for frame in timeline.frames(after)]


def expected_numbers(mode: str, count: int, source: int) -> list[int]:
    """The rule of each mode for the first ``count`` frames at a constant rate."""
    if mode == "loop":
        return [k % source for k in range(count)]
    if mode == "bounce":
        return [min(k % (2 * source - 2), 2 * source - 2 - k % (2 * source - 2)) for k in range(count)]
    return list(range(source))[:count]


@FEW
@given(fps=st.sampled_from(RATES), seconds=st.floats(0.01, 2.0), mode=st.sampled_from(MODES))
def test_constant_rates(films: dict[float, SourceVideo], fps: float, seconds: float, mode: str) -> None:
    source, rate = films[fps], exact_fps(fps)
    timeline = Timeline(source, seconds, mode)
    frames = shown(timeline)
    spoken = max(1, frame_count(seconds, rate))
    count = {"silence": COUNT, "cut_off": min(COUNT, spoken)}.get(mode, spoken)
    assert timeline.frame_count == len(timeline) == len(frames) == count
    assert timeline.duration == pytest.approx(float(count / rate))
    assert [time for _, time in frames] == pytest.approx([float(k / rate) for k in range(count)], abs=1e-6)
    numbers = [number for number, _ in frames]
    if mode == "remap":
        pace = COUNT / count
        assert all(abs(number + 0.5 - (k + 0.5) * pace) <= 0.5001 for k, number in enumerate(numbers))
    else:
        assert numbers == expected_numbers(mode, count, COUNT)
    if mode != "silence" and (mode != "cut_off" or seconds < source.duration):
        assert abs(timeline.duration - seconds) <= 0.5 / fps + 1e-9 or count == 1


@FEW
@given(seconds=st.floats(0.01, 2.0), mode=st.sampled_from(MODES))
def test_variable_rate(films: dict[float, SourceVideo], seconds: float, mode: str) -> None:
    source = films[0.0]
    timeline = Timeline(source, seconds, mode)
    frames = shown(timeline)
    times, mean = [time for _, time in frames], 1 / float(source.fps)
    begins = np.cumsum([0, *STEPS]) / 1000
    if mode == "remap":
        assert not timeline.variable
        assert len(frames) == timeline.frame_count == max(1, frame_count(seconds, source.fps))
        pace = source.duration / timeline.frame_count
        wanted = (np.arange(len(frames)) + 0.5) * pace - mean / 2
        nearest = [np.abs(begins - time).argmin() for time in wanted]
        assert [number for number, _ in frames] == nearest
        return
    assert timeline.variable
    if mode == "silence" or (mode == "cut_off" and seconds >= source.duration):
        assert times == pytest.approx(begins.tolist(), abs=1e-6)
        assert timeline.duration == source.duration
        assert timeline.frame_count == COUNT
        return
    assert timeline.duration == seconds
    assert times[0] == 0
    assert times[-1] <= max(0.0, seconds - mean / 2)
    # One picture gives way to the next as in the source, either way.
    for (number, time), (following, later) in pairwise(frames):
        if mode == "loop" and number == COUNT - 1:
            assert (following, later) == (0, pytest.approx(time + source.duration - begins[-1]))
        else:
            assert abs(following - number) == 1
            assert later - time == pytest.approx(STEPS[min(number, following)] / 1000, abs=1e-6)
    if mode == "bounce":
        assert [n for n, _ in frames] == expected_numbers("bounce", len(frames), COUNT)
    longest = max(STEPS) / 1000
    assert seconds - times[-1] <= max(longest, source.duration - begins[-1]) + mean / 2 + 1e-9


@FEW
@given(fps=st.sampled_from([0.0, 25.0, 29.97]), mode=st.sampled_from(MODES), after=st.integers(0, 70))
def test_beginning_later(films: dict[float, SourceVideo], fps: float, mode: str, after: int) -> None:
    timeline = Timeline(films[fps], 2.0, mode)
    frames = shown(timeline)
    after = min(after, len(frames) - 1)
    rest = shown(timeline, frames[after][1])
    assert [number for number, _ in rest] == [number for number, _ in frames[after + 1 :]]
    assert [time for _, time in rest] == pytest.approx([time for _, time in frames[after + 1 :]], abs=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_a_stretch_of_a_video(tmp_path: Path, mode: str) -> None:
    path = write_film(tmp_path / "a.mp4", map(numbered, range(60)), Fraction(25), keyframes=25)
    timeline = Timeline(SourceVideo(path, 1.0, 1.4), 0.8, mode)
    frames = shown(timeline)
    assert timeline.frame_count == len(frames)
    if mode == "remap":
        assert len(frames) == 20
        assert {number for number, _ in frames} == set(range(25, 35))
    else:
        count = 10 if mode in ("cut_off", "silence") else 20
        assert [number - 25 for number, _ in frames] == expected_numbers(mode, count, 10)


@pytest.mark.parametrize("mode", MODES)
def test_one_picture(tmp_path: Path, mode: str) -> None:
    source = SourceVideo(write_film(tmp_path / "a.mp4", [numbered(5)], Fraction(25)))
    frames = shown(Timeline(source, 0.4, mode))
    count = 1 if mode in ("cut_off", "silence") else 10
    assert frames == [(5, pytest.approx(k / 25)) for k in range(count)]


def test_pictures_may_be_painted_on(tmp_path: Path) -> None:
    """Frames that are shown several times are not the same array."""
    source = SourceVideo(write_film(tmp_path / "a.mp4", map(numbered, [7, 8]), Fraction(25)))
    for mode in MODES:
        for frame in Timeline(source, 0.5, mode):
            assert number_of(frame.image) in (7, 8)
            frame.image[:] = 0


def test_bouncing_over_many_chunks(tmp_path: Path) -> None:
    """Longer than what is held at a time, with keyframes apart further than that."""
    path = tmp_path / "a.mp4"
    write_film(path, (numbered(n, 80, 16) for n in range(130)), Fraction(50), keyframes=120)
    numbers = [number for number, _ in shown(Timeline(SourceVideo(path), 6.0, "bounce"))]
    assert numbers == expected_numbers("bounce", 300, 130)


def test_speech_that_is_cut_is_told(
    films: dict[float, SourceVideo], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        Timeline(films[25.0], 0.5, "silence")
    assert not caplog.records
    Timeline(films[25.0], 3.0, "silence")
    assert "2.48 s" in caplog.text


@pytest.mark.parametrize(
    ("seconds", "mode", "says"),
    [(1.0, "cutoff", "cut_off"), (0.0, "loop", "longer"), (math.nan, "loop", "longer")],
)
def test_refused(films: dict[float, SourceVideo], seconds: float, mode: str, says: str) -> None:
    with pytest.raises(InvalidOption, match=says) as caught:
        Timeline(films[25.0], seconds, mode)
    assert "\n" not in str(caught.value)
