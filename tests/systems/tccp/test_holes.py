"""Holes, what is drawn at their border, and stage 2's initial estimate."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from talkface.errors import InvalidOption
from talkface.face.matting import PersonMatte
from talkface.face.tracker import FaceTracker
from talkface.media.source import SourceVideo
from talkface.systems.tccp.border import continued, joined, membrane
from talkface.systems.tccp.detail import with_reference
from talkface.systems.tccp.estimate import initial_estimate
from talkface.systems.tccp.holes import Hole, beside, box_hole, cells, covered, face_hole
from talkface.systems.tccp.masks import read_mask


@given(st.integers(0, 60), st.integers(0, 60), st.integers(4, 90), st.integers(4, 90), st.floats(0, 20))
def test_a_box_is_a_hole_of_that_size(left: int, top: int, width: int, height: int, soft: float) -> None:
    mask = box_hole((left, top, left + width, top + height), (96, 80), soft)
    assert mask.shape == (80, 96)
    inside = np.zeros((80, 96), bool)
    inside[top : top + height, left : left + width] = True
    np.testing.assert_array_equal(mask > 0, inside)
    hole = Hole.of(mask)
    assert hole is not None
    assert hole.box == (left, top, min(96, left + width), min(80, top + height))


@given(st.integers(0, 63), st.integers(1, 64))
def test_a_strangers_place_is_beside_the_hole(left: int, width: int) -> None:
    hidden = np.zeros((3, 64, 64))
    hidden[1, 20:40, left : left + width] = 1
    place = beside(hidden)
    free = max(left, 64 - min(left + width, 64))
    if place is None:
        assert free < 8
    else:
        assert not hidden[:, :, place].any()
        assert 6 <= place.stop - place.start < free
    assert beside(np.zeros((3, 64, 64))) is None


def test_what_is_hidden_is_grey_and_the_rest_as_it_was(picture: Image.Image) -> None:
    image = np.asarray(picture)
    points = FaceTracker().track_image(image)[0].points
    mask = face_hole(points, (image.shape[1], image.shape[0]), 0.25)
    grey = covered(image, mask)
    np.testing.assert_array_equal(grey[mask == 0], image[mask == 0])
    assert (grey[mask > 0] == 127).all()
    larger = face_hole(points, (image.shape[1], image.shape[0]), 0.6)
    assert ((larger > 0) >= (mask > 0)).all()
    assert cells(mask, 16).shape == (16, 16)


@pytest.mark.parametrize(
    ("mask", "named"),
    [
        ("0,0,0,9", "leaves the frame"),
        ("500,0,50,50", "leaves the frame"),
        ("a,b,c,d", "no box"),
        ("1,1,8,80", "no head fits"),
        ("0,0,1000,1000", "everything"),
        ("none.png", "no file"),
    ],
)
def test_masks_in_which_nothing_can_be_filled_are_refused(talking: Path, mask: str, named: str) -> None:
    with pytest.raises(InvalidOption, match=named):
        read_mask(mask, SourceVideo(talking))


def test_mask_pictures(talking: Path, tmp_path: Path) -> None:
    source = SourceVideo(talking)
    for name, value, named in (("black", 0, "nothing"), ("white", 255, "everything")):
        Image.fromarray(np.full((50, 50, 3), value, np.uint8)).save(tmp_path / f"{name}.png")
        with pytest.raises(InvalidOption, match=named):
            read_mask(str(tmp_path / f"{name}.png"), source)
    half = np.zeros((50, 50, 3), np.uint8)
    half[10:40, 10:40] = 255
    Image.fromarray(half).save(tmp_path / "half.png")
    frames = list(read_mask(str(tmp_path / "half.png"), source).follow(source.frames()))
    assert len(frames) == source.frame_count
    assert all(one.hole is not None and one.hole.mask.shape == source.size[::-1] for one in frames)


@given(st.integers(0, 2**31))
def test_a_filled_hole_has_no_step_and_nothing_else_changes(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scene = generator.uniform(0, 255, 3) + np.linspace(0, 30, 64)[:, None, None] + np.zeros((64, 64, 3))
    scene = scene.astype(np.float32)
    hole = box_hole((16, 20, 48, 50), (64, 64), 4)
    drawn = (scene + generator.normal(0, 40, 3)).astype(np.float32)  # another tone
    drawn[hole > 0] += 3
    filled = joined(scene, drawn, hole)
    np.testing.assert_array_equal(filled[hole == 0], scene[hole == 0])
    assert np.abs(np.diff(filled, axis=0)).max() < 12
    spoilt = scene.copy()
    spoilt[hole > 0] = generator.uniform(0, 255, (int((hole > 0).sum()), 3))
    np.testing.assert_allclose(joined(spoilt, drawn, hole), filled, atol=1e-3)


@given(st.integers(0, 2**16))
@settings(max_examples=20, deadline=None)
def test_the_face_is_the_references_in_the_light_that_was_drawn(seed: int) -> None:
    random = np.random.default_rng(seed)
    moved = random.integers(60, 160, (64, 64, 3)).astype(np.uint8)
    drawn = cv2.GaussianBlur(moved, (0, 0), 3.0).astype(np.float32)
    light = random.uniform(-50, 50, 3).astype(np.float32)
    inside = box_hole((8, 8, 56, 56), (64, 64), 4)
    lit = with_reference(drawn + light, moved, inside)
    np.testing.assert_array_equal(lit[inside == 0], (drawn + light)[inside == 0])
    middle = slice(16, 48)
    apart = lit[middle, middle] - light - moved[middle, middle]
    assert np.abs(apart).mean() < 0.5 * np.abs(drawn - moved)[middle, middle].mean()
    np.testing.assert_allclose(with_reference(drawn, moved, inside) + light, lit, atol=1e-2)
    np.testing.assert_array_equal(with_reference(drawn, moved, np.zeros_like(inside)), drawn)


@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(0, 255))
def test_a_membrane_leaves_slopes_as_they_are(across: float, down: float, level: float) -> None:
    y, x = np.mgrid[:40, :50]
    plane = (level + across * x + down * y).astype(np.float32)[..., None].repeat(3, 2)
    free = np.zeros((40, 50), bool)
    free[5:30, 10:45] = True
    np.testing.assert_allclose(membrane(plane, free), plane, atol=1e-2)


@given(st.integers(0, 2**16))
@settings(max_examples=20, deadline=None)
def test_stripes_that_differ_at_the_border_leave_no_step(seed: int) -> None:
    colours = np.random.default_rng(seed).uniform(0, 255, (1, 8, 3)).astype(np.float32)
    scene = cv2.resize(colours, (64, 64), interpolation=cv2.INTER_LINEAR)
    hole = box_hole((16, 20, 48, 50), (64, 64), 4)
    spread = continued(scene, (hole == 0).astype(np.float32))
    top = int(np.flatnonzero((hole > 0).any(1))[0])
    coarse, fine = (
        np.abs(filled[top, 24:44] - scene[top, 24:44]).mean()
        for filled in (spread, joined(scene, np.zeros_like(scene), hole))
    )
    assert fine < 0.7 * coarse


@given(st.integers(0, 2**16))
@settings(max_examples=20, deadline=None)
def test_beside_the_person_the_background_goes_on(seed: int) -> None:
    """Whatever was drawn there, and whatever colours the person has."""
    random = np.random.default_rng(seed)
    ground, skin, wrong = random.uniform(0, 255, (3, 3)).astype(np.float32)
    scene = np.broadcast_to(ground, (64, 64, 3)).copy()
    person = np.zeros((64, 64), np.float32)
    person[24:, 28:36] = 1
    scene[person > 0] = skin
    hole = box_hole((12, 12, 52, 52), (64, 64), 4)
    drawn = scene.copy()
    drawn[(hole > 0) & (person == 0)] = wrong
    filled = joined(scene, drawn, hole, person)
    inside = (hole > 0) & (person == 0)
    np.testing.assert_allclose(filled[inside], np.broadcast_to(ground, filled[inside].shape), atol=3)
    np.testing.assert_array_equal(filled[hole == 0], scene[hole == 0])
    everywhere = joined(scene, drawn, hole, np.ones_like(person))
    np.testing.assert_allclose(everywhere, joined(scene, drawn, hole), atol=1e-3)


def test_a_person_is_told_from_the_background(picture: Image.Image) -> None:
    image = np.asarray(picture)
    points = FaceTracker().track_image(image)[0].points
    size = (image.shape[1], image.shape[0])
    (matte,) = PersonMatte()([image])
    assert matte.shape == image.shape[:2]
    assert 0 <= matte.min() <= matte.max() <= 1
    assert matte[face_hole(points, size, -0.1) > 0.5].mean() > 0.9
    left = int(points[:, 0].min() - 1.2 * np.ptp(points[:, 0]))
    top = int(points[:, 1].min())
    assert matte[: max(4, top), : max(4, left)].mean() < 0.1


def test_continued_keeps_a_plain_colour() -> None:
    image = np.full((40, 50, 3), 77, np.float32)
    known = np.ones((40, 50), np.float32)
    known[5:30, 10:45] = 0
    image[known == 0] = 0
    np.testing.assert_allclose(continued(image, known), 77, atol=0.5)


@pytest.fixture(scope="module")
def seen(picture: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """A portrait and its mesh."""
    image = np.asarray(picture)
    points = FaceTracker().track_image(image)[0].points
    return image, points


def test_an_initial_estimate_shows_the_head_over_the_scene_and_leaves_the_scene(
    seen: tuple[np.ndarray, np.ndarray],
) -> None:
    image, points = seen
    scene = np.full_like(image, (0, 90, 180))
    hole = face_hole(points, (image.shape[1], image.shape[0]), 0.3)
    estimate = initial_estimate(covered(scene, hole), hole, image, points)
    np.testing.assert_array_equal(estimate[hole == 0], scene[hole == 0])
    inner = face_hole(points, (image.shape[1], image.shape[0]), 0.0) > 0
    np.testing.assert_allclose(estimate[inner], image[inner], atol=1)
