"""A task's first steps, which most trainings have in common."""

import abc
from pathlib import Path
from typing import Generic, TypeVar

import torch

from talkface.training.task import Task

ConfigT = TypeVar("ConfigT")


class PreparedTask(Task, Generic[ConfigT]):
    """A task that keeps its settings and its device, and then loads all it needs.

    Args:
        config: settings.
        data: the prepared folder.
        seed: of the initial weights and of what is drawn at random before the first step.
        device: where the modules and the batches are.
    """

    config: ConfigT

    def __init__(self, config: ConfigT, data: Path, seed: int = 0, device: str = "cpu") -> None:
        self.config, self.device = config, torch.device(device)
        self.prepare(Path(data), seed)

    @abc.abstractmethod
    def prepare(self, data: Path, seed: int) -> None:
        """Load the data, and build ``modules``."""
