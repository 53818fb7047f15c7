"""What a system tells the trainer: its modules, data, losses, and how it is validated."""

import abc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from talkface.training.draws import drawn, to_device


@dataclass(frozen=True, kw_only=True)
class OptimizerSpec:
    """Which modules an optimizer updates; ``lr`` multiplies the trainer's."""

    modules: tuple[str, ...]
    lr: float = 1.0


class Task(abc.ABC):
    """A training: constructed as ``TaskClass(config, data, seed, device)`` by a recipe.

    Attributes:
        Config: dataclass of the task's settings.
        metric: key of :meth:`validate` that chooses the best weights.
        mode: "max" or "min".
        modules: what is trained, averaged and saved; names prefix the keys of the checkpoint.
        device: where the modules and the batches are.
        workers: processes that draw batches; 0 for a thread.
    """

    Config: ClassVar[type]
    metric: str
    mode: str
    modules: dict[str, nn.Module]
    device: torch.device = torch.device("cpu")
    workers: int = 0

    def optimizers_spec(self) -> list[OptimizerSpec]:
        """One optimizer over everything, unless a task says otherwise."""
        return [OptimizerSpec(modules=tuple(self.modules))]

    def draw(self, generator: np.random.Generator) -> Any:
        """One training batch on the CPU: arrays or tensors in dicts, lists or tuples.

        Drawn ahead, in a thread or in processes of their own: it reads what the task has loaded and changes
        nothing.
        """
        raise NotImplementedError

    def batches(self, generator: np.random.Generator) -> Iterator[Any]:
        """Endless training batches on the device: what :meth:`draw` draws, unless a task says otherwise."""
        for batch in drawn(self.draw, generator, self.workers):
            yield to_device(batch, self.device)

    @abc.abstractmethod
    def training_step(self, batch: Any, optimizer_index: int, step: int) -> dict[str, Tensor]:
        """Losses of one optimizer; "loss" is what is differentiated, the rest is logged."""

    @abc.abstractmethod
    def validate(self) -> dict[str, float]:
        """Metrics on held-out data; modules hold averaged weights and are in eval mode."""

    def samples(self) -> np.ndarray | None:
        """A contact sheet (H, W, 3) uint8 from fixed inputs and seeds, or None."""
        return None

    @abc.abstractmethod
    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Write the best weights as the hub reads them."""
