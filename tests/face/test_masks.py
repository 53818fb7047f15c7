"""Masks of parts of the face."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from face_samples import turned_faces
from talkface.face.masks import lower_face_mask, lower_face_outline
from talkface.face.model import FaceModel


@settings(max_examples=30, deadline=None)
@given(turn=st.floats(-0.6, 0.6), x=st.floats(-40, 300), y=st.floats(-40, 300), size=st.floats(15, 120))
def test_lower_face_mask_is_zero_outside_its_outline(turn: float, x: float, y: float, size: float) -> None:
    import cv2

    face = FaceModel.from_pretrained()
    points = turned_faces(face, np.zeros((1, len(face.mouth)), np.float32), turn)[0]
    points = (points - [128, 128, 0]) * (size / 60) + [x, y, 0]
    mask = lower_face_mask(points, (256, 240))
    assert mask.shape == (240, 256)
    assert 0 <= mask.min() <= mask.max() <= 1
    outline = lower_face_outline(points).astype(np.float32)
    rows, columns = np.nonzero(mask)
    for row, column in list(zip(rows, columns, strict=True))[:: max(1, len(rows) // 50)]:
        assert cv2.pointPolygonTest(outline, (float(column), float(row)), True) > -1.5
    eyes = points[[33, 263], :2].round().astype(int)
    inside = ((eyes >= 0) & (eyes < [256, 240])).all(1)
    assert not mask[eyes[inside, 1], eyes[inside, 0]].any()
