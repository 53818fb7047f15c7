"""TCCP's trainings on tiny models."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from talkface.diffusion.autoencoder import LATENT_FACTOR, FaceAutoencoder
from talkface.diffusion.base import Base
from talkface.diffusion.model import FaceDiffusion
from talkface.face import topology as tp
from talkface.face.model import FaceModel
from talkface.hub import save_pretrained
from talkface.systems.tccp.config import FACE, LANDMARKS, MVControlNetConfig
from talkface.systems.tccp.landmarks import LandmarkConfig
from talkface.systems.tccp.reading import LandmarkReader, ReaderConfig, landmark_error
from talkface.training import TrainerConfig, overfit_one_batch
from talkface.training.tasks.tccp_landmarks import LandmarkTask, LandmarkTrainConfig
from talkface.training.tasks.tccp_reading import ReadingTask, ReadingTrainConfig
from talkface.training.tasks.tccp_video import VideoTask, VideoTrainConfig


def tiny_base() -> Base:
    torch.manual_seed(0)
    return Base("tiny", FaceDiffusion.debug(), FaceAutoencoder.debug(), 256)


@pytest.fixture(scope="module")
def tiny_ldm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a tiny random face LDM."""
    base, folder = tiny_base(), tmp_path_factory.mktemp("ldm")
    for name, module in (("face-diffusion", base.model), ("face-autoencoder", base.autoencoder)):
        config = {"class": type(module).__name__, "model": asdict(module.config)}
        save_pretrained(folder / name, config, module.state_dict(), card=None)
    return folder


@pytest.mark.parametrize("model", [FACE, LANDMARKS], ids=["face", "landmarks"])
def test_both_stages_train(prepared_clips: Path, tiny_ldm: Path, model: MVControlNetConfig) -> None:
    goal = "face" if model.drawing else "landmarks"
    config = VideoTrainConfig(
        model=model, goal=goal, base=str(tiny_ldm), batch=1, windows=1, held_out=1, single=0.0
    )
    task = VideoTask(config, prepared_clips)
    before = task.validate()["val_error"]
    first, last = overfit_one_batch(task, TrainerConfig(lr=1e-2, warmup_steps=2, device="cpu"), 20)
    assert last < 0.9 * first
    assert task.validate()["val_error"] < 0.95 * before


def test_drawn_landmarks_are_read(prepared_clips: Path, tiny_ldm: Path, tmp_path: Path) -> None:
    """The reader learns drawings, reads them as motion, and tells how good a stage 1 is."""
    sizes = ReaderConfig(channels=(8, 16), width=32, side=tiny_base().pixels // LATENT_FACTOR)
    task = ReadingTask(
        ReadingTrainConfig(model=sizes, base=str(tiny_ldm), batch=8, windows=1), prepared_clips
    )
    before, after = overfit_one_batch(task, TrainerConfig(lr=3e-3, warmup_steps=10, device="cpu"), 60)
    assert after < 0.5 * before
    task.export(tmp_path / "reader", {})
    reader = LandmarkReader.from_pretrained(str(tmp_path / "reader"))
    fit = reader.read(task.val_rows[0][:3], FaceModel.from_pretrained(), 256)
    assert len(fit.motion) == len(fit.pose.scale) == 3
    stage1 = VideoTrainConfig(
        model=LANDMARKS,
        goal="landmarks",
        base=str(tiny_ldm),
        windows=1,
        held_out=1,
        reader=str(tmp_path / "reader"),
    )
    found = VideoTask(stage1, prepared_clips).validate()
    assert found["val_landmark_error"] > 0
    assert 0 <= found["val_pose_error"] <= 180


@given(st.floats(0, 0.3))
def test_landmark_errors_are_told_in_inter_ocular_distances(away: float) -> None:
    real = torch.from_numpy(FaceModel.from_pretrained().mean)[None].float() * 50
    eyes = float(tp.inter_ocular(real.numpy())[0])
    moved = real + torch.tensor([away * eyes, 0.0, 100.0])
    torch.testing.assert_close(landmark_error(moved, real), torch.tensor([away]), atol=1e-4, rtol=1e-3)


def test_poses_are_learned(prepared_clips: Path) -> None:
    sizes = LandmarkConfig(channels=(8, 16, 16), width=32, layers=1, heads=2)
    task = LandmarkTask(LandmarkTrainConfig(model=sizes, batch=2, held_out=2), prepared_clips)
    before = task.validate()["val_landmark_error"]
    overfit_one_batch(task, TrainerConfig(lr=3e-3, warmup_steps=2, device="cpu"), 40)
    assert task.validate()["val_landmark_error"] < 0.7 * before


def test_a_still_is_seen_through_another_hole_in_every_frame(prepared_clips: Path) -> None:
    sizes = LandmarkConfig(channels=(8, 16, 16), width=32, layers=1, heads=2)
    config = LandmarkTrainConfig(model=sizes, batch=12, frames=4, stills=1.0, held_out=1)
    batch = next(LandmarkTask(config, prepared_clips).batches(np.random.default_rng(0)))
    assert batch["there"].sum() == 48
    assert not batch["audio"].any()
    rotation, place = batch["poses"][:, :, :3], batch["poses"][:, :, 3:5]
    torch.testing.assert_close(rotation, rotation[:, :1].expand(-1, 4, -1))
    assert place.std(1).max() > 0
    told = batch["margin"] > 0
    assert 0 < told.sum() < 12
    assert place[told].std(1).max() < 1e-3  # around a tracked face, always the same
