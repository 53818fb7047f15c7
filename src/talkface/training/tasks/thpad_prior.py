"""Trains TH-PAD's diffusion prior, with the motion model frozen."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from talkface.errors import InvalidOption
from talkface.face.model import FaceModel
from talkface.hub import save_pretrained
from talkface.nn.marks import check_built_on
from talkface.performance.config import PriorConfig
from talkface.performance.marks import codes_mark
from talkface.performance.model import DiffusionPrior, MotionModel
from talkface.performance.sampler import signal_level
from talkface.systems.thpad.losses import velocity
from talkface.training import Task
from talkface.training.batches import to_device
from talkface.training.datasets.clips import (
    ClipReader,
    Example,
    read_variants,
    speaker_weights,
    speakers_and_lengths,
)
from talkface.training.tasks.thpad_motion import MotionTrainConfig, marks_of

_SHORTEST = 50  # frames of a clip that is of use
_SPEAKER_POWER = 0.6  # between 0, clips count by their length, and 1, speakers count alike


@dataclass(frozen=True, kw_only=True)
class PriorTrainConfig:
    """Settings of the prior's training.

    Attributes:
        model: sizes of the prior.
        motion: how the motion model was trained: its face model, content encoder and the like.
        motion_model: name or directory of the motion model whose codes are learnt.
        batch: windows of a batch.
        velocity: lambda_v, weight of the velocity loss.
        condition_dropout: share of windows whose audio is hidden, for classifier-free guidance.
        shares: how often clips that fit patterns (:mod:`talkface.data.groups`) are drawn, relative to others.
    """

    model: PriorConfig = field(default_factory=PriorConfig)
    motion: MotionTrainConfig = field(default_factory=MotionTrainConfig)
    motion_model: str = "thpad-motion"
    batch: int = 24
    velocity: float = 3.0
    condition_dropout: float = 0.1
    shares: dict[str, float] = field(default_factory=dict)


def editing_mask(frames: int, generator: np.random.Generator) -> np.ndarray:
    """Which frames are given clean, (frames,) float32: none, a prefix, also a suffix, or random spans."""
    known = np.zeros(frames, np.float32)
    kind = generator.random()
    if kind < 0.3:
        return known
    known[: int(generator.integers(5, 26))] = 1.0
    if 0.7 < kind < 0.85:
        known[-int(generator.integers(5, 26)) :] = 1.0
    elif kind >= 0.85:
        for _ in range(int(generator.integers(1, 4))):
            start = int(generator.integers(0, frames))
            known[start : start + int(generator.integers(3, 20))] = 1.0
    return known


class PriorTask(Task[PriorTrainConfig]):
    """P_a2nl: x0 prediction with velocity loss, editing masks and dropped conditions (paper, Sec. 3.4)."""

    metric, mode = "val_loss", "min"

    def prepare(self, data: Path, seed: int) -> None:
        """Encode the clips by the frozen motion model and build the prior."""
        config = self.config
        self.motion = MotionModel.from_pretrained(config.motion_model).to(self.device)
        face = FaceModel.from_pretrained(config.motion.face_model)
        reader = ClipReader(self.manifest, face, config.motion.features, config.motion.encoder)
        check_built_on(config.motion_model, marks_of(reader))
        examples = read_variants(reader, config.motion.variants, np.random.default_rng(seed), _SHORTEST)
        self.weights = speaker_weights(*speakers_and_lengths(examples), _SPEAKER_POWER) * np.array(
            [e.item.look_up(config.shares, 1.0) for e in examples]
        )
        self.weights /= self.weights.sum()
        self.examples = [self._encode(e) for e in examples]
        self.lengths = np.array([len(codes) for codes, _ in self.examples])
        if not len(self.lengths):
            raise InvalidOption(f"{data} holds no talking clip of two seconds that trains the prior")
        self.held_out = [
            self._encode(e)
            for e in map(reader.read, reader.items(self.manifest.choosing))
            if len(e.motion) >= _SHORTEST
        ]
        self.prior = DiffusionPrior(config.model).to(self.device)
        self.modules = {"prior": self.prior}

    @torch.no_grad()
    def _encode(self, example: Example) -> tuple[Tensor, Tensor]:
        """f_nl^v (T, non_lip) and f^a (T, audio) of a clip."""
        given = example.motion, example.beta_mouth, example.content, example.level
        moving, beta, content, level = (torch.from_numpy(a).float()[None].to(self.device) for a in given)
        _, f_ol = self.motion.encode_visual(beta, self.motion.normalise(moving))
        _, f_a = self.motion.speak(content, level)
        return self.motion.non_lip_code(f_ol)[0].cpu(), f_a[0].cpu()

    def draw(self, generator: np.random.Generator) -> dict[str, Tensor]:
        """Windows of one length: codes (B, T, non_lip), f_a (B, T, audio), known (B, T), step, drop (B,)."""
        longest = min(self.config.model.window, int(self.lengths.max()))
        frames = int(generator.integers(min(_SHORTEST, longest), longest + 1))
        weight = np.where(self.lengths >= frames, self.weights, 0.0)
        rows = generator.choice(len(self.examples), self.config.batch, p=weight / weight.sum())
        return self._collate([self.examples[i] for i in rows], frames, generator)

    def _collate(
        self, rows: list[tuple[Tensor, Tensor]], frames: int, generator: np.random.Generator
    ) -> dict[str, Tensor]:
        """A batch of one window of each clip, with masks, steps and dropped conditions."""
        starts = [int(generator.integers(0, len(codes) - frames + 1)) for codes, _ in rows]
        codes = torch.stack([r[0][s : s + frames] for r, s in zip(rows, starts, strict=True)])
        f_a = torch.stack([r[1][s : s + frames] for r, s in zip(rows, starts, strict=True)])
        known = torch.from_numpy(np.stack([editing_mask(frames, generator) for _ in rows]))
        step = torch.from_numpy(generator.integers(0, self.config.model.diffusion_steps, len(rows)))
        drop = torch.from_numpy(generator.random(len(rows)) < self.config.condition_dropout)
        return {"codes": codes, "f_a": f_a, "known": known, "step": step, "drop": drop}

    def _loss(self, batch: dict[str, Tensor], noise: Tensor) -> dict[str, Tensor]:
        """L_a2nl under given noise (B, T, non_lip)."""
        codes, known = batch["codes"], batch["known"][..., None]
        signal = signal_level(batch["step"], self.config.model.diffusion_steps)[:, None, None]
        noisy = signal.sqrt() * codes + (1 - signal).sqrt() * noise
        x = torch.where(known > 0, codes, noisy)
        predicted = self.prior(x, batch["step"], batch["f_a"], batch["known"], batch["drop"])
        predicted = torch.where(known > 0, codes, predicted)
        simple, moving = F.mse_loss(predicted, codes), velocity(predicted, codes)
        return {
            "loss": simple + self.config.velocity * moving,
            "simple": simple.detach(),
            "velocity": moving.detach(),
        }

    def training_step(self, batch: dict[str, Tensor], optimizer_index: int, step: int) -> dict[str, Tensor]:
        """|x0 - x0_hat|^2 + lambda_v |delta x0 - delta x0_hat|^2."""
        return self._loss(batch, torch.randn_like(batch["codes"]))

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The loss on held-out clips with fixed noise, steps and masks."""
        generator = np.random.default_rng(0)
        losses = []
        for codes, f_a in self.held_out:
            frames = min(len(codes), self.config.model.window)
            for _ in range(2):
                batch = self._collate([(codes, f_a)] * 8, frames, generator)
                noise = generator.standard_normal(batch["codes"].shape).astype(np.float32)
                batch, noise = to_device((batch, noise), self.device)
                losses.append(float(self._loss(batch, noise)["loss"]))
        return {"val_loss": float(np.mean(losses))}

    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Write the prior as the hub reads it."""
        config = {"class": "DiffusionPrior", "model": asdict(self.config.model), "metrics": metrics}
        config["built_on"] = {"motion": codes_mark(self.motion)}
        save_pretrained(directory, config, self.prior.state_dict(), card=None)
