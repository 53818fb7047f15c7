"""Distillation of the face LDM: what the student is taught, and that it is asked as seldom as it learnt."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import write_looks
from talkface.data.faces import portraits
from talkface.data.manifest import Manifest
from talkface.diffusion.autoencoder import FaceAutoencoder
from talkface.diffusion.base import Base
from talkface.diffusion.config import DiffusionConfig
from talkface.diffusion.critic import PortraitCritic
from talkface.diffusion.model import FaceDiffusion
from talkface.diffusion.sampling import (
    DEFAULT_GUIDANCE,
    DEFAULT_STEPS,
    TIMESTEP_SHIFT,
    default_guidance,
    default_steps,
    sample,
)
from talkface.errors import InvalidOption, ModelUnavailable
from talkface.face.model import FaceModel
from talkface.face.portrait import PORTRAIT_PIXELS
from talkface.face.tracker import FaceTracker
from talkface.hub import save_pretrained
from talkface.systems.imagineid.adapters import Adapters
from talkface.systems.imagineid.config import PadConfig
from talkface.systems.imagineid.pad import Pad
from talkface.systems.imagineid.portrait import PortraitImaginer, PortraitOptions
from talkface.training import TrainerConfig, overfit_one_batch
from talkface.training.datasets.drafts import _draw
from talkface.training.run import load_recipe
from talkface.training.tasks.diffusion_distilled import DistilledTask, DistilledTrainConfig
from talkface.training.tasks.diffusion_ldm import conditions, draw_latents, noised

TEACHER = DiffusionConfig(widths=(16, 32), attention=(False, True), heads=2, text=16, text_layers=1, mesh=4)
STUDENT = replace(TEACHER, widths=(8, 16))
QUICK = TrainerConfig(max_steps=60, lr=3e-3, warmup_steps=2, device="cpu")
RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="module")
def prepared(prepared_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared clips, and what a first look at them finds."""
    folder = tmp_path_factory.mktemp("clips") / "prepared"
    shutil.copytree(prepared_clips, folder)
    write_looks(folder)
    return folder


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a random teacher and its autoencoder."""
    torch.manual_seed(0)
    folder, model, autoencoder = (
        tmp_path_factory.mktemp("shipped"),
        FaceDiffusion(TEACHER),
        FaceAutoencoder.debug(),
    )
    for name, module in (("teacher", model), ("autoencoder", autoencoder)):
        save_pretrained(folder / name, {"model": asdict(module.config)}, module.state_dict())
    return folder


@pytest.fixture(scope="module")
def config(shipped: Path) -> DistilledTrainConfig:
    return DistilledTrainConfig(
        model=STUDENT,
        autoencoder=str(shipped / "autoencoder"),
        teacher=str(shipped / "teacher"),
        variants=1,
        batch=4,
        sharpness=0.0,
        held_out=2,
        steps=3,
        substeps=2,
    )


@pytest.fixture(scope="module")
def task(config: DistilledTrainConfig, prepared: Path) -> DistilledTask:
    return DistilledTask(config, prepared)


@contextmanager
def asked(model: FaceDiffusion) -> Iterator[list[Tensor]]:
    """The times (B,) of every call of a model's network."""
    times: list[Tensor] = []
    handle = model.register_forward_pre_hook(lambda _, given: times.append(given[1].clone()))
    try:
        yield times
    finally:
        handle.remove()


def latents_at(task: DistilledTask, times: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """A batch, and its latents as noisy as at the first of times (S + 1, B)."""
    batch = next(task.batches(np.random.default_rng(0)))
    noise = torch.randn(batch["latents"].shape, generator=torch.Generator().manual_seed(0))
    return batch, noised(batch["latents"], noise, times[0])


# -- what is taught --------------------------------------------------------------------------------


def test_one_step_without_guidance_is_the_teachers_velocity(
    config: DistilledTrainConfig, prepared: Path
) -> None:
    task = DistilledTask(replace(config, substeps=1, guidance=1.0), prepared)
    for times in (task._substeps(4), task._one_step(torch.tensor([0.05, 0.3, 0.6, 0.95]))):
        batch, noisy = latents_at(task, times)
        with torch.no_grad():
            wanted = task.teacher(noisy, times[0], *conditions(task.teacher, batch))
        found = task._taught(batch, noisy, times)
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
        assert not found.requires_grad


def test_what_is_taught_leads_where_the_teacher_goes(task: DistilledTask) -> None:
    """Step by step of the student, to what the teacher draws with guidance in all its own."""
    batch, noise = latents_at(task, torch.ones(1, 4))
    noisy, substeps = noise, task.config.substeps
    for step in range(task.config.steps):
        times = task.schedule[step * substeps : (step + 1) * substeps + 1, None].expand(-1, 4)
        change = (times[-1] - times[0])[:, None, None, None]
        noisy = noisy + change * task._taught(batch, noisy, times)
    wanted = draw_latents(task.teacher, batch, noise, 4, task.config.steps * substeps, DEFAULT_GUIDANCE)
    torch.testing.assert_close(noisy, wanted, atol=1e-3, rtol=1e-3)
    plain = draw_latents(task.teacher, batch, noise, 4, task.config.steps * substeps, 1.0)
    assert (wanted - plain).abs().max() > 1e-2


def test_the_schedule_is_the_one_that_is_sampled(task: DistilledTask) -> None:
    every: list[float] = []

    def velocity(x: Tensor, time: Tensor) -> Tensor:
        every.append(float(time[0]))
        return x

    steps, substeps = task.config.steps, task.config.substeps
    for count, stride in ((steps, substeps), (steps * substeps, 1)):
        every.clear()
        sample(velocity, torch.zeros(1, 4, 8, 8), count, shift=TIMESTEP_SHIFT)
        np.testing.assert_allclose([*every, 0.0], task.schedule[::stride], atol=1e-6)
    walks = task._substeps(64)
    assert walks.shape == (substeps + 1, 64)
    assert set(walks[0].tolist()) == set(task.schedule[:-1:substeps].tolist())
    assert set(walks[-1].tolist()) == set(task.schedule[substeps::substeps].tolist())


@pytest.mark.parametrize(("plain", "teachers", "students"), [(0.0, 2, 1), (0.5, 3, 2), (1.0, 1, 1)])
def test_a_share_is_taught_at_plain_times(
    task: DistilledTask, monkeypatch: pytest.MonkeyPatch, plain: float, teachers: int, students: int
) -> None:
    monkeypatch.setattr(task, "config", replace(task.config, plain=plain))
    drawn = task.draw(np.random.default_rng(0))
    assert all(isinstance(part, np.ndarray) for part in drawn.values())
    batch, _ = latents_at(task, torch.ones(1, 4))
    with asked(task.teacher) as by_teacher, asked(task.model) as by_student:
        losses = task.training_step(batch, 0, 0)
    assert (len(by_teacher), len(by_student)) == (teachers, students)
    assert sum(len(times) for times in by_student) == 4
    losses["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in task.model.parameters() if p.grad is not None)
    assert all(p.grad is None for p in task.teacher.parameters())
    assert set(task.modules) == {"diffusion"}


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"substeps": 0}, {"plain": 1.5}])
def test_settings_without_sense_are_refused(
    config: DistilledTrainConfig, prepared: Path, wrong: dict
) -> None:
    with pytest.raises(InvalidOption, match=next(iter(wrong))):
        DistilledTask(replace(config, **wrong), prepared)
    with pytest.raises(ModelUnavailable, match="nobody"):
        DistilledTask(replace(config, teacher="nobody"), prepared)


# -- training and what comes out -------------------------------------------------------------------


def test_student_overfits_one_batch_and_draws_as_it_has_learnt(
    config: DistilledTrainConfig, shipped: Path, prepared: Path, tmp_path: Path
) -> None:
    task = DistilledTask(replace(config, batch=2), prepared)
    before = task.validate()
    first, last = overfit_one_batch(task, QUICK, 30)
    assert last < 0.6 * first
    found = task.validate()
    assert found == task.validate()
    assert found["val_distance"] < before["val_distance"]
    assert found["val_loss"] < before["val_loss"]
    assert task.samples().shape[1:] == (2 * PORTRAIT_PIXELS, 3)
    task.spectrum = partial(task.spectrum, 4)  # of fewer samples
    task.export(tmp_path / "student", found)
    student = FaceDiffusion.from_pretrained(str(tmp_path / "student"))
    assert replace(student.config, spectrum=()) == replace(STUDENT, steps=3, guided=True)
    assert count_of_calls(student, PortraitOptions()) == [2] * 3
    assert count_of_calls(student, PortraitOptions(steps=5)) == [2] * 5
    assert count_of_calls(student, PortraitOptions(guidance=DEFAULT_GUIDANCE)) == [4] * 3
    assert (
        count_of_calls(FaceDiffusion.from_pretrained(config.teacher), PortraitOptions())
        == [4] * DEFAULT_STEPS
    )
    check_drafts(student, prepared)
    further = DistilledTask(replace(config, teacher=str(tmp_path / "student")), prepared)
    assert further.guidance == 1.0  # its teacher has guidance in it
    assert task.guidance == DEFAULT_GUIDANCE


def count_of_calls(model: FaceDiffusion, options: PortraitOptions) -> list[int]:
    """How many latents each call of the network has been given for two portraits."""
    base = Base("tiny", model, FaceAutoencoder.debug(), PORTRAIT_PIXELS)
    pad, face = (
        Pad(PadConfig(content=16, width=16, layers=1, heads=2, semantic=8)).eval(),
        FaceModel.from_pretrained(),
    )
    imaginer = PortraitImaginer(base, Adapters(), pad, face, FaceTracker(), PortraitCritic.debug())
    mesh = (face.mean * 60 + PORTRAIT_PIXELS / 2).astype(np.float32)
    with asked(model) as times:
        drawn = imaginer._draw(base.embed_prompt("old man")[0], mesh, torch.randn(2, 4, 32, 32), options)
    assert drawn.shape == (2, PORTRAIT_PIXELS, PORTRAIT_PIXELS, 3)
    return [len(now) for now in times]


def check_drafts(student: FaceDiffusion, prepared: Path) -> None:
    portrait = portraits(Manifest.load(prepared))[0]
    base, warp = (
        Base("tiny", student, FaceAutoencoder.debug(), PORTRAIT_PIXELS),
        FaceModel.from_pretrained().mesh_warp(),
    )
    with asked(student) as times:
        _draw(base, warp, [(portrait.image(), portrait.points)], ["man"], np.array([0.6]), 0)
    assert [len(now) for now in times] == [1] * 3


def test_models_from_before_load_and_draw_as_they_did(shipped: Path, tmp_path: Path) -> None:
    written = json.loads((shipped / "teacher" / "config.json").read_text())
    for name in ("steps", "guided"):
        del written["model"][name]
    (tmp_path / "config.json").write_text(json.dumps(written))
    (tmp_path / "model.safetensors").write_bytes((shipped / "teacher" / "model.safetensors").read_bytes())
    old = FaceDiffusion.from_pretrained(str(tmp_path))
    assert old.config == TEACHER
    assert (default_steps(old), default_guidance(old)) == (DEFAULT_STEPS, DEFAULT_GUIDANCE)


@pytest.mark.parametrize(
    ("name", "least", "most"), [("face-diffusion-large", 60, 120), ("face-diffusion-distilled", 10, 30)]
)
def test_recipes_have_the_sizes_that_they_say(name: str, least: float, most: float) -> None:
    config = load_recipe(RECIPES / f"{name}.yaml").config
    with torch.device("meta"):
        model = FaceDiffusion(config.model)
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert least <= millions <= most
    assert f"{millions:.1f} M parameters" in (RECIPES / f"{name}.yaml").read_text()
