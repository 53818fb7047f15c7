"""Crops of the face's parts, at any size."""

from dataclasses import replace

import numpy as np

from face_samples import checkered_portrait
from talkface.face.crop import (
    FACE_REGIONS,
    LEFT_EYE_REGION,
    MOUTH_REGION,
    face_regions,
    fineness,
    region_matrix,
)
from talkface.face.model import FaceModel


def test_parts_scale(face: FaceModel) -> None:
    _, points = checkered_portrait(face)
    assert face_regions(MOUTH_REGION.pixels) == FACE_REGIONS
    for part, fine in zip(FACE_REGIONS, face_regions(256), strict=True):
        assert fine == replace(part, pixels=2 * part.pixels)
        middle = np.linalg.solve(region_matrix(points, part)[:, :2], -region_matrix(points, part)[:, 2])
        usual, finer = region_matrix(points, part), region_matrix(points, fine)
        np.testing.assert_allclose(finer[:, :2], 2 * usual[:, :2])
        # the centre of the first pixel lies between those of the first four
        np.testing.assert_allclose(finer @ [*middle, 1], [0.5, 0.5], atol=1e-6)
    assert region_matrix(points, face_regions(256)[LEFT_EYE_REGION.code])[0, 0] < 0  # mirrored at any size
    assert [fineness(pixels) for pixels in (64, 128, 192, 256, 512)] == [1, 1, 2, 2, 4]
