"""Portraits varied for the face LDM's training."""

import cv2
import numpy as np
import pytest
from PIL import Image

from talkface.face.crop import face_unit, transform
from talkface.face.portrait import PORTRAIT_PIXELS
from talkface.face.tracker import FaceTracker
from talkface.training.datasets.latents import vary


@pytest.fixture(scope="module")
def points(picture: Image.Image) -> np.ndarray:
    """The mesh of the good portrait, (478, 3)."""
    return FaceTracker().track_image(np.asarray(picture))[0].points


def test_varied_portrait_keeps_mesh_and_picture_together(picture: Image.Image, points: np.ndarray) -> None:
    small = cv2.resize(np.asarray(picture), (PORTRAIT_PIXELS, PORTRAIT_PIXELS), interpolation=cv2.INTER_AREA)
    mesh = transform(points, np.array([[0.5, 0, -0.25], [0, 0.5, -0.25]]))
    tracker = FaceTracker()
    for seed in range(4):
        image, moved = vary(small, mesh, np.random.default_rng(seed))
        found = tracker.track_image(image)[0].points
        mirrored = np.linalg.norm(found[33, :2] - moved[263, :2]) < np.linalg.norm(
            found[33, :2] - moved[33, :2]
        )
        order = [263, 33, 1, 152] if mirrored else [33, 263, 1, 152]
        off = np.linalg.norm(found[[33, 263, 1, 152], :2] - moved[order, :2], axis=1) / face_unit(moved)
        assert off.max() < 0.12, seed
