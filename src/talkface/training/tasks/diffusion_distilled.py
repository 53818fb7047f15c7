"""Distils a face LDM into one that draws in a few steps, with the caption's guidance in its velocity."""

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from talkface.diffusion.model import FaceDiffusion
from talkface.diffusion.sampling import (
    TIMESTEP_SHIFT,
    default_guidance,
    euler_steps,
    guided,
    noised,
    schedule,
)
from talkface.options import number_within
from talkface.training.tasks.diffusion_ldm import (
    DiffusionTask,
    DiffusionTrainConfig,
    conditions,
    draw_latents,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DistilledTrainConfig(DiffusionTrainConfig):
    """Settings of the distillation, beside those of the face LDM's training.

    Attributes:
        teacher: name or directory of the frozen teacher, an LDM over the same autoencoder.
        steps: of the student's sampler.
        substeps: of the teacher for each of them.
        guidance: classifier-free guidance of the teacher; None for its own.
        plain: share of a batch that is taught the teacher's velocity at a random time, not a step of the
            schedule, so that the student's velocity is defined everywhere, as adapters need it.
    """

    teacher: str = "face-diffusion"
    steps: int = 4
    substeps: int = 4
    guidance: float | None = None
    plain: float = 0.3


class DistilledTask(DiffusionTask):
    """One step of the student replaces several guided ones of the teacher (Meng et al., 2023).

    Its ``val_loss`` is the squared distance from the teacher's guided velocity at the validation times, not
    from that of the data: guidance changes the distribution.
    """

    Config = DistilledTrainConfig
    metric, mode = "val_distance", "min"
    config: DistilledTrainConfig

    def prepare(self, data: Path, seed: int) -> None:
        """Load the teacher, and what the face LDM is trained with."""
        config = self.config
        number_within("steps", config.steps, 1, 100)
        number_within("substeps", config.substeps, 1, 100)
        number_within("plain", config.plain, 0, 1)
        teacher = FaceDiffusion.from_pretrained(config.teacher)
        model = replace(config.model, steps=config.steps, guided=True)
        self.config = replace(config, model=model)
        super().prepare(data, seed)
        # Not one of ``modules``: it is neither trained nor saved, and stays in evaluation mode.
        self.teacher = teacher.to(self.device).requires_grad_(False)
        self.guidance = default_guidance(teacher) if config.guidance is None else config.guidance
        times = [*schedule(config.steps * config.substeps, shift=TIMESTEP_SHIFT), 0.0]
        self.schedule = torch.tensor(times, dtype=torch.float32, device=self.device)

    # -- losses ------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Tensor], optimizer_index: int, step: int) -> dict[str, Tensor]:
        """Squared distance from the teacher's velocity: at any time, and over steps of the schedule."""
        noise = torch.randn_like(batch["latents"])
        plain = round(self.config.plain * len(noise))
        lessons = (
            (slice(plain), self._one_step(self._times(plain))),
            (slice(plain, None), self._substeps(len(noise) - plain)),
        )
        errors = []
        for part, times in lessons:
            if times.numel():
                some = {name: values[part] for name, values in batch.items()}
                errors.append(self._missed(some, noise[part], times))
        return self._weighted(torch.cat(errors), batch["drawing"])

    @staticmethod
    def _one_step(time: Tensor) -> Tensor:
        """Times (2, B) of one step from times (B,) to 0: its mean velocity is that at its start."""
        return torch.stack([time, torch.zeros_like(time)])

    def _substeps(self, count: int) -> Tensor:
        """Times (substeps + 1, count) of the teacher's substeps within random steps of the student."""
        substeps = self.config.substeps
        first = torch.randint(self.config.steps, (count,), device=self.device) * substeps
        return self.schedule[first + torch.arange(substeps + 1, device=self.device)[:, None]]

    def _error(self, batch: dict[str, Tensor], time: Tensor, noise: Tensor) -> Tensor:
        """Squared distances (B, 4, h, w) from the teacher's velocity at times (B,)."""
        return self._missed(batch, noise, self._one_step(time))

    def _missed(self, batch: dict[str, Tensor], noise: Tensor, times: Tensor) -> Tensor:
        """Squared distances (B, 4, h, w) of the student's velocity from the teacher's mean over ``times``."""
        noisy = noised(batch["latents"], noise, times[0])
        taught = self._taught(batch, noisy, times)
        velocity = self.model(noisy, times[0], *conditions(self.model, batch))
        return F.mse_loss(velocity, taught, reduction="none")

    @torch.no_grad()
    def _taught(self, batch: dict[str, Tensor], noisy: Tensor, times: Tensor) -> Tensor:
        """Mean velocity (B, 4, h, w) of the guided teacher over Euler steps through times (S + 1, B)."""
        velocity = guided(self.teacher, *conditions(self.teacher, batch), self.guidance)
        return (noisy - euler_steps(velocity, noisy, times)) / (times[0] - times[-1])[:, None, None, None]

    # -- validation --------------------------------------------------------------------------------

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Squared distance of the student's samples from the teacher's, for held-out people."""
        made = draw_latents(self.model, self.fixed, self.noise[0], self.config.batch)
        return {"val_distance": float(F.mse_loss(made, self._drawn_by_teacher)), **super().validate()}

    @cached_property
    def _drawn_by_teacher(self) -> Tensor:
        """Latents (N, 4, h, w) that the teacher draws from the same noise in all its steps; drawn once."""
        given = self.teacher, self.fixed, self.noise[0], self.config.batch
        steps, substeps = self.config.steps, self.config.substeps
        drawn, few = (draw_latents(*given, n, self.guidance) for n in (steps * substeps, steps))
        logger.info("the teacher's own distance in %d steps is %.4g", steps, float(F.mse_loss(few, drawn)))
        return drawn
