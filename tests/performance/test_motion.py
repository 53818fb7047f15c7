"""From speech to motion: frames, seeds, strengths, frame rates and smoothing, on tiny random models."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import blocks, spoken
from talkface.face.model import FaceModel
from talkface.face.motion import FaceMotion
from talkface.performance.model import DiffusionPrior, MotionModel
from talkface.performance.motion import SpeechToMotion, Style, resample_stream, smoothed
from talkface.speech.features import ContentEncoder, FeatureStream


@pytest.fixture(scope="module")
def performer() -> SpeechToMotion:
    torch.manual_seed(0)
    features = FeatureStream(ContentEncoder.debug())
    face = FaceModel.from_pretrained()
    return SpeechToMotion(features, MotionModel.debug(), DiffusionPrior.debug(), face, "cpu")


@pytest.mark.parametrize("seconds", [0.06, 0.5, 4.0, 4.02, 9.7])
def test_motion_has_a_frame_every_40_ms(performer: SpeechToMotion, seconds: float) -> None:
    audio = spoken(seconds)
    frames = sum(len(motion) for motion in performer(blocks(audio, 64_000)))
    assert frames == -(-len(audio) // 640)


def test_seeds_change_the_head_and_not_the_lips(performer: SpeechToMotion) -> None:
    audio = spoken(6.0)
    takes = [FaceMotion.concatenate(list(performer([audio], seed=seed))) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(takes[0].rotation, takes[1].rotation)
    np.testing.assert_array_equal(takes[0].beta_mouth, takes[2].beta_mouth)
    assert np.abs(takes[0].rotation - takes[2].rotation).max() > 1e-3


def test_strengths_of_zero_hold_still(performer: SpeechToMotion) -> None:
    style = Style(pose=0, blink=0, gaze=0, expression=0, lips=0)
    motion = FaceMotion.concatenate(list(performer([spoken(2.0)], style=style)))
    for name in ("rotation", "translation", "gaze", "beta_mouth"):
        assert np.abs(getattr(motion, name)).max() == 0
    assert np.abs(motion.beta_upper).max() < 1e-5
    assert (motion.scale == 1).all()


def test_silence_closes_the_mouth(performer: SpeechToMotion) -> None:
    motion = FaceMotion.concatenate(list(performer([np.zeros(48_000, np.float32)])))
    assert np.abs(motion.beta_mouth).max() == 0


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=5),
    st.sampled_from([23.976, 25.0, 29.97, 30.0, 50.0, 60.0]),
)
def test_any_frame_rate_gets_its_exact_number_of_frames(lengths: list[int], fps: float) -> None:
    total = sum(lengths)
    ramp = np.arange(total, dtype=np.float32)[:, None] / 25
    whole = FaceMotion(ramp, ramp, 0 * np.tile(ramp, 3), np.tile(ramp, 2), ramp, np.tile(ramp, 4))
    edges = np.cumsum([0, *lengths])
    parts = [whole[int(a) : int(b)] for a, b in pairwise(edges)]
    count = max(1, round(total / 25 * fps))
    moved = FaceMotion.concatenate(list(resample_stream(iter(parts), fps, count)))
    assert len(moved) == count
    expected = np.minimum(np.arange(count) / fps, (total - 1) / 25)
    np.testing.assert_allclose(moved.beta_mouth[:, 0], expected, atol=1e-4)


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=5))
@settings(deadline=None, max_examples=20)
def test_smoothing_does_not_depend_on_how_the_stream_is_cut(lengths: list[int]) -> None:
    rng, count = np.random.default_rng(0), sum(lengths)
    sizes = {"beta_mouth": 28, "beta_upper": 16, "rotation": 3, "translation": 2, "scale": 1, "gaze": 4}
    drawn = {name: rng.standard_normal((count, size)).astype(np.float32) for name, size in sizes.items()}
    whole = FaceMotion(**drawn, fps=25.0)
    edges = np.cumsum([0, *lengths])
    parts = [whole[int(a) : int(b)] for a, b in pairwise(edges)]
    once, cut = (FaceMotion.concatenate(list(smoothed(stream))) for stream in ([whole], parts))
    assert len(cut) == len(whole)
    np.testing.assert_allclose(cut.rotation, once.rotation, atol=1e-6)
    np.testing.assert_array_equal(cut.beta_mouth, whole.beta_mouth)
