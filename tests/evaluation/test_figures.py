"""Figures whose values are known beforehand."""

from functools import cache

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from talkface.evaluation.figures.distributions import frechet, kernel_distance
from talkface.evaluation.figures.fidelity import psnr, ssim
from talkface.evaluation.figures.motion import blink_depths, jitter
from talkface.evaluation.figures.sync import best_correlation, correlation_curve, mouth_distance
from talkface.face.model import FaceModel


@given(lag=st.integers(-5, 5), seed=st.integers(0, 100))
def test_the_curve_finds_any_delay(lag: int, seed: int) -> None:
    signal = np.random.default_rng(seed).standard_normal(80)
    late = np.roll(signal, lag)  # the generated signal comes ``lag`` frames later
    curve = correlation_curve(late[10:-10], signal[10:-10], 7)
    assert int(np.argmax(curve)) - 7 == lag
    assert curve.max() > 0.99


def test_best_correlation_allows_one_frame_only() -> None:
    signal = np.random.default_rng(0).standard_normal(200)
    assert best_correlation(np.roll(signal, 1), signal) > 0.99
    assert best_correlation(np.roll(signal, 3), signal) < 0.4


def test_blinks_are_short_closures() -> None:
    openness = np.ones(100)
    openness[20:23] = 0.1
    openness[50:90] = 0.2  # closed eyes, not a blink
    assert blink_depths(openness) == [pytest.approx(0.1)]
    assert blink_depths(np.ones(50)) == []


@cache
def mean_face() -> np.ndarray:
    """The 3DMM's mean (478, 3)."""
    return FaceModel.from_pretrained().mean


def test_jitter_is_zero_for_even_motion_and_grows_with_noise() -> None:
    mean = mean_face() * 100
    still = np.repeat(mean[None], 20, 0) + np.arange(20)[:, None, None]
    noisy = still + np.random.default_rng(0).standard_normal(still.shape)
    assert jitter(still.astype(np.float64)) == pytest.approx(0, abs=1e-3)
    assert jitter(noisy) > 1.0


@given(scale=st.floats(0.5, 2), angle=st.floats(-1, 1), shift=st.floats(-50, 50))
def test_mouth_distance_ignores_where_the_head_is(scale: float, angle: float, shift: float) -> None:
    points = np.repeat(mean_face()[None] * 100, 3, 0)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = points.copy()
    moved[..., :2] = scale * points[..., :2] @ turn.T + shift
    assert mouth_distance(moved, points) == pytest.approx(0, abs=1e-2)


@given(st.integers(0, 1000))
def test_kernel_distance_tells_kinds_apart_and_is_unbiased(seed: int) -> None:
    generator = np.random.default_rng(seed)
    a, b, other = (generator.normal(size=(100, 8)) for _ in range(3))
    assert kernel_distance(a, b) == pytest.approx(kernel_distance(b, a))
    assert abs(kernel_distance(a, b)) < 0.5 < kernel_distance(a, other + 1)


def test_frechet_of_a_shift_is_its_square() -> None:
    sample = np.random.default_rng(0).standard_normal((500, 3))
    assert frechet(sample, sample) == pytest.approx(0, abs=1e-6)
    assert frechet(sample + np.array([2.0, 0, 0]), sample) == pytest.approx(4, abs=1e-6)


def test_psnr_of_a_known_error() -> None:
    assert psnr(0.0) == float("inf")
    assert psnr(255.0**2 / 1000) == pytest.approx(30)


def test_ssim_is_that_of_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    random = np.random.default_rng(0)
    a = cv2.GaussianBlur(random.integers(0, 256, (40, 56, 3), np.uint8), (0, 0), 2)
    b = np.clip(a + random.normal(0, 8, a.shape), 0, 255).astype(np.uint8)
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = metrics.structural_similarity(a, b, channel_axis=-1, **settings)
    assert ssim(a, b) == pytest.approx(expected, abs=1e-4)
    assert ssim(a, a) == pytest.approx(1, abs=1e-6)
