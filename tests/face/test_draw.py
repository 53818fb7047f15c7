"""Drawings of a mesh."""

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from talkface.face.draw import MESH_CHANNELS, MESH_PIXELS, draw_mesh
from talkface.face.model import FaceModel
from talkface.face.tracker import FaceTracker


@pytest.fixture(scope="module")
def points(picture: Image.Image) -> np.ndarray:
    """The mesh of the good portrait, (478, 3)."""
    return FaceTracker().track_image(np.asarray(picture))[0].points


def test_mesh_drawing_shows_the_face_and_nothing_beside_it(face: FaceModel, points: np.ndarray) -> None:
    drawn = draw_mesh(face.mesh_warp(), points, 512)
    assert drawn.shape == (MESH_CHANNELS, MESH_PIXELS, MESH_PIXELS)
    low, high = (points[:, :2].min(0) / 4).astype(int) - 1, (points[:, :2].max(0) / 4).astype(int) + 2
    beside = np.ones(drawn.shape[1:], bool)
    beside[low[1] : high[1], low[0] : high[0]] = False
    assert not drawn[:, beside].any()
    length = np.linalg.norm(drawn[:3], axis=0)
    np.testing.assert_allclose(length[length > 0], 1, atol=1e-5)
    iris = drawn[5] > 0
    assert iris.any()
    assert (drawn[4][iris] > 0).all(), "irises are seen between the lids only"


@pytest.mark.parametrize("yaw", [0.0, 0.9])
def test_mirrored_mesh_is_drawn_mirrored(face: FaceModel, yaw: float) -> None:
    """From behind, a turned head's far cheek would cover its near one."""
    turned = face.mean @ Rotation.from_rotvec([0, yaw, 0]).as_matrix().T
    points = (turned * 150 + [256, 256, 0]).astype(np.float32)
    warp, mirrored = face.mesh_warp(), points.copy()
    mirrored[:, 0] = 511 - mirrored[:, 0]
    one, other = draw_mesh(warp, points, 512), draw_mesh(warp, mirrored, 512)[:, :, ::-1]
    other = other * np.array([-1, 1, 1, 1, 1, 1])[:, None, None]
    inside = np.abs(one[:3]).sum(0) > 0
    assert np.abs(one - other)[:, inside].mean() < 0.03
