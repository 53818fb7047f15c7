"""One trainer for every system: tasks, recipes, checkpoints, logs."""

from talkface.training.task import ClosedFormTask, OptimizerSpec, Task
from talkface.training.trainer import TrainerConfig, fit, overfit_one_batch

__all__ = ["ClosedFormTask", "OptimizerSpec", "Task", "TrainerConfig", "fit", "overfit_one_batch"]
