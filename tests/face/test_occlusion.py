"""What covers a mouth: the network, the mask that follows it, drawn occluders, and the training."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from talkface.face import topology as tp
from talkface.face.crop import MOUTH_REGION, cut, region_matrix, transform
from talkface.face.draw import MAP_CHANNELS
from talkface.face.model import FaceModel
from talkface.face.occlusion import (
    MASK_PIXELS,
    MouthView,
    OcclusionFinder,
    OcclusionNet,
    crop_matrix,
    keep_mask,
    uncovered,
)
from talkface.face.warp import with_ring

SIZE = 320, 240


@dataclass(frozen=True)
class Frame:
    """A reference."""

    crop: np.ndarray
    points: np.ndarray


@pytest.fixture(scope="module")
def points(face: FaceModel) -> np.ndarray:
    """The mean face in the middle of a picture of SIZE, 80 pixels from eye to eye."""
    nose = np.array([*face.mean[1, :2], 0])
    return ((face.mean - nose) * 80 + np.array([160, 120, 0])).astype(np.float32)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.integers(90, 160, (SIZE[1], SIZE[0], 3), dtype=np.uint8)


def reference(image: np.ndarray, points: np.ndarray) -> Frame:
    matrix = region_matrix(points, MOUTH_REGION)
    return Frame(cut(image, matrix, MOUTH_REGION.pixels), transform(with_ring(points), matrix))


@pytest.fixture
def finder(face: FaceModel, image: np.ndarray, points: np.ndarray) -> OcclusionFinder:
    torch.manual_seed(0)
    return OcclusionFinder(OcclusionNet.debug(), face.mesh_warp(), [reference(image, points)])


def probabilities(where: tuple[slice, slice], value: float) -> np.ndarray:
    out = np.full((MASK_PIXELS, MASK_PIXELS), 0.01, np.float32)
    out[where] = value
    return out


def steady(finder: OcclusionFinder, probability: np.ndarray) -> np.ndarray:
    return finder.steady(probability, finder.references[0].points)


THING = np.s_[40:64, 10:30]  # the chin's right half, from below


def doubtful() -> np.ndarray:
    out = probabilities(THING, 0.7)
    out[50, 20] = 0.95
    return out


@pytest.mark.parametrize("side", [64, 96, 128])
def test_network_keeps_the_size(side: int) -> None:
    logits = OcclusionNet.debug()(torch.rand(2, 9 + MAP_CHANNELS, side, side))
    assert logits.shape == (2, 1, side, side)


def test_network_is_saved_and_loaded(tmp_path: Path) -> None:
    from talkface.hub import save_pretrained

    net = OcclusionNet.debug()
    save_pretrained(tmp_path, net.config_dict(), net.state_dict(), dtype=torch.float32)
    x = torch.rand(1, 9 + MAP_CHANNELS, MASK_PIXELS, MASK_PIXELS)
    torch.testing.assert_close(OcclusionNet.from_pretrained(str(tmp_path))(x), net(x))


def test_a_reference_looks_like_the_frame_it_was_cut_from(image: np.ndarray, points: np.ndarray) -> None:
    view, small = MouthView.of(image, points), MouthView.small(reference(image, points))
    np.testing.assert_allclose(small.points, view.points, atol=0.05)


def test_finder_gives_a_mask_of_the_crop(
    finder: OcclusionFinder, image: np.ndarray, points: np.ndarray
) -> None:
    mask = finder(image, points)
    assert (mask.shape, mask.dtype) == ((MASK_PIXELS, MASK_PIXELS), np.float32)
    assert mask.min() >= 0
    assert mask.max() <= 1


def test_what_is_sure_is_masked_at_once(finder: OcclusionFinder) -> None:
    mask = steady(finder, probabilities(THING, 0.97))
    assert mask[THING].min() > 0.8
    assert mask[:20].max() == 0


def test_a_doubtful_thing_must_be_seen_twice(finder: OcclusionFinder) -> None:
    assert steady(finder, doubtful()).max() == 0
    assert steady(finder, doubtful())[THING].min() > 0.8


def test_one_doubtful_frame_does_not_flicker(finder: OcclusionFinder) -> None:
    nothing = probabilities(THING, 0.05)
    for probability in (doubtful(), nothing, nothing, doubtful(), nothing):
        assert steady(finder, probability).max() == 0


def test_a_mask_outlives_doubt(finder: OcclusionFinder) -> None:
    steady(finder, probabilities(THING, 0.97))
    for _ in range(5):
        assert steady(finder, probabilities(THING, 0.45))[THING].min() > 0.8


def test_a_mask_goes_away_little_by_little(finder: OcclusionFinder) -> None:
    shares = [steady(finder, probabilities(THING, value)).sum() for value in (0.97, *[0.02] * 8)]
    assert all(a > b for a, b in pairwise(shares[:4]))
    assert shares[-1] == 0


def test_specks_are_ignored(finder: OcclusionFinder) -> None:
    for _ in range(4):
        assert steady(finder, probabilities(np.s_[30:34, 30:34], 0.99)).max() == 0


def test_an_open_mouth_is_nothing_in_front(finder: OcclusionFinder) -> None:
    lips = finder.references[0].points[tp.LIPS_OUTER, :2]
    (left, top), (right, bottom) = np.round(lips.min(0)).astype(int), np.round(lips.max(0)).astype(int)
    for _ in range(3):
        assert steady(finder, probabilities(np.s_[top:bottom, left:right], 0.99)).max() == 0


def test_what_is_beside_the_face_is_ignored(finder: OcclusionFinder) -> None:
    mesh = finder.references[0].points - np.float32([40, 0, 0])  # it ends before the crop's right border
    assert finder.steady(probabilities(np.s_[20:60, 52:64], 0.99), mesh).max() == 0


def test_forgetting_begins_anew(finder: OcclusionFinder) -> None:
    steady(finder, probabilities(THING, 0.97))
    finder.forget()
    assert steady(finder, probabilities(THING, 0.45)).max() == 0


@settings(max_examples=30, deadline=None)
@given(left=st.integers(4, 40), top=st.integers(4, 40), angle=st.floats(-0.4, 0.4), unit=st.floats(50, 200))
def test_the_mask_comes_back_where_it_was_cut(left: int, top: int, angle: float, unit: float) -> None:
    face = FaceModel.from_pretrained()
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    points = ((face.mean - face.mean[1]) * unit @ turn.T + [320, 240, 0]).astype(np.float32)
    mask = np.zeros((MASK_PIXELS, MASK_PIXELS), np.float32)
    mask[top : top + 20, left : left + 20] = 1
    keep = keep_mask(mask, points, (640, 480))
    assert keep is not None
    assert keep.shape == (480, 640)
    x, y = np.linalg.inv(np.vstack([crop_matrix(points), [0, 0, 1]]))[:2] @ [left + 9.5, top + 9.5, 1]
    assert keep[round(float(y)), round(float(x))] > 0.9
    again = cut(keep, crop_matrix(points), MASK_PIXELS)
    assert np.abs(again - mask).mean() < 0.03


def test_nothing_in_front_needs_no_mask(points: np.ndarray) -> None:
    assert keep_mask(np.zeros((MASK_PIXELS, MASK_PIXELS), np.float32), points, SIZE) is None


def test_a_face_out_of_the_picture_needs_no_mask(points: np.ndarray) -> None:
    mask = np.ones((MASK_PIXELS, MASK_PIXELS), np.float32)
    assert keep_mask(mask, points + np.float32([5000, 0, 0]), SIZE) is None


def test_uncovered_never_leaves_nobody(face: FaceModel, image: np.ndarray, points: np.ndarray) -> None:
    references = [reference(image, points)] * 3
    net = OcclusionNet.debug()
    with torch.no_grad():
        net.head[2].bias.fill_(9.0)  # sees things everywhere
    assert uncovered(net, face.mesh_warp(), references) == [0, 1, 2]
