"""The training loop: mixed precision, averaged weights, time budget, resume, best checkpoint, log."""

import json
import logging
import math
import os
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from talkface.hub import load_pretrained
from talkface.training.averages import Average
from talkface.training.batches import Batch
from talkface.training.log import Log
from talkface.training.task import Task

if TYPE_CHECKING:
    from accelerate.optimizer import AcceleratedOptimizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """How long and how a task is trained.

    The learning rate warms up, then falls along a cosine over the time budget (or ``max_steps``) to 1/20.
    On a GPU the weights are channels-last.

    Attributes:
        minutes: the time budget; validation counts, what came before the first step does not.
        max_steps: ends the training after so many steps, in place of the time budget.
        lr: the highest learning rate; an optimizer may multiply it.
        weight_decay: AdamW's.
        betas: AdamW's.
        warmup_steps: in which the learning rate rises.
        gradient_clip: the largest norm of an optimizer's gradients.
        ema_decay: of the averaged weights, which are validated and exported.
        precision: "no", "bf16" or "fp16"; "bf16" pays where the processor has bf16 units: measure.
        seed: of what is drawn at random.
        device: "auto" takes a GPU when there is one.
        threads: of the CPU; 0 for torch's own choice.
        workers: processes that draw batches; 0 for a thread. They pay where a GPU waits for batches.
        compile: whether modules are compiled: a minute or two at the start.
        init: weights to start from: best.safetensors of a run, or an exported model's name or directory.
        validate_seconds: how often the weights are validated.
        checkpoint_seconds: how often a checkpoint to resume from is written; 0 for never.
        export_seconds: how often the best weights are exported on the way; 0 for at the end alone.
        log_steps: over which logged values are averaged.
    """

    minutes: float = 10.0
    max_steps: int | None = None
    lr: float = 3e-4
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    warmup_steps: int = 100
    gradient_clip: float = 1.0
    ema_decay: float = 0.999
    precision: str = "no"
    seed: int = 0
    device: str = "auto"
    threads: int = 0
    workers: int = 0
    compile: bool = False
    init: str = ""
    validate_seconds: float = 120.0
    checkpoint_seconds: float = 120.0
    export_seconds: float = 0.0
    log_steps: int = 50


class TrainingState:
    """What is saved of a training and resumed: step, seconds, best metrics, weights, optimizers.

    Args:
        task: what is trained; its modules are moved to the device.
        config: how.
        output: folder of the run.
    """

    def __init__(self, task: Task, config: TrainerConfig, output: Path) -> None:
        from accelerate import Accelerator

        if config.threads:
            torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.task, self.config, self.output = task, config, output
        task.workers = config.workers
        self.accelerator = Accelerator(mixed_precision=config.precision, cpu=config.device == "cpu")
        self.generator = np.random.default_rng(config.seed)
        specs = task.optimizers_spec()
        self.rates = [spec.lr for spec in specs]
        self.groups = [[p for n in spec.modules for p in task.modules[n].parameters()] for spec in specs]
        optimizers = [
            torch.optim.AdamW(g, config.lr, config.betas, weight_decay=config.weight_decay, fused=True)
            for g in self.groups
        ]
        self.optimizers: list[AcceleratedOptimizer] = [self.accelerator.prepare(o) for o in optimizers]
        for module in task.modules.values():  # moved to the device, and cast where the precision asks for it
            self.accelerator.prepare(_in_fast_layout(module, self.accelerator.device))
        if config.init:
            self.load(self._initial(config.init))
        if config.compile:
            _compile(task.modules.values())
        self.average = Average([p for group in self.groups for p in group], config.ema_decay)
        self.step, self.seconds, self.bad_losses, self.exported = 0, 0.0, 0, -math.inf
        self.best: float | None = None
        self.best_metrics: dict[str, float] = {}
        self.sheet: np.ndarray | None = None

    # -- one step --------------------------------------------------------------------------------

    def fraction(self) -> float:
        """Share of the budget that is spent, 0 to 1."""
        spent = self.seconds / (60 * self.config.minutes)
        return min(1.0, self.step / self.config.max_steps if self.config.max_steps else spent)

    def train_on(self, batch: Batch) -> dict[str, float]:
        """Update every optimizer on a batch; a step whose loss is not finite changes nothing."""
        warm = min(1.0, (self.step + 1) / max(1, self.config.warmup_steps))
        rate = self.config.lr * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * self.fraction())))
        logged: dict[str, float] = {}
        for index, optimizer in enumerate(self.optimizers):
            for group in optimizer.param_groups:
                group["lr"] = rate * self.rates[index]
            with self.accelerator.autocast():
                losses = self.task.training_step(batch, index, self.step)
            values = _numbers(losses)
            if math.isfinite(values["loss"]):
                self._update(optimizer, index, losses["loss"])
            else:
                self._skip()
            logged |= {key if index == 0 else f"{key}_{index}": value for key, value in values.items()}
        self.step += 1
        self.average.update(self.step)
        return logged | {"lr": rate}

    def _update(self, optimizer: "AcceleratedOptimizer", index: int, loss: Tensor) -> None:
        for other in self.optimizers:
            other.zero_grad()
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.groups[index], self.config.gradient_clip)
        optimizer.step()
        self.bad_losses = 0

    def _skip(self) -> None:
        self.bad_losses += 1
        logger.warning("step %d: the loss is not finite; skipped", self.step)
        if self.bad_losses >= 20:
            raise FloatingPointError("20 losses in a row were not finite: lower the learning rate")

    # -- validation and checkpoints --------------------------------------------------------------

    def weights(self) -> dict[str, Tensor]:
        """All modules' tensors under prefixed names."""
        return {
            f"{name}.{key}": tensor.detach().cpu().clone().contiguous()
            for name, module in self.task.modules.items()
            for key, tensor in module.state_dict().items()
        }

    def _initial(self, source: str) -> dict[str, Tensor]:
        """Own weights, replaced by a run's or an exported model's of the same name and shape.

        An exported model's are the first module's.
        """
        own, first = self.weights(), next(iter(self.task.modules))
        given = (
            load_file(source)
            if source.endswith(".safetensors")
            else {f"{first}.{name}": tensor for name, tensor in load_pretrained(source)[1].items()}
        )
        fitting = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
        logger.info("%d of %d tensors start from %s", len(fitting), len(own), source)
        return own | fitting

    def load(self, weights: dict[str, Tensor]) -> None:
        """Load what :meth:`weights` gave."""
        for name, module in self.task.modules.items():
            own = {k.removeprefix(name + "."): v for k, v in weights.items() if k.startswith(name + ".")}
            module.load_state_dict(own)

    def validate(self) -> dict[str, float]:
        """Metrics of the averaged weights; keeps them when they are the best so far."""
        self.train_mode(False)
        with self.average.applied(), _as_written(self.config.compile):
            metrics = {name: float(value) for name, value in self.task.validate().items()}
            score = metrics[self.task.metric] * (1 if self.task.mode == "max" else -1)
            if self.best is None or score > self.best:
                self.best, self.best_metrics = score, metrics
                _save(self.output / "best.safetensors", self.weights())
                self._export()
            self._draw_samples()
        self.train_mode(True)
        return metrics

    def _export(self) -> None:
        """Write the best weights as the hub reads them, if it is time; modules hold them."""
        every = self.config.export_seconds
        if every and self.seconds - self.exported >= every:
            self.task.export(self.output / "export", self.best_metrics)
            self.exported = self.seconds

    def train_mode(self, training: bool) -> None:
        """Let all modules train, or evaluate."""
        for module in self.task.modules.values():
            module.train(training)

    def _draw_samples(self) -> None:
        sheet = self.task.samples()
        if sheet is None:
            return
        from PIL import Image

        folder = self.output / "samples"
        folder.mkdir(exist_ok=True)
        Image.fromarray(sheet).save(folder / f"{self.step:07d}.png")
        self.sheet = sheet

    def save(self) -> None:
        """Write a checkpoint to resume from; no pickles: tensors as safetensors, the rest as JSON."""
        tensors = self.weights() | {f"ema.{k}": v.cpu() for k, v in enumerate(self.average.values)}
        for index, optimizer in enumerate(self.optimizers):
            for number, state in optimizer.state_dict()["state"].items():
                tensors |= {
                    f"optimizer.{index}.{number}.{k}": torch.as_tensor(v).cpu() for k, v in state.items()
                }
        tensors["random"] = torch.get_rng_state()
        if self.accelerator.device.type == "cuda":
            tensors["random_gpu"] = torch.cuda.get_rng_state()
        _save(self.output / "last.safetensors", tensors)
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "best_metrics": self.best_metrics,
        }
        state["generator"] = self.generator.bit_generator.state
        _write(self.output / "last.json", json.dumps(state))

    def resume(self) -> bool:
        """Go on from the last checkpoint, if there is one."""
        if not (self.output / "last.json").is_file():
            return False
        state = json.loads((self.output / "last.json").read_text())
        tensors = load_file(self.output / "last.safetensors")
        self.load({k: v for k, v in tensors.items() if k.split(".")[0] in self.task.modules})
        for number, value in enumerate(self.average.values):
            value.copy_(tensors[f"ema.{number}"])
        for index, optimizer in enumerate(self.optimizers):
            _restore(optimizer, {k: v for k, v in tensors.items() if k.startswith(f"optimizer.{index}.")})
        torch.set_rng_state(tensors["random"])
        if "random_gpu" in tensors and self.accelerator.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random_gpu"])
        self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]
        self.best_metrics = state["best_metrics"]
        self.generator.bit_generator.state = state["generator"]
        logger.info("resumed at step %d, %.1f minutes", self.step, self.seconds / 60)
        return True


def _numbers(losses: dict[str, Tensor]) -> dict[str, float]:
    """Values of losses, all in one transfer: a GPU is waited for once."""
    device = losses["loss"].device
    values = torch.stack([value.detach().float().to(device) for value in losses.values()]).tolist()
    return dict(zip(losses, values, strict=True))


def _compile(modules: Iterable[nn.Module]) -> None:
    """Compile modules in place; where that fails they run as they are written."""
    import torch._dynamo

    torch._dynamo.config.suppress_errors = True
    for module in modules:
        module.compile()


def _as_written(compiled: bool) -> AbstractContextManager[Any]:
    """Nothing compiled: to compile once more for a few held-out batches takes longer than they do."""
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def _in_fast_layout(module: nn.Module, device: torch.device) -> nn.Module:
    """The module, with its weights channels-last on a GPU, where convolutions are then faster."""
    if device.type == "cuda":
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    return module


def _restore(optimizer: "AcceleratedOptimizer", tensors: dict[str, Tensor]) -> None:
    states: dict[int, dict[str, Tensor]] = defaultdict(dict)
    for key, value in tensors.items():
        _, _, number, name = key.split(".")
        states[int(number)][name] = value
    current = optimizer.state_dict()
    optimizer.load_state_dict({"state": dict(states), "param_groups": current["param_groups"]})


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    partial = path.with_suffix(".partial")
    save_file({k: v.contiguous() for k, v in tensors.items()}, partial)
    os.replace(partial, path)


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    os.replace(partial, path)


def fit(task: Task, config: TrainerConfig, output: Path, resume: bool = True) -> dict[str, float]:
    """Train ``task`` within its budget, resuming from ``output`` if it holds a checkpoint.

    Returns:
        Metrics of the best weights, which end in ``output``/export.
    """
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    state, log = TrainingState(task, config, output), Log(output)
    if resume:
        state.resume()
    state.train_mode(True)
    try:
        _loop(state, log)
    except KeyboardInterrupt:
        state.save()
        logger.warning("interrupted at step %d; run again to go on", state.step)
        raise
    metrics = state.validate()
    log.flush(state.step, state.seconds, metrics)
    if config.checkpoint_seconds:
        state.save()
    state.load(load_file(output / "best.safetensors"))
    state.train_mode(False)
    with _as_written(config.compile):
        task.export(output / "export", state.best_metrics)
    return state.best_metrics


def _loop(state: TrainingState, log: Log) -> None:
    config, start = state.config, time.monotonic() - state.seconds
    checked = saved = state.seconds
    for batch in state.task.batches(state.generator):
        state.seconds = time.monotonic() - start
        if state.fraction() >= 1.0:
            return
        log.add(state.train_on(batch))
        if state.step == 1:  # however long it took to compile: a first validation can wait
            checked = saved = time.monotonic() - start
        if state.step % config.log_steps == 0:
            log.flush(state.step, state.seconds)
        if state.seconds - checked > config.validate_seconds:
            log.flush(state.step, state.seconds, state.validate())
            if state.sheet is not None:
                log.picture(state.sheet, state.step)
            checked = state.seconds
        if config.checkpoint_seconds and state.seconds - saved > config.checkpoint_seconds:
            state.save()
            saved = state.seconds


def overfit_one_batch(task: Task, config: TrainerConfig, steps: int = 50) -> tuple[float, float]:
    """Train on one batch over and over: the loss must fall, or model and loss do not fit together.

    What a step draws at random is the same in every step, as the batch is: no chance decides.

    Args:
        task: what is trained.
        config: how.
        steps: at least 10.

    Returns:
        The means of the first five and of the last five losses of the first optimizer.
    """
    import tempfile

    if steps < 10:
        raise ValueError(f"{steps} steps are too few to tell the first five from the last five")
    losses = []
    with tempfile.TemporaryDirectory() as folder:
        state = TrainingState(task, config, Path(folder))
        state.train_mode(True)
        batch = next(iter(task.batches(state.generator)))
        for _ in range(steps):
            torch.manual_seed(config.seed)
            losses.append(state.train_on(batch)["loss"])
    return float(np.mean(losses[:5])), float(np.mean(losses[-5:]))
