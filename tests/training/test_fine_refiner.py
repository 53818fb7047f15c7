"""Refiners of other crop sizes: cutting, drawing, training, pasting scale with them; the usual one stays."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from talkface.data.crops import FACE_REGION
from talkface.errors import InvalidOption
from talkface.face.crop import (
    FACE_REGIONS,
    LEFT_EYE_REGION,
    MOUTH_REGION,
    face_regions,
    fineness,
    region_matrix,
)
from talkface.face.draw import MAP_CHANNELS
from talkface.face.model import FaceModel
from talkface.face.motion import FaceMotion
from talkface.nn.adversarial import PatchDiscriminator
from talkface.rendering.mouth_plate import PLATE_HEIGHT, PLATE_WIDTH, mouth_plate, plate_corners
from talkface.rendering.portrait import PortraitRenderer
from talkface.rendering.refiner import Refiner, RefinerConfig
from talkface.training.tasks.thpad_refiner import RefinerTask, RefinerTrainConfig
from talkface.training.trainer import TrainerConfig, overfit_one_batch


@pytest.fixture(scope="module")
def face() -> FaceModel:
    return FaceModel.from_pretrained()


def portrait(face: FaceModel, times: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A picture of 256 ``times`` pixels and a mesh of 60 ``times`` between the eyes."""
    squares = np.random.default_rng(0).integers(60, 200, (32, 32, 3))
    image = np.kron(squares, np.ones((8 * times, 8 * times, 1))).astype(np.uint8)
    return image, (times * (60 * face.mean + [128, 110, 0])).astype(np.float32)


def speaking(face: FaceModel, points: np.ndarray) -> FaceMotion:
    own = face.fit(points[None]).motion
    lips = np.zeros_like(own.beta_mouth)
    lips[0, 0] = 3.0
    still = {"rotation": np.zeros((1, 3), np.float32), "gaze": np.zeros((1, 4), np.float32)}
    return replace(own, beta_mouth=lips, **still, reference="portrait")


def drawn(face: FaceModel, refiner: Refiner | None, times: int = 1) -> np.ndarray:
    """A frame (256 times, 256 times, 3) of a portrait that opens its mouth."""
    image, points = portrait(face, times)
    return next(PortraitRenderer(image, points, face, refiner).frames([speaking(face, points)])).astype(float)


def constant(pixels: int) -> Refiner:
    """A refiner that adds the same to a face whatever its size: mid-grey between the lips and lids."""
    refiner = Refiner.debug(pixels)
    torch.nn.init.zeros_(refiner.head.weight)
    return refiner


def task_of(folder: Path, pixels: int, **settings: float) -> RefinerTask:
    """A tiny refiner on the tests' clip, whose face has about 50 pixels between the eyes."""
    scales = 4 if pixels > 128 else 3
    model = RefinerConfig(
        identity=8, code=16, widths=(8, 16, 16, 16)[:scales], blocks=(1,) * scales, pixels=pixels
    )
    given = {"smallest_unit": 20.0, "mouths": 1, "eyes": 1, "frames_per_clip": 10} | settings
    return RefinerTask(RefinerTrainConfig(model=model, **given), folder)


def test_parts_scale(face: FaceModel) -> None:
    _, points = portrait(face)
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


def test_the_shipped_refiner_draws_what_it_drew(face: FaceModel) -> None:
    """What it changes of the warp, as means of squares, before crops had other sizes."""
    change = (drawn(face, Refiner.from_pretrained()) - drawn(face, None)).mean(-1)
    squares = change[112:176, 96:160].reshape(4, 16, 4, 16).mean((1, 3))
    before = [
        [0.77, 0.04, -0.08, 0.54],
        [1.06, -1.05, -1.75, 0.51],
        [1.54, -6.45, -4.04, 0.05],
        [0.08, 1.86, 1.75, 0.06],
    ]
    np.testing.assert_allclose(squares, before, atol=0.05)


def middle(change: np.ndarray) -> np.ndarray:
    """Where a picture (H, W, 3) was changed, on the mean: x, y."""
    weight = np.abs(change).sum(-1)
    y, x = np.indices(weight.shape)
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


@pytest.mark.parametrize("times", [1, 2], ids=["small face", "large face"])
def test_a_finer_crop_is_pasted_where_it_was_cut(face: FaceModel, times: int) -> None:
    """The small face's is shrunk first, the large one's is not."""
    plain = drawn(face, None, times)
    usual, fine = (drawn(face, constant(pixels), times) - plain for pixels in (128, 256))
    assert np.abs(usual).max() > 20
    assert np.abs(usual - fine).mean() < 0.2 * np.abs(usual).mean()
    np.testing.assert_allclose(middle(fine), middle(usual), atol=0.11 * times)


def test_a_finer_plate_is_the_usual_one_enlarged(face: FaceModel) -> None:
    image, points = portrait(face, 2)
    corners = 120 * plate_corners(face.mean) + np.array([256, 220, 0], np.float32)
    mean = np.random.default_rng(0).random((PLATE_HEIGHT, PLATE_WIDTH, 3)).astype(np.float32)
    usual, fine = (mouth_plate(image, points, corners, mean, finer) for finer in (1, 2))
    assert fine.shape == (2 * PLATE_HEIGHT, 2 * PLATE_WIDTH, 3)
    assert np.abs(fine[::2, ::2].astype(int) - usual).mean() < 2.0


@pytest.mark.parametrize("levels", [2, 3])
def test_a_deeper_discriminator_judges_larger_patches(levels: int) -> None:
    torch.manual_seed(0)
    side = 64 * 2 ** (levels - 1)
    critic = PatchDiscriminator(MAP_CHANNELS, 8, levels=levels)
    image = torch.rand(1, 3, side, side, requires_grad=True)
    scores, features = critic(image, torch.rand(1, MAP_CHANNELS, side // 2, side // 2))
    assert scores.shape == (1, 1, 16, 16)
    assert len(features) == levels + 2
    scores[0, 0, 8, 8].backward()
    seen = image.grad.abs().sum((0, 1)).sum(0).nonzero()
    assert int(seen.max() - seen.min()) + 1 == 28 * 2 ** (levels - 1)


@pytest.mark.parametrize(
    "settings", [{"pixels": 100}, {"pixels": 0}, {"widths": (8, 8), "blocks": (1, 1, 1)}], ids=str
)
def test_sizes_that_do_not_fit_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match="a refiner"):
        RefinerConfig(**settings)


def test_pairs_of_another_size_show_the_same(prepared_clips: Path) -> None:
    usual, fine = (task_of(prepared_clips, pixels) for pixels in (128, 256))
    assert fine.clips[0].image(0).shape == (2 * FACE_REGION.pixels, 2 * FACE_REGION.pixels, 3)
    assert (prepared_clips / f"crops-{2 * FACE_REGION.pixels}" / "train.npz").is_file()
    assert (prepared_clips / "crops" / "train.npz").is_file()
    for a, b in zip(face_regions(128), face_regions(256), strict=True):
        small, large = (task.make(task.clips[0], 0, 7, part) for task, part in ((usual, a), (fine, b)))
        assert large.maps.shape == (MAP_CHANNELS, a.pixels, a.pixels)
        for name in ("warped", "reference", "target"):
            picture = getattr(large, name)
            assert picture.shape == (3, b.pixels, b.pixels)
            shrunk = picture.reshape(3, a.pixels, 2, a.pixels, 2).mean((2, 4))
            assert np.abs(shrunk - getattr(small, name)).mean() < 0.01


@pytest.mark.parametrize("pixels", [64, 256])
def test_a_refiner_overfits_one_batch_and_draws(
    face: FaceModel, prepared_clips: Path, tmp_path: Path, pixels: int
) -> None:
    torch.manual_seed(0)
    task = task_of(prepared_clips, pixels, adversarial_start=10**6)
    mouths, eyes = task.draw(np.random.default_rng(0))
    assert mouths["target"].shape == (1, 3, pixels, pixels)
    assert eyes["target"].shape == (1, 3, pixels // 2, pixels // 2)
    quick = TrainerConfig(lr=4e-3, warmup_steps=2, seed=1, device="cpu")
    first, last = overfit_one_batch(task, quick, 40)
    assert last < 0.7 * first
    task.config = replace(task.config, adversarial_start=0)
    batch = [{name: torch.from_numpy(array) for name, array in part.items()} for part in (mouths, eyes)]
    for index in (0, 1):
        assert torch.isfinite(task.training_step(batch, index, 0)["loss"])
    found = task.validate()
    assert np.isfinite(list(found.values())).all()
    assert task.samples() is not None
    task.export(tmp_path, found)
    refiner = Refiner.from_pretrained(str(tmp_path))
    assert refiner.config.pixels == pixels
    assert np.abs(drawn(face, refiner) - drawn(face, None)).max() > 5
