"""The trainer and recipes, on a regression that trains in a second."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from talkface.errors import InvalidOption
from talkface.training import OptimizerSpec, Task, TrainerConfig, fit, overfit_one_batch
from talkface.training.run import TASKS, from_dict, load_recipe, to_dict

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


class Line(Task):
    """y = 3 x - 1 with two optimizers: one for each of two lines."""

    metric, mode = "error", "min"

    def __init__(self, poison: bool = False) -> None:
        torch.manual_seed(0)
        self.modules = {"one": nn.Linear(1, 1), "two": nn.Linear(1, 1)}
        self.poison, self.validations, self.exported = poison, [], {}

    def optimizers_spec(self):
        return [OptimizerSpec(modules=("one",)), OptimizerSpec(modules=("two",), lr=0.5)]

    def batches(self, generator):
        while True:
            x = torch.from_numpy(generator.normal(size=(16, 1)).astype(np.float32))
            yield x, 3 * x - 1

    def training_step(self, batch, optimizer_index, step):
        x, y = batch
        loss = (self.modules[("one", "two")[optimizer_index]](x) - y).square().mean()
        return {"loss": loss * float("nan") if self.poison else loss}

    def validate(self):
        x = torch.linspace(-1, 1, 9)[:, None]
        with torch.no_grad():
            error = (self.modules["one"](x) - 3 * x + 1).square().mean()
        self.validations.append(float(error))
        return {"error": float(error)}

    def samples(self):
        return np.zeros((8, 8, 3), np.uint8)

    def export(self, directory, metrics) -> None:
        self.exported = metrics


SHORT = TrainerConfig(max_steps=120, lr=0.15, warmup_steps=5, log_steps=20, device="cpu", ema_decay=0.9)


def weights(task: Line) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for m in task.modules.values() for p in m.parameters()])


def test_trains_logs_and_exports_the_best(tmp_path) -> None:
    task = Line()
    metrics = fit(task, SHORT, tmp_path)
    assert metrics["error"] < 0.1
    assert task.exported == metrics
    assert (tmp_path / "log.csv").read_text().count("loss,") >= 3
    assert list((tmp_path / "tensorboard").iterdir())
    assert list((tmp_path / "samples").glob("*.png"))
    assert not list(tmp_path.glob("*.pt")) + list(tmp_path.glob("*.pkl"))


def test_resuming_gives_what_one_run_gives(tmp_path) -> None:
    whole, parts = Line(), Line()
    fit(whole, SHORT, tmp_path / "whole")

    def interrupted(batches):
        for _ in range(30):
            yield next(batches)
        raise KeyboardInterrupt

    original = parts.batches
    parts.batches = lambda generator: interrupted(original(generator))
    with pytest.raises(KeyboardInterrupt):
        fit(parts, SHORT, tmp_path / "parts")
    again = Line()
    fit(again, SHORT, tmp_path / "parts")
    np.testing.assert_allclose(weights(again), weights(whole), rtol=1e-5)


def test_twenty_bad_losses_end_the_run(tmp_path) -> None:
    with pytest.raises(FloatingPointError):
        fit(Line(poison=True), SHORT, tmp_path)


def test_one_batch_is_overfitted() -> None:
    first, last = overfit_one_batch(Line(), SHORT, 40)
    assert last < 0.1 * first
    with pytest.raises(ValueError, match="too few"):
        overfit_one_batch(Line(), SHORT, 9)


@dataclass(frozen=True)
class Inner:
    size: tuple[int, int] = (1, 2)


@dataclass(frozen=True)
class Outer:
    inner: Inner = dataclasses.field(default_factory=Inner)
    rate: float = 0.1
    steps: int | None = None


def test_recipes_are_dataclass_trees() -> None:
    config = from_dict(Outer, {"inner": {"size": [3, 4]}, "rate": "1e-4"}, "config")
    assert config == Outer(Inner((3, 4)), 1e-4)
    assert from_dict(Outer, to_dict(config), "config") == config


@pytest.mark.parametrize("values", [{"rat": 1}, {"inner": {"sizes": 1}}, {"rate": "fast"}, {"inner": 3}])
def test_unknown_keys_and_kinds_are_errors(values) -> None:
    with pytest.raises(InvalidOption, match="config"):
        from_dict(Outer, values, "config")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads(path) -> None:
    task_class, config, trainer = load_recipe(path, ["trainer.minutes=0.5"])
    assert isinstance(config, task_class.Config)
    assert trainer.minutes == 0.5


def test_every_task_can_be_imported() -> None:
    import importlib

    for target in TASKS.values():
        module, name = target.split(":")
        assert hasattr(importlib.import_module(module), name)
