"""Meshes with other lips: retargeting, ranges of mouths, what is hidden around the lips."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from face_samples import turned_faces
from talkface.face import topology as tp
from talkface.face.model import FaceModel
from talkface.systems.g4g.drawing import MOUTH_CROP_PIXELS, hidden_region
from talkface.systems.g4g.geometry import MouthRange, Retargeter, mesh_code, mouth_shape


def opening(points: np.ndarray) -> np.ndarray:
    """Signed gap of the inner lips (T,)."""
    upper, lower = tp.INNER_LIPS
    return points[:, lower, 1] - points[:, upper, 1]


def mouths(face: FaceModel, openings: list[float]) -> np.ndarray:
    """Coefficients (T, M) that open the mouth by so much, canonical units."""
    upper, lower = tp.INNER_LIPS
    direction = face.mouth[:, lower, 1] - face.mouth[:, upper, 1]
    return np.outer(openings, direction / (direction @ direction)).astype(np.float32)


def test_a_share_of_zero_leaves_a_face_as_it_is(face: FaceModel) -> None:
    points = turned_faces(face, mouths(face, [0.1, 0.3, 0.0]), 0.2)
    retarget = Retargeter(face, face.mean, 25)
    moved = retarget(points, mouths(face, [0.5, 0.0, 0.2]), np.zeros(3, np.float32))
    np.testing.assert_allclose(moved.points, points, atol=0.02)


def test_lips_do_what_is_wanted_and_the_rest_of_the_face_stays(face: FaceModel) -> None:
    points = turned_faces(face, mouths(face, [0.25, 0.1, 0.0]))
    wanted = mouths(face, [0.0, 0.1, 0.3])
    moved = Retargeter(face, face.mean, 25)(points, wanted, np.ones(3, np.float32))
    expected = mouth_shape(face, wanted)[:, 0] - (face.mean[13, 1] - face.mean[14, 1])
    np.testing.assert_allclose(opening(moved.points) / 60, expected, atol=0.03)
    np.testing.assert_allclose(moved.points[:, tp.FOREHEAD], points[:, tp.FOREHEAD], atol=0.5)
    was = mouth_shape(face, moved.original)[:, 0]
    np.testing.assert_allclose(was, mouth_shape(face, mouths(face, [0.25, 0.1, 0.0]))[:, 0], atol=0.03)


def test_closed_lips_meet_and_never_cross(face: FaceModel) -> None:
    points = turned_faces(face, mouths(face, [0.3, 0.3, 0.3]))
    moved = Retargeter(face, face.mean, 25)(points, mouths(face, [0.0, -0.1, -0.5]), np.ones(3, np.float32))
    upper, lower = np.array(tp.LIPS_INNER_UPPER), np.array(tp.LIPS_INNER_LOWER)
    upright = moved.pose.invert(moved.points)
    gap = upright[:, lower, 1] - upright[:, upper, 1]
    assert gap.min() > -1e-4
    np.testing.assert_allclose(gap[2], 0, atol=1e-4)
    assert np.abs(opening(moved.points)[1:]).max() < 0.5  # pixels


def test_a_retargeter_forgets_at_a_cut(face: FaceModel) -> None:
    rest = np.zeros((10, len(face.mouth)), np.float32)
    one, two = turned_faces(face, rest), turned_faces(face, rest)
    two[:, tp.CHIN, 1] += 4.0  # another face shape below the lips
    share = np.ones(10, np.float32)
    fresh = Retargeter(face, face.mean, 25)(two, rest, share)
    retarget = Retargeter(face, face.mean, 25)
    retarget(one, rest, share)
    carried = retarget(two, rest, share)
    assert np.abs(carried.points - fresh.points).max() > 0.5
    retarget.forget()
    np.testing.assert_array_equal(retarget(two, rest, share).points, fresh.points)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_mouth_range_has_limits(openings: list[float]) -> None:
    seen = MouthRange.seen(np.array(openings))
    assert 0.65 <= seen.gain <= 1.35
    assert seen.limit >= max(0.12, *openings)


def test_mouth_range_of_the_still_is_usual_and_grows_with_liveliness() -> None:
    assert MouthRange.seen(np.full(20, 0.1)).gain == 1.0
    quiet, usual, lively = (MouthRange.seen(np.linspace(0, width, 50)).gain for width in (0.06, 0.139, 0.3))
    assert quiet < 0.8 < usual < 1.1 < lively


@given(scale=st.floats(0, 20), widest=st.floats(0.02, 0.3))
def test_mouths_stay_within_their_range(scale: float, widest: float) -> None:
    face = FaceModel.from_pretrained()
    opening = lambda beta: float(mouth_shape(face, beta[None])[0, 0])  # noqa: E731
    unit = np.zeros(len(face.mouth), np.float32)
    unit[0] = 1.0 if opening(np.eye(len(face.mouth), dtype=np.float32)[0]) > 0 else -1.0
    wanted, mouth = scale * unit, MouthRange.seen(np.linspace(0, widest, 50))
    fitted = mouth.fit(face, wanted)
    assert opening(fitted) <= mouth.limit + 1e-5
    if mouth.gain * opening(wanted) <= 0.7 * mouth.limit:
        np.testing.assert_allclose(fitted, mouth.gain * wanted, rtol=1e-6)


def test_mesh_code_is_bounded() -> None:
    code = mesh_code(np.full((2, 28), 99.0), np.full((2, 3), -9.0))
    assert code.shape == (2, 31)
    assert np.abs(code).max() == 5


def test_what_is_hidden_lies_around_the_lips(face: FaceModel) -> None:
    from talkface.face.crop import MOUTH_REGION, region_matrix, transform
    from talkface.face.warp import with_ring

    points = turned_faces(face, mouths(face, [0.2]))[0]
    goal = transform(with_ring(points), region_matrix(points, MOUTH_REGION))
    hidden = hidden_region(goal)
    lips = goal[tp.LIPS_OUTER, :2].round().astype(int)
    assert hidden[lips[:, 1], lips[:, 0]].min() > 0.95
    border = np.ones((MOUTH_CROP_PIXELS, MOUTH_CROP_PIXELS), bool)
    border[2:-2, 2:-2] = False
    assert not hidden[border].any()
