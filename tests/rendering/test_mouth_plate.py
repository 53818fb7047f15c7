"""The plate behind the lips: the portrait's own mouth where it shows one, else the mean of others."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkface.face import topology as tp
from talkface.face.model import FaceModel
from talkface.rendering.mouth_plate import (
    PLATE_HEIGHT,
    PLATE_WIDTH,
    MeanMouth,
    draw_plate,
    mouth_plate,
    plate_corners,
    plate_matrix,
    skin_tone,
    visible_mouth,
)

SCALE, PLACE = 100.0, np.array([128.0, 90.0, 0.0], np.float32)


@pytest.fixture(scope="module")
def neutral() -> np.ndarray:
    mean = FaceModel.from_pretrained().mean.copy()
    middle = (mean[tp.LIPS_INNER_UPPER, 1] + mean[tp.LIPS_INNER_LOWER, 1]) / 2
    mean[tp.LIPS_INNER_UPPER, 1] = mean[tp.LIPS_INNER_LOWER, 1] = middle
    return mean


def posed(points: np.ndarray) -> np.ndarray:
    return (SCALE * points + PLACE).astype(np.float32)


def opened(neutral: np.ndarray, by: float) -> np.ndarray:
    points = neutral.copy()
    points[tp.LIPS_INNER_LOWER, 1] += by
    return points


def test_a_closed_mouth_shows_nothing_of_its_own(neutral: np.ndarray) -> None:
    image = np.random.default_rng(0).integers(80, 200, (256, 256, 3), np.uint8)
    points, corners = posed(neutral), posed(plate_corners(neutral))
    mean_mouth = (
        np.linspace(0.3, 0.9, PLATE_HEIGHT * PLATE_WIDTH * 3)
        .reshape(PLATE_HEIGHT, PLATE_WIDTH, 3)
        .astype(np.float32)
    )
    assert not visible_mouth(image, points, corners)[1].any()
    plate = mouth_plate(image, points, corners, mean_mouth)
    np.testing.assert_allclose(plate, mean_mouth * skin_tone(image, points), atol=1)


def test_an_open_mouth_keeps_its_own_teeth(neutral: np.ndarray) -> None:
    image = np.full((256, 256, 3), 120, np.uint8)
    mouth = opened(neutral, 0.15)
    points, corners = posed(mouth), posed(plate_corners(neutral))
    inside = points[tp.LIPS_INNER, :2].mean(0)
    image[int(inside[1]) - 3 : int(inside[1]) + 4, int(inside[0]) - 5 : int(inside[0]) + 6] = [250, 240, 20]
    plate = mouth_plate(image, points, corners, np.zeros((PLATE_HEIGHT, PLATE_WIDTH, 3), np.float32))
    x, y = np.linalg.solve(plate_matrix(corners)[:, :2], inside - plate_matrix(corners)[:, 2]).astype(int)
    np.testing.assert_allclose(plate[y, x], [250, 240, 20], atol=6)
    assert not plate[-1].any(), "below the lip there is only the mean mouth"


@given(x=st.floats(-15, 15), y=st.floats(-15, 15), size=st.floats(0.7, 1.4))
@settings(deadline=None, max_examples=25)
def test_the_plate_stays_between_the_lips_and_moves_with_the_head(x: float, y: float, size: float) -> None:
    crop = np.full((128, 128, 3), 40, np.uint8)
    inside = np.zeros((64, 64), np.float32)
    inside[20:40, 16:48] = 1
    plate = np.zeros((PLATE_HEIGHT, PLATE_WIDTH, 3), np.uint8)
    plate[:, PLATE_WIDTH // 2 :] = 200
    at_rest = np.array([[16, 32, 0], [16 + 96 * size, 32, 0], [16, 32 + 64 * size, 0]])
    corners = at_rest + np.array([x, y, 0])
    drawn = draw_plate(crop, plate, corners, inside)
    np.testing.assert_array_equal(drawn[:36], crop[:36])
    np.testing.assert_array_equal(drawn[:, 100:], crop[:, 100:])
    bright = drawn[60, 34:94, 0] > 100
    edge = 34 + (int(np.argmax(bright)) if bright.any() else len(bright))
    assert abs(edge - np.clip(16 + 48 * size + x, 34, 94)) <= 2


def test_people_count_alike_in_the_mean() -> None:
    one, many = MeanMouth.empty(), MeanMouth.empty()
    mask = np.zeros((PLATE_HEIGHT, PLATE_WIDTH, 1), np.float32)
    mask[20:30, 40:60] = 1
    for _ in range(20):
        one.add(np.full((PLATE_HEIGHT, PLATE_WIDTH, 3), 50.0), mask, np.full(3, 100.0))
    for _ in range(500):
        many.add(np.full((PLATE_HEIGHT, PLATE_WIDTH, 3), 100.0), mask, np.full(3, 100.0))
    together = MeanMouth.empty()
    together.merge(one)
    together.merge(many)
    np.testing.assert_allclose(together.mean(), 0.75, atol=1e-5)
