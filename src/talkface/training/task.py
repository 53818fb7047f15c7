"""What a system tells the trainer: its modules, data, losses, and how it is validated."""

import abc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, get_args, get_origin

import numpy as np
import torch
from torch import Tensor, nn

from talkface.data.manifest import Manifest
from talkface.training.batches import Batch, drawn, to_device

if TYPE_CHECKING:  # a default is Python 3.13's: ``Task`` alone is a task of any settings
    from typing_extensions import TypeVar as DefaultTypeVar

    Settings = DefaultTypeVar("Settings", default=Any)
else:
    Settings = TypeVar("Settings")


@dataclass(frozen=True, kw_only=True)
class OptimizerSpec:
    """Which modules an optimizer updates; ``lr`` multiplies the trainer's."""

    modules: tuple[str, ...]
    lr: float = 1.0


class BaseTask(abc.ABC, Generic[Settings]):
    """What all trainings have: settings and a prepared folder.

    Attributes:
        Config: dataclass of the settings: ``MyConfig`` of ``class MyTask(Task[MyConfig])``.
        config: the settings.
        manifest: the clips of the prepared folder.
    """

    Config: ClassVar[type[Any]]
    config: Settings
    manifest: Manifest

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for base in cls.__dict__.get("__orig_bases__", ()):
            parameters = get_args(base)
            if issubclass(get_origin(base) or object, BaseTask) and isinstance(parameters[0], type):
                cls.Config = parameters[0]


class Task(BaseTask[Settings]):
    """A training by gradient descent, as :func:`talkface.training.fit` runs it.

    Args:
        config: settings, an instance of ``Config``.
        data: a folder that ``talkface prepare`` wrote.
        seed: of what is drawn at random before the first step.
        device: where the modules and the batches are.

    Attributes:
        metric: key of :meth:`validate` that chooses the best weights.
        mode: "max" or "min".
        modules: what is trained, averaged and saved; names prefix the keys of the checkpoint.
        workers: processes that draw batches; 0 for a thread. The trainer sets it.
    """

    metric: str
    mode: str
    modules: dict[str, nn.Module]
    device: torch.device = torch.device("cpu")
    workers: int = 0

    def __init__(self, config: Settings, data: Path, seed: int = 0, device: str = "cpu") -> None:
        self.config, self.device = config, torch.device(device)
        self.manifest = Manifest.load(data)
        self.prepare(Path(data), seed)

    def prepare(self, data: Path, seed: int) -> None:
        """Load the data and build ``modules``; a task with an ``__init__`` of its own does so there."""

    def optimizers_spec(self) -> list[OptimizerSpec]:
        """One optimizer over everything, unless a task says otherwise."""
        return [OptimizerSpec(modules=tuple(self.modules))]

    def draw(self, generator: np.random.Generator) -> Batch:
        """One training batch on the CPU: arrays or tensors in dicts, lists or tuples.

        Batches are drawn ahead of their steps, in a thread or in processes of their own: this method reads
        what the task has loaded and changes nothing.
        """
        raise NotImplementedError

    def batches(self, generator: np.random.Generator) -> Iterator[Batch]:
        """Endless training batches on the device: what :meth:`draw` draws, unless a task says otherwise."""
        for batch in drawn(self.draw, generator, self.workers):
            yield to_device(batch, self.device)

    @abc.abstractmethod
    def training_step(self, batch: Batch, optimizer_index: int, step: int) -> dict[str, Tensor]:
        """Losses of one optimizer; "loss" is what is differentiated, the rest is logged.

        Args:
            batch: one of :meth:`batches`.
            optimizer_index: which of :meth:`optimizers_spec`.
            step: how many steps were taken before; losses may begin late.
        """

    @abc.abstractmethod
    def validate(self) -> dict[str, float]:
        """Metrics on held-out data; modules hold averaged weights and are in eval mode."""

    def samples(self) -> np.ndarray | None:
        """A contact sheet (H, W, 3) uint8 from fixed inputs and seeds, or None."""
        return None

    @abc.abstractmethod
    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Write the best weights as the hub reads them."""


class ClosedFormTask(BaseTask[Settings]):
    """A training without steps: a linear problem that is solved at once.

    Args:
        config: settings, an instance of ``Config``.
        data: a folder that ``talkface prepare`` wrote.
    """

    def __init__(self, config: Settings, data: Path) -> None:
        self.config, self.manifest = config, Manifest.load(data)

    @abc.abstractmethod
    def solve(self, output: Path) -> dict[str, float]:
        """Solve the problem, write the model into ``output``/export and return its metrics."""
