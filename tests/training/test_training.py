"""The trainer and recipes, on a regression that trains in a second."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from talkface.data.manifest import Manifest
from talkface.errors import InvalidOption
from talkface.training import ClosedFormTask, OptimizerSpec, Task, TrainerConfig, fit, overfit_one_batch
from talkface.training.run import (
    SAVED_RECIPE,
    TASKS,
    from_dict,
    load_recipe,
    task_class,
    to_dict,
    train_recipe,
)

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


@dataclass(frozen=True, kw_only=True)
class LineConfig:
    slope: float = 3.0
    poison: bool = False


class Line(Task[LineConfig]):
    """y = slope x - 1 with two optimizers: one for each of two lines."""

    metric, mode = "error", "min"

    def prepare(self, data: Path, seed: int) -> None:
        torch.manual_seed(seed)
        self.modules = {"one": nn.Linear(1, 1), "two": nn.Linear(1, 1)}
        self.exported: dict[str, float] = {}

    def optimizers_spec(self) -> list[OptimizerSpec]:
        return [OptimizerSpec(modules=("one",)), OptimizerSpec(modules=("two",), lr=0.5)]

    def batches(self, generator: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            x = torch.from_numpy(generator.normal(size=(16, 1)).astype(np.float32))
            yield x, self.config.slope * x - 1

    def training_step(
        self, batch: tuple[Tensor, Tensor], optimizer_index: int, step: int
    ) -> dict[str, Tensor]:
        x, y = batch
        loss = (self.modules[("one", "two")[optimizer_index]](x) - y).square().mean()
        return {"loss": loss * float("nan") if self.config.poison else loss}

    def validate(self) -> dict[str, float]:
        x = torch.linspace(-1, 1, 9)[:, None]
        with torch.no_grad():
            return {"error": float((self.modules["one"](x) - self.config.slope * x + 1).square().mean())}

    def samples(self) -> np.ndarray:
        return np.zeros((8, 8, 3), np.uint8)

    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        self.exported = metrics


class Mean(ClosedFormTask[LineConfig]):
    """The mean of a few numbers."""

    def solve(self, output: Path) -> dict[str, float]:
        return {"mean": self.config.slope * len(self.manifest.items)}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A prepared folder without clips."""
    folder = tmp_path / "prepared"
    folder.mkdir()
    Manifest(folder, tmp_path, []).save()
    return folder


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes find this module's tasks."""
    monkeypatch.setitem(TASKS, "line", f"{__name__}:Line")
    monkeypatch.setitem(TASKS, "mean", f"{__name__}:Mean")


SHORT = TrainerConfig(max_steps=120, lr=0.15, warmup_steps=5, log_steps=20, device="cpu", ema_decay=0.9)


def weights(task: Line) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for m in task.modules.values() for p in m.parameters()])


def test_trains_logs_and_exports_the_best(data: Path, tmp_path: Path) -> None:
    task = Line(LineConfig(), data)
    metrics = fit(task, SHORT, tmp_path)
    assert metrics["error"] < 0.1
    assert task.exported == metrics
    assert (tmp_path / "log.csv").read_text().count("loss,") >= 3
    assert list((tmp_path / "tensorboard").iterdir())
    assert list((tmp_path / "samples").glob("*.png"))
    assert not list(tmp_path.glob("*.pt")) + list(tmp_path.glob("*.pkl"))


def test_resuming_gives_what_one_run_gives(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = Line(LineConfig(), data), Line(LineConfig(), data)
    fit(whole, SHORT, tmp_path / "whole")
    endless = parts.batches

    def interrupted(generator: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        batches = endless(generator)
        for _ in range(30):
            yield next(batches)
        raise KeyboardInterrupt

    monkeypatch.setattr(parts, "batches", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(parts, SHORT, tmp_path / "parts")
    again = Line(LineConfig(), data)
    fit(again, SHORT, tmp_path / "parts")
    np.testing.assert_allclose(weights(again), weights(whole), rtol=1e-5)


def test_twenty_bad_losses_end_the_run(data: Path, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError):
        fit(Line(LineConfig(poison=True), data), SHORT, tmp_path)


def test_one_batch_is_overfitted(data: Path) -> None:
    first, last = overfit_one_batch(Line(LineConfig(), data), SHORT, 40)
    assert last < 0.1 * first
    with pytest.raises(ValueError, match="too few"):
        overfit_one_batch(Line(LineConfig(), data), SHORT, 9)


# -- recipes -----------------------------------------------------------------------------------------


RECIPE = "task: line\nconfig: {slope: 2}\ntrainer: {max_steps: 30, lr: 0.15, warmup_steps: 5, device: cpu}\n"


@pytest.mark.usefixtures("tasks")
def test_the_saved_recipe_runs_again_as_it_is(data: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE)
    first = train_recipe(tmp_path / "mine.yaml", data, tmp_path / "first", ["config.slope=4"])
    saved = tmp_path / "first" / SAVED_RECIPE
    again = train_recipe(saved, data, tmp_path / "again")
    assert again == first
    assert (tmp_path / "again" / SAVED_RECIPE).read_text() == saved.read_text()
    assert yaml.safe_load(saved.read_text())["config"] == {"slope": 4.0, "poison": False}


@pytest.mark.usefixtures("tasks")
def test_a_saved_recipe_goes_on_with_its_run(data: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE)
    train_recipe(tmp_path / "mine.yaml", data, tmp_path / "run")
    train_recipe(tmp_path / "run" / SAVED_RECIPE, data, overrides=["trainer.max_steps=40"])
    steps = [int(line.split(",")[0]) for line in (tmp_path / "run" / "log.csv").read_text().splitlines()]
    assert steps == sorted(steps)
    assert set(steps) == {30, 40}


@pytest.mark.usefixtures("tasks")
def test_a_closed_form_is_solved_without_the_trainer(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("there is nothing to iterate")

    monkeypatch.setattr("talkface.training.run.fit", refuse)
    (tmp_path / "mean.yaml").write_text("task: mean\n")
    assert train_recipe(tmp_path / "mean.yaml", data, tmp_path / "run") == {"mean": 0.0}
    assert load_recipe(tmp_path / "run" / SAVED_RECIPE).config == LineConfig()
    with pytest.raises(InvalidOption, match="closed form"):
        load_recipe(tmp_path / "mean.yaml").iterative()


@pytest.mark.parametrize(
    ("text", "said"),
    [("task: lien", "unknown task"), ("task: face\nsystem: x", "unknown system"), ("", "task")],
)
def test_an_unknown_recipe_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InvalidOption, match=said):
        load_recipe(tmp_path / "mine.yaml")


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


@pytest.mark.parametrize(
    "values",
    [
        {"rat": 1},
        {"inner": {"sizes": 1}},
        {"rate": "fast"},
        {"inner": 3},
        {"inner": {"size": 3}},
        {"inner": {"size": [1, 2, 3]}},
        {"steps": "many"},
    ],
    ids=str,
)
def test_unknown_keys_and_kinds_are_errors(values: dict[str, object]) -> None:
    with pytest.raises(InvalidOption, match="config"):
        from_dict(Outer, values, "config")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_is_saved_whole(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path, ["trainer.minutes=0.5"])
    assert isinstance(recipe.config, recipe.task_class.Config)
    assert recipe.trainer.minutes == 0.5
    (tmp_path / SAVED_RECIPE).write_text(recipe.text())
    assert load_recipe(tmp_path / SAVED_RECIPE) == recipe


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_of_one_of_two_kinds(name: str) -> None:
    assert issubclass(task_class(name), Task) != issubclass(task_class(name), ClosedFormTask)
