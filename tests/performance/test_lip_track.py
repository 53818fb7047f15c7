"""Lips by time: looked up in a stream of which little is held."""

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from talkface.performance.config import SPEECH_WINDOW
from talkface.performance.lip_track import LipTrack
from talkface.performance.lips import SpokenLips

LENGTH = 330


BETA = np.random.default_rng(0).standard_normal((LENGTH, 4)).astype(np.float32)


GATE = np.random.default_rng(1).random(LENGTH).astype(np.float32)


CONTENT = torch.randn(2 * LENGTH, 8, generator=torch.Generator().manual_seed(2))


LEVEL = -30 * torch.rand(2 * LENGTH, generator=torch.Generator().manual_seed(3))


def stretches(step: int = 100) -> Iterator[SpokenLips]:
    for start in range(0, LENGTH, step):
        own, double = slice(start, start + step), slice(2 * start, 2 * (start + step))
        yield SpokenLips(BETA[own], GATE[own], torch.zeros(0), CONTENT[double], LEVEL[double])


@settings(max_examples=40, deadline=None)
@given(
    times=st.lists(st.floats(0, LENGTH / 25 - 0.5), min_size=1, max_size=40),
    step=st.sampled_from([7, 40, 100, 400]),
)
def test_lips_of_any_time_are_those_of_the_whole(times: list[float], step: int) -> None:
    track = LipTrack(stretches(step))
    for time in sorted(times):
        found, place = track.at(time), 25 * time
        low, share = int(place), place - int(place)
        beta = (1 - share) * BETA[low] + share * BETA[low + 1]
        np.testing.assert_allclose(found.beta_mouth, beta, atol=1e-4)
        assert found.gate == pytest.approx((1 - share) * GATE[low] + share * GATE[low + 1], abs=1e-5)
        around = 2 * int(place + 0.5) + np.arange(-SPEECH_WINDOW + 1, SPEECH_WINDOW + 1)
        np.testing.assert_array_equal(found.content, CONTENT.numpy()[around.clip(0)])
        np.testing.assert_array_equal(found.level, LEVEL.numpy()[around.clip(0)])


def test_steps_back_by_a_few_frames_are_allowed() -> None:
    track, again = LipTrack(stretches()), LipTrack(stretches())
    track.at(9.0)
    np.testing.assert_array_equal(track.at(8.8).beta_mouth, again.at(8.8).beta_mouth)


def test_the_mouth_is_closed_when_the_speech_is_over() -> None:
    track = LipTrack(stretches())
    for time in (LENGTH / 25, LENGTH / 25 + 0.3, 60.0, 3600.0):
        found = track.at(time)
        assert not found.beta_mouth.any()
        assert found.gate == 0
        assert np.isfinite(found.content).all()
        assert time < 14 or (found.level == -60).all()


def test_little_is_held_however_far_one_goes() -> None:
    def endless() -> Iterator[SpokenLips]:
        while True:
            yield from stretches()

    track = LipTrack(endless())
    tracemalloc.start()
    track.at(3000.0)
    for time in np.arange(3000, 3060, 0.2):
        track.at(time)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < peak < 60 * 25 * (2 * 8 + 2 + 4 + 1) * 4, "not as much as a minute"
