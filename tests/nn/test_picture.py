"""Pictures as tensors: crops with gradients."""

import cv2
import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from talkface.nn.picture import cut_out


@given(st.floats(20, 200), st.floats(20, 200), st.floats(-40, 40), st.floats(0.3, 3))
def test_crops_with_gradients_are_those_without(x: float, y: float, angle: float, zoom: float) -> None:
    picture = cv2.GaussianBlur(np.random.default_rng(0).random((256, 256, 3), np.float32), (0, 0), 3)
    matrix = cv2.getRotationMatrix2D((x, y), angle, zoom)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    wanted = cv2.warpAffine(picture, matrix, (32, 32), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    given = torch.from_numpy(picture).permute(2, 0, 1)[None]
    with torch.autocast("cpu", torch.bfloat16):
        found = cut_out(given, torch.from_numpy(matrix)[None], 32)[0].permute(1, 2, 0)
    np.testing.assert_allclose(found.numpy(), wanted, atol=0.01)
