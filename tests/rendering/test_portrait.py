"""The portrait's renderer: warping, the refiner's parts, pasting."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from face_samples import checkered_portrait
from talkface.face import topology as tp
from talkface.face.model import FaceModel
from talkface.face.motion import FaceMotion
from talkface.rendering.portrait import PortraitRenderer, paste
from talkface.rendering.refiner import Refiner


def test_the_neutral_motion_draws_the_portrait() -> None:
    face = FaceModel.from_pretrained()
    image, points = checkered_portrait(face)
    zero = np.zeros((1, 4), np.float32)
    motion = FaceMotion(
        np.zeros((1, len(face.mouth)), np.float32),
        np.zeros((1, len(face.upper)), np.float32),
        zero[:, :3],
        zero[:, :2],
        zero[:, :1] + 1,
        zero,
    )
    renderer = PortraitRenderer(image, points, face, refiner=None)
    frame = next(renderer.frames([motion]))
    assert np.abs(frame.astype(int) - image).mean() < 1.0
    moved = next(renderer.frames([replace(motion, rotation=np.array([[0, 0.1, 0]], np.float32))]))
    assert np.abs(moved.astype(int) - image)[80:140, 100:156].mean() > 2.0
    np.testing.assert_array_equal(moved[:, :4], image[:, :4])


def test_a_portrait_at_its_own_meshes_is_what_it_draws_there() -> None:
    torch.manual_seed(0)
    face = FaceModel.from_pretrained()
    image, points = checkered_portrait(face)
    renderer = PortraitRenderer(image, points, face, Refiner.debug())
    own = renderer.fit.motion
    spoken = np.zeros((2, len(face.mouth)), np.float32)
    spoken[1, 0] = 2.0
    turned = np.array([[0, 0, 0], [0, 0.05, 0]], np.float32)
    pair = {name: np.repeat(getattr(own, name), 2, 0) for name in ("beta_upper", "translation", "scale")}
    motion = FaceMotion(spoken, rotation=turned, gaze=np.zeros((2, 4), np.float32), **pair)
    drawn = list(renderer.moved([motion]))
    gaze, rotation = motion.gaze + own.gaze, own.rotation + turned
    said = replace(motion, gaze=gaze, rotation=rotation, reference="camera")
    again = renderer.at(np.stack([mesh for _, mesh in drawn]), said)
    with pytest.raises(ValueError, match="'camera' is needed"):
        renderer.at(np.stack([mesh for _, mesh in drawn]), motion)
    with pytest.raises(ValueError, match="'portrait' is needed"):
        next(renderer.frames([said]))
    with pytest.raises(ValueError, match="'portrait' is needed"):
        renderer.meshes(said)
    for (frame, _), other in zip(drawn, again, strict=True):
        assert np.abs(frame.astype(int) - other).mean() < 1.5
    assert np.abs(drawn[0][0].astype(int) - drawn[1][0]).mean() > 3.0


def test_the_refiner_only_touches_its_parts() -> None:
    torch.manual_seed(0)
    face = FaceModel.from_pretrained()
    image, points = checkered_portrait(face)
    motion = face.fit(points[None]).motion
    still = {"rotation": np.zeros((1, 3), np.float32), "gaze": np.zeros((1, 4), np.float32)}
    motion = replace(motion, **still, reference="portrait")
    plain = next(PortraitRenderer(image, points, face, None).frames([motion]))
    refined = next(PortraitRenderer(image, points, face, Refiner.debug()).frames([motion]))
    changed = np.abs(plain.astype(int) - refined).sum(-1) > 0
    assert changed.any()
    forehead = points[tp.FOREHEAD].astype(int)
    assert not changed[: forehead[1]].any()


def test_half_the_digits_draw_the_same_picture() -> None:
    face, refiner = FaceModel.from_pretrained(), Refiner.from_pretrained()
    image, points = checkered_portrait(face)
    motion = face.fit(points[None]).motion
    still = {"rotation": np.zeros((1, 3), np.float32), "gaze": np.zeros((1, 4), np.float32)}
    motion = replace(motion, **still, reference="portrait")
    full, half = (
        next(PortraitRenderer(image, points, face, refiner, dtype=dtype).frames([motion])).astype(int)
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert 0 < np.abs(full - half).max() <= 6
    assert np.abs(full - half).mean() < 0.1


def test_paste_blends_inside_its_footprint() -> None:
    image = np.full((40, 60, 3), 100, np.uint8)
    layer = np.zeros((8, 8, 4), np.float32)
    layer[2:6, 2:6] = [50, 50, 50, 0.5]
    paste(image, layer, np.array([[1.0, 0, -20], [0, 1.0, -10]]))
    assert (image[13, 23] == 100).all()
    assert (image[:9] == 100).all()
    assert (image[:, 40:] == 100).all()


def test_a_greyscale_portrait_stays_grey() -> None:
    face = FaceModel.from_pretrained()
    points = face.mean * 60 + np.array([96.0, 96.0, 0.0])
    texture = np.random.default_rng(0).integers(0, 255, (192, 192, 1), np.uint8).repeat(3, 2)
    renderer = PortraitRenderer(texture, points.astype(np.float32), face, Refiner.debug())
    sizes = {"beta_mouth": 28, "beta_upper": 16, "rotation": 3, "translation": 2, "gaze": 4}
    still = {name: np.zeros((2, size), np.float32) for name, size in sizes.items()}
    still["beta_mouth"][:, 0] = 3.0
    motion = FaceMotion(**still, scale=np.ones((2, 1), np.float32), fps=25.0)
    for frame in renderer.frames([motion]):
        assert np.ptp(frame.astype(int), axis=2).max() <= 1
