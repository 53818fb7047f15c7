"""The training of the occlusion network."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from talkface.data.crops import FACE_REGION
from talkface.data.manifest import Item, Manifest
from talkface.face.draw import MAP_CHANNELS
from talkface.face.model import FaceModel
from talkface.face.occlusion import (
    MASK_PIXELS,
    OcclusionConfig,
    OcclusionNet,
)
from talkface.training import TrainerConfig, overfit_one_batch
from talkface.training.tasks.face_occlusion import OcclusionTask, OcclusionTrainConfig


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, face: FaceModel) -> Path:
    """A prepared folder with a clip of ten frames in each split."""
    folder, generator = tmp_path_factory.mktemp("prepared"), np.random.default_rng(0)
    items = []
    for split in ("train", "val"):
        images, points = [], []
        for k in range(10):
            smooth = generator.integers(80, 180, (9, 9, 3), dtype=np.uint8)
            picture = cv2.resize(smooth, (FACE_REGION.pixels,) * 2, interpolation=cv2.INTER_CUBIC)
            images.append(cv2.imencode(".jpg", picture)[1].ravel())
            nose = np.array([*face.mean[1, :2], 0])
            points.append((face.mean - nose) * (110 + k) + np.array([136, 136, 0]))
        lengths, points = np.array([len(i) for i in images]), np.stack(points).astype(np.float32)
        for name in ("crops", "tracks"):
            (folder / name).mkdir(exist_ok=True)
        np.savez(
            folder / "crops" / f"{split}.npz", jpeg=np.concatenate(images), lengths=lengths, points=points
        )
        found, frames = np.ones(10, bool), np.arange(10)
        path = folder / "tracks" / f"{split}.npz"
        np.savez(path, points=points, times=frames / 25, found=found, frames=frames)
        items.append(Item(key=split, file=f"{split}.mp4", corpus="C", speaker=split, split=split))
    Manifest(folder, folder, items).save()
    return folder


@pytest.fixture(scope="module")
def task(prepared: Path) -> OcclusionTask:
    torch.manual_seed(0)
    model = OcclusionConfig(widths=(8, 8, 8), blocks=(1, 1, 1))
    return OcclusionTask(OcclusionTrainConfig(model=model, frames=5, pairs=2), prepared)


def test_a_pair_differs_where_it_is_covered(task: OcclusionTask) -> None:
    clean, covered = task.make.pair(task.clips[0], 0, 3, np.random.default_rng(2))
    assert clean["covered"].max() == 0
    assert covered["covered"].max() > 0.5
    assert clean["input"].shape == covered["input"].shape == (9 + MAP_CHANNELS, MASK_PIXELS, MASK_PIXELS)
    np.testing.assert_array_equal(clean["input"][9:], covered["input"][9:])  # the mesh is the same


def test_training_fits_a_batch_and_exports(task: OcclusionTask, tmp_path: Path) -> None:
    first, last = overfit_one_batch(task, TrainerConfig(lr=5e-3, warmup_steps=2, device="cpu"), 40)
    assert last < 0.85 * first
    metrics = task.validate()
    assert 0 <= metrics["val_iou"] <= 1
    assert task.samples().dtype == np.uint8
    task.export(tmp_path, metrics)
    assert OcclusionNet.from_pretrained(str(tmp_path)).config == task.net.config
