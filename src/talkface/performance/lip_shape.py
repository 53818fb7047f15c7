"""The shape of the lips that mouth coefficients stand for: opening, width and jaw."""

import numpy as np

from talkface.face import topology as tp
from talkface.face.model import FaceModel


def lip_readout(face: FaceModel) -> np.ndarray:
    """Linear map (M, 3) from beta_mouth to inner-lip opening, mouth width and jaw, in canonical units."""
    upper, lower = tp.INNER_LIPS
    right, left = tp.MOUTH_CORNERS
    mouth = face.mouth
    columns = [
        mouth[:, lower, 1] - mouth[:, upper, 1],
        mouth[:, left, 0] - mouth[:, right, 0],
        mouth[:, tp.CHIN, 1],
    ]
    return np.stack(columns, 1).astype(np.float32)
