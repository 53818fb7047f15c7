"""The log of a training: a table of values and TensorBoard events."""

import csv
import logging
from collections import defaultdict
from pathlib import Path

import numpy as np

logger = logging.getLogger(__name__)


class Log:
    """``log.csv`` (step, seconds, name, value) and TensorBoard events: means over steps, and validations.

    Args:
        output: folder of the run.
    """

    def __init__(self, output: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.path, self.board = output / "log.csv", SummaryWriter(str(output / "tensorboard"))
        self.sums: dict[str, list[float]] = defaultdict(list)

    def add(self, values: dict[str, float]) -> None:
        """Collect the values of a step."""
        for name, value in values.items():
            self.sums[name].append(value)

    def flush(self, step: int, seconds: float, extra: dict[str, float] | None = None) -> None:
        """Write the means of what was collected since the last call, and ``extra``."""
        row = {name: float(np.mean(values)) for name, values in self.sums.items()} | (extra or {})
        self.sums.clear()
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerows(
                [step, round(seconds, 1), name, f"{value:.6g}"] for name, value in row.items()
            )
        for name, value in row.items():
            self.board.add_scalar(name, value, step)
        logger.info("step %d, %.0f s: %s", step, seconds, ", ".join(f"{k} {v:.4g}" for k, v in row.items()))

    def picture(self, sheet: np.ndarray, step: int) -> None:
        """Show a contact sheet (H, W, 3) uint8 in TensorBoard."""
        self.board.add_image("samples", sheet, step, dataformats="HWC")
