"""The training of the face texture."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from talkface.data.faces import Portrait, keep, portraits
from talkface.data.manifest import Manifest
from talkface.face.crop import cut, transform
from talkface.face.model import FaceModel
from talkface.face.portrait import PORTRAIT_PIXELS, portrait_matrix
from talkface.face.texture import FaceTexture
from talkface.face.tracker import FaceTracker
from talkface.training.tasks.face_texture import FaceTextureConfig, FaceTextureTask, learn


@pytest.fixture(scope="module")
def face(picture: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """A photograph (256, 256, 3) and its mesh."""
    image = np.asarray(picture)
    points = FaceTracker().track_image(image)[0].points
    matrix = portrait_matrix(points, image.shape[1::-1])
    return cut(image, matrix, PORTRAIT_PIXELS), transform(points, matrix)


@pytest.fixture(scope="module")
def prepared(face: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder with portraits of five people, the last one held out."""
    folder, (image, points) = tmp_path_factory.mktemp("prepared"), face
    album = []
    for person in range(5):
        light = np.linspace(1, 0.6 + 0.1 * person, PORTRAIT_PIXELS)[:, None, None]  # from above, more or less
        jpeg = cv2.imencode(".jpg", (image * light).astype(np.uint8)[:, :, ::-1])[1].ravel()
        split = "val" if person == 4 else "train"
        album.append(Portrait(f"picture{person}", f"person{person}", split, jpeg, points, 5.0))
    keep(folder / "faces.npz", album)
    Manifest(folder, folder, []).save()
    return folder


def test_it_is_learnt_from_portraits(prepared: Path, tmp_path: Path) -> None:
    config = FaceTextureConfig(side=48, components=4, sharpness=0.0, opened=0.0, held_out=1)
    metrics = FaceTextureTask(config, prepared).solve(tmp_path)
    assert metrics["val_error"] < metrics["val_parts_of_mean"] < 60
    made = FaceTexture.from_pretrained(str(tmp_path / "export"))
    assert made.mean.shape == (48, 48, 3)
    assert made.basis.shape == (4, 48, 48, 3)


def test_components_explain_what_they_were_learnt_from(prepared: Path) -> None:
    album = portraits(Manifest.load(prepared))[:3]
    model = learn(album, FaceModel.from_pretrained(), FaceTextureConfig(side=48, components=5))
    for portrait in album:
        real = model.unwrapped(portrait.image(), portrait.points)
        shown = model.picture(model.fit(real, trusted=True))
        assert np.abs(shown - real)[model.inside > 0].mean() < 6
