"""How much of a machine a training uses: batches that fit, operations a step, samples a second."""

import csv
import json
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from talkface.training.batches import Batch
from talkface.training.task import Task
from talkface.training.trainer import TrainerConfig

logger = logging.getLogger(__name__)

_MATRIX_SIDE = {"cuda": 8192, "cpu": 2048}  # of the matrix product that measures a machine's peak
_MATRIX_PRODUCTS = 5  # of which the fastest counts
_FULL = 0.7  # share of the memory that a first step may need
_LATE_STEP = 10**6  # at which every loss that begins late has begun


def has_gpu() -> bool:
    """Whether there is one that torch can use."""
    return torch.cuda.is_available()


def use_tensor_cores() -> None:
    """Let a GPU multiply float32 as its tensor cores do, and look for the fastest convolutions."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True


def fitting(task: Task, sizes: Sequence[str], trainer: TrainerConfig) -> dict[str, Any]:
    """Try a step, and halve the batch until it fits into memory; the task keeps the size that fits.

    Args:
        task: on its device.
        sizes: the settings that make up its batch's size.
        trainer: for the precision.

    Returns:
        ``batch``, ``batch_bytes``, ``gflop_per_sample`` (forward and backward, all optimizers),
        ``parameters`` and ``first_step_seconds``.
    """
    while True:
        begin = time.monotonic()
        try:
            flops, size = _flops_of_a_step(task, trainer)
            if _used(task.device) > _FULL:
                raise torch.cuda.OutOfMemoryError("little is left for optimizers and averages")
        except torch.cuda.OutOfMemoryError:
            smaller = {name: getattr(task.config, name) // 2 for name in sizes}
            if not all(smaller.values()):
                raise
            logger.warning("%s do not fit: %s are tried", sizes, smaller)
            task.config = replace(task.config, **smaller)
            torch.cuda.empty_cache()
            continue
        batch = sum(getattr(task.config, name) for name in sizes)
        parameters = {n: sum(p.numel() for p in m.parameters()) for n, m in task.modules.items()}
        return {
            "batch": batch,
            "batch_bytes": size,
            "gflop_per_sample": round(flops / batch / 1e9, 3),
            "parameters": parameters,
            "first_step_seconds": round(time.monotonic() - begin, 2),
        }


def _used(device: torch.device) -> float:
    """Share of a GPU's memory that was needed at most since the last call."""
    if device.type != "cuda":
        return 0.0
    most = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return most / torch.cuda.get_device_properties(device).total_memory


def _size(batch: Batch) -> int:
    """Bytes of a batch's tensors."""
    if isinstance(batch, dict):
        return sum(map(_size, batch.values()))
    if isinstance(batch, (list, tuple)):
        return sum(map(_size, batch))
    return batch.nbytes if isinstance(batch, torch.Tensor) else 0


def _flops_of_a_step(task: Task, trainer: TrainerConfig) -> tuple[int, int]:
    """Operations of a step late in the training, when all losses count, and bytes of its batch."""
    batch = next(iter(task.batches(np.random.default_rng(trainer.seed))))
    half = torch.autocast(task.device.type, torch.bfloat16, enabled=trainer.precision == "bf16")
    with FlopCounterMode(display=False) as counter:
        for index in range(len(task.optimizers_spec())):
            with half:
                loss = task.training_step(batch, index, _LATE_STEP)["loss"]
            torch.autograd.backward(loss)
    for module in task.modules.values():
        module.zero_grad(set_to_none=True)
    return int(counter.get_total_flops()), _size(batch)


def figures_of(run: Path, step: dict[str, Any], metrics: dict[str, float]) -> dict[str, Any]:
    """Figures of a training that has ended: its speed, and the metrics of its best weights."""
    rows = list(csv.reader((run / "log.csv").open(newline="")))
    steps, seconds = int(rows[-1][0]), float(rows[-1][1])
    speed = round(steps * step["batch"] / max(seconds, 1e-3), 2)
    return step | {"steps": steps, "seconds": seconds, "samples_per_second": speed, "metrics": metrics}


def curve(run: Path) -> list[list[Any]]:
    """Step, name and value of what a run has logged so far."""
    if not (run / "log.csv").is_file():
        return []
    with (run / "log.csv").open(newline="") as file:
        return [[int(step), name, float(value)] for step, _, name, value in csv.reader(file)]


def machine(device: str) -> dict[str, Any]:
    """Name of the GPU, version of torch, and the speed of a matrix product (1e12 operations a second)."""
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    return {"machine": name, "torch": torch.__version__, "peak_tflops": round(peak(device), 4)}


def peak(device: str) -> float:
    """Best speed of a few matrix products, 1e12 operations a second: bf16 on a GPU, else float32."""
    kind = torch.bfloat16 if device == "cuda" else torch.float32
    side, best = _MATRIX_SIDE[device], float("inf")
    a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    for _ in range(_MATRIX_PRODUCTS):
        _wait(device)
        begin = time.perf_counter()
        a @ b
        _wait(device)
        best = min(best, time.perf_counter() - begin)
    return 2 * side**3 / best / 1e12


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak_share(figures: dict[str, Any]) -> float | None:
    """Share of the machine's matrix-product peak that a training's steps used."""
    with suppress(KeyError):
        done = figures["gflop_per_sample"] * figures["samples_per_second"] / 1e3
        return round(float(done / figures["peak_tflops"]), 4)
    return None


def read_figures(run: Path) -> dict[str, Any]:
    """A run's ``figures.json`` so far, with the share of the peak and the logged values."""
    found: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        found = json.loads((run / "figures.json").read_text())
    return found | {"peak_share": peak_share(found), "curve": curve(run)}
