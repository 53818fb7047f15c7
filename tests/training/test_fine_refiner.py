"""Trainings of refiners of other crop sizes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from face_samples import draw_speaking
from talkface.data.crops import FACE_REGION
from talkface.face.crop import (
    face_regions,
)
from talkface.face.draw import MAP_CHANNELS
from talkface.face.model import FaceModel
from talkface.rendering.refiner import Refiner, RefinerConfig
from talkface.training.tasks.thpad_refiner import RefinerTask, RefinerTrainConfig
from talkface.training.trainer import TrainerConfig, overfit_one_batch


def task_of(folder: Path, pixels: int, **settings: float) -> RefinerTask:
    """A tiny refiner on the tests' clip, whose face has about 50 pixels between the eyes."""
    scales = 4 if pixels > 128 else 3
    model = RefinerConfig(
        identity=8, code=16, widths=(8, 16, 16, 16)[:scales], blocks=(1,) * scales, pixels=pixels
    )
    given = {"smallest_unit": 20.0, "mouths": 1, "eyes": 1, "frames_per_clip": 10} | settings
    return RefinerTask(RefinerTrainConfig(model=model, **given), folder)


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
    assert np.abs(draw_speaking(face, refiner) - draw_speaking(face, None)).max() > 5
