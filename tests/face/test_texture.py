"""FaceTexture: what faces look like apart from their shape."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from talkface.diffusion.base import with_soft_background
from talkface.face import topology as tp
from talkface.face.crop import LEFT_EYE_REGION, cut, face_unit, region_matrix, transform
from talkface.face.portrait import PORTRAIT_PIXELS, portrait_matrix
from talkface.face.texture import FaceTexture
from talkface.face.tracker import FaceTracker


@pytest.fixture(scope="module")
def texture() -> FaceTexture:
    return FaceTexture.from_pretrained()


@pytest.fixture(scope="module")
def face(picture: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """A photograph (256, 256, 3) and its mesh."""
    image = np.asarray(picture)
    points = FaceTracker().track_image(image)[0].points
    matrix = portrait_matrix(points, image.shape[1::-1])
    return cut(image, matrix, PORTRAIT_PIXELS), transform(points, matrix)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31))
def test_what_a_picture_of_coefficients_shows_is_found_again(seed: int) -> None:
    texture = FaceTexture.from_pretrained()
    told = np.random.default_rng(seed).normal(0, 1, len(texture.basis)).astype(np.float32)
    shown = texture.picture(told)
    again = texture.picture(texture.fit(shown, trusted=True))
    assert np.abs(again - shown)[texture.inside > 0].mean() < 1.0  # of 255 levels


def test_a_face_stays_itself_and_what_is_around_it_as_it_is(
    texture: FaceTexture, face: tuple[np.ndarray, np.ndarray]
) -> None:
    image, points = face
    made = texture.plausible(image, points)
    beside = cv2.fillConvexPoly(
        np.ones(image.shape[:2], np.uint8), cv2.convexHull(points[tp.FACE_OVAL, :2].round().astype(int)), 0
    )
    far = cv2.erode(beside, np.ones((5, 5)))  # an outline is drawn to the pixel
    np.testing.assert_array_equal(made[far > 0], image[far > 0])
    apart = np.abs(made.astype(int) - image)[beside == 0].mean()
    assert 1 < apart < 15


def test_a_spoilt_eye_is_drawn_as_the_rest_of_the_face_tells(
    texture: FaceTexture, face: tuple[np.ndarray, np.ndarray]
) -> None:
    image, points = face
    center = points[tp.LEFT_EYE, :2].mean(0).round().astype(int).tolist()
    spoilt = cv2.circle(image.copy(), center, round(0.22 * face_unit(points)), (170, 120, 110), -1)
    made = texture.plausible(spoilt, points)

    def eye(shown: np.ndarray) -> np.ndarray:
        crop = cut(shown, region_matrix(points, LEFT_EYE_REGION), LEFT_EYE_REGION.pixels)
        return cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(float)

    def alike(shown: np.ndarray) -> float:
        return float(np.corrcoef(eye(shown).ravel(), eye(image).ravel())[0, 1])

    assert alike(made) > alike(spoilt) + 0.1
    strange = [texture.strangeness(shown, points) for shown in (image, spoilt)]
    assert 0 < strange[0] < strange[1] < 1


def test_a_cast_of_colour_is_taken_off_and_the_light_stays(
    texture: FaceTexture, face: tuple[np.ndarray, np.ndarray]
) -> None:
    image, points = face
    tinted = (image * np.array([0.8, 0.7, 1.0])).astype(np.uint8)

    def ratios(shown: np.ndarray) -> np.ndarray:
        color = texture.unwrapped(shown, points)[texture.inside > 0].mean(0)
        return np.log(color[[0, 2]] / color[1])

    usual = np.log(texture.mean[texture.inside > 0].mean(0))
    usual = usual[[0, 2]] - usual[1]
    made = texture.balanced(tinted, points)
    np.testing.assert_allclose(ratios(made) - usual, (ratios(tinted) - usual) / 2, atol=0.03)
    assert abs(made.mean() / tinted.mean() - 1) < 0.1
    np.testing.assert_array_equal(texture.balanced(tinted, points, share=0), tinted)


@settings(max_examples=10, deadline=None)
@given(st.floats(-20, 20), st.floats(1, 20))
def test_strokes_are_calmed_beside_the_face_alone(
    face: tuple[np.ndarray, np.ndarray], tone: float, strength: float
) -> None:
    image, points = face
    image = np.clip(image, 50, 200)
    strokes = strength * (np.arange(PORTRAIT_PIXELS) % 5 < 2)[None, :, None]
    made = (image + tone + strokes).astype(np.float32)
    found = with_soft_background(image, made, points)
    middle = cut_middle(points)
    np.testing.assert_allclose(found[middle], made[middle], atol=1e-3)
    plain = image + tone + strokes.mean()
    beside = np.s_[:, :16]
    before, after = (np.abs(each - plain)[beside].mean() for each in (made, found))
    assert after < 0.5 * before


def cut_middle(points: np.ndarray) -> tuple[slice, slice]:
    """The middle of a face."""
    x, y = points[tp.NOSE_TIP, :2].astype(int)
    return slice(y - 10, y + 10), slice(x - 10, x + 10)
