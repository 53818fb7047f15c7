"""TH-PAD's trainings on tiny models."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from talkface.performance.config import PriorConfig
from talkface.performance.model import DiffusionPrior, MotionModel
from talkface.training import TrainerConfig, overfit_one_batch
from talkface.training.tasks.thpad_lips import LipsTask, LipsTrainConfig
from talkface.training.tasks.thpad_motion import MotionTrainConfig, best_lag_correlation
from talkface.training.tasks.thpad_prior import PriorTask, PriorTrainConfig, editing_mask
from talkface.training.tasks.thpad_sync import fractional_lag


@settings(max_examples=40, deadline=None)
@given(st.integers(30, 128), st.integers(0, 10_000))
def test_editing_masks_leave_something_to_draw(frames: int, seed: int) -> None:
    known = editing_mask(frames, np.random.default_rng(seed))
    assert set(np.unique(known)) <= {0.0, 1.0}
    assert known.shape == (frames,)


@pytest.mark.parametrize("lag", [-3, 0, 2])
def test_lag_of_a_shifted_signal_is_found(lag: int) -> None:
    signal = np.convolve(np.random.default_rng(0).standard_normal(200), np.ones(5) / 5, "same")
    found, score = fractional_lag(np.roll(signal, lag), signal, 5)
    assert abs(found - lag) < 0.2
    assert score > 0.95
    assert best_lag_correlation(np.roll(signal, 1), signal)[1] == 1


def test_lips_are_trained_anew_beside_what_stays(prepared_clips: Path, tmp_path: Path) -> None:
    """The first member, the heads and their codes are as before; the others overfit a batch."""
    motion = MotionTrainConfig(variants=1, batch=2, window=40, feature_noise=0.0)
    task = LipsTask(LipsTrainConfig(motion=motion, dropout=0.0), prepared_clips)
    before = MotionModel.from_pretrained("thpad-motion").state_dict()
    quick = TrainerConfig(max_steps=60, lr=2e-3, warmup_steps=2, device="cpu")
    first, last = overfit_one_batch(task, quick, 25)
    assert last < 0.7 * first
    found = task.validate()
    task.export(tmp_path, found)
    after = MotionModel.from_pretrained(str(tmp_path)).state_dict()
    lips = ("audio_encoder", "mlp_a2l", "lip_decoder")
    for name, value in before.items():
        part, _, member = name.partition(".")
        if part in lips and not member.startswith("0."):
            assert (after[name] != value).any(), name
        elif name != "lip_gain":
            torch.testing.assert_close(after[name], value, msg=name)
    assert after["lip_gain"] > 0


def test_prior_overfits_one_batch(prepared_clips: Path, tmp_path: Path) -> None:
    model = PriorConfig(width=32, layers=1, heads=2, feed_forward=32, window=60)
    motion = MotionTrainConfig(variants=1)
    config = PriorTrainConfig(model=model, motion=motion, batch=4, condition_dropout=0.0)
    torch.manual_seed(0)
    task = PriorTask(config, prepared_clips)
    quick = TrainerConfig(max_steps=60, lr=1e-2, warmup_steps=2, device="cpu")
    first, last = overfit_one_batch(task, quick, 25)
    assert last < 0.8 * first
    task.prior.eval()
    found = task.validate()
    assert found == task.validate(), "always under the same noise"
    task.export(tmp_path, found)
    assert DiffusionPrior.from_pretrained(str(tmp_path)).config == model
