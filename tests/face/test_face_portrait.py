"""Portraits cut out of pictures."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from talkface.face.crop import face_unit
from talkface.face.portrait import PORTRAIT_PIXELS, PORTRAIT_SIDE, portrait_matrix


@given(
    st.floats(30, 400),
    st.tuples(st.floats(-50, 690), st.floats(-50, 530)),
    st.integers(64, 640),
    st.integers(64, 480),
)
def test_portraits_lie_in_their_picture(
    unit: float, place: tuple[float, float], width: int, height: int
) -> None:
    mesh = np.zeros((478, 3))
    mesh[33], mesh[263] = [place[0] - unit / 2, place[1], 0], [place[0] + unit / 2, place[1], 0]
    mesh[1] = [*place, 0]
    mesh[[10, 2], 0] = place[0]
    matrix = portrait_matrix(mesh, (width, height))
    back = cv2.invertAffineTransform(matrix)
    corners = (
        np.array([[-0.5, -0.5], [PORTRAIT_PIXELS - 0.5, PORTRAIT_PIXELS - 0.5]]) @ back[:, :2].T + back[:, 2]
    )
    assert (corners > -0.5 - 1e-3).all()
    assert (corners < np.array([width, height]) - 0.5 + 1e-3).all()
    assert corners[1, 0] - corners[0, 0] == pytest.approx(min(PORTRAIT_SIDE * face_unit(mesh), width, height))
