"""Trains TH-PAD's motion model (E_a, lips, heads, decoder) and then, with it frozen, the diffusion prior."""

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from talkface.data.prepare import Item, Manifest
from talkface.data.side_by_side import side_by_side
from talkface.errors import InvalidOption
from talkface.face.model import FaceModel
from talkface.hub import save_pretrained
from talkface.nn.marks import check_built_on, state_mark, weights_mark
from talkface.performance.config import FRAME_RATE, MotionConfig, PriorConfig
from talkface.performance.marks import codes_mark
from talkface.performance.model import DiffusionPrior, MotionModel
from talkface.systems.thpad.losses import LipLoss, contrastive_sync, orthogonality, velocity
from talkface.training import Task
from talkface.training.datasets.clips import ClipReader, Example
from talkface.training.draws import to_device

logger = logging.getLogger(__name__)

SPEEDS = (1.0, 0.88, 1.13, 0.94, 1.06)


@dataclass(frozen=True, kw_only=True)
class MotionTrainConfig:
    """Settings of the motion model's training."""

    model: MotionConfig = field(default_factory=MotionConfig)
    face_model: str = "face"
    features: str = "student"
    encoder: str = "speech"
    variants: int = 5  # speeds and augmentations of each clip, made once
    window: int = 72
    batch: int = 24
    correlation: float = 0.5
    motion: float = 0.2
    contrast: float = 0.05
    orthogonal: float = 0.05
    feature_noise: float = 0.1
    speaker_power: float = 0.5  # 0: clips count alike, 1: speakers do


def _speaker_weights(examples: list[Example], power: float) -> np.ndarray:
    counts: dict[str, int] = {}
    for example in examples:
        counts[example.item.speaker] = counts.get(example.item.speaker, 0) + len(example.motion)
    weight = np.array([len(e.motion) / counts[e.item.speaker] ** power for e in examples])
    return weight / weight.sum()


def best_lag_correlation(predicted: np.ndarray, real: np.ndarray, lags: int = 1) -> tuple[float, int]:
    """Highest Pearson correlation of two signals (T,) over lags of up to ``lags`` frames, and that lag."""
    best = (-1.0, 0)
    for lag in range(-lags, lags + 1):
        a = predicted[max(0, lag) : len(predicted) + min(0, lag)]
        b = real[max(0, -lag) : len(real) + min(0, -lag)]
        if len(a) > 5 and a.std() > 1e-6 and b.std() > 1e-6:
            best = max(best, (float(np.corrcoef(a, b)[0, 1]), lag))
    return best


def marks_of(reader: ClipReader) -> dict[str, str]:
    """The marks of what a motion model is trained over: the face model and the content encoder.

    Features of no encoder of ours have their name in place of a mark.
    """
    encoder = reader.stream.encoder if reader.stream is not None else None
    speech = reader.features if encoder is None else weights_mark(encoder)
    return {"face": state_mark(reader.model.state()), "speech": speech}


class MotionTask(Task):
    """Lips from audio, non-lip codes from video, contrast of lips and audio, orthogonality of the rest."""

    Config = MotionTrainConfig
    metric, mode = "val_aperture_r", "max"

    def __init__(self, config: MotionTrainConfig, data: Path, seed: int = 0, device: str = "cpu") -> None:
        self.config, self.device = config, torch.device(device)
        self.face = FaceModel.from_pretrained(config.face_model)
        reader = ClipReader(Manifest.load(data), self.face, config.features, config.encoder)
        generator = np.random.default_rng(seed)
        self.built_on = marks_of(reader)
        self.examples = _variants(reader, config.variants, generator, config.window)
        self.held_out = [reader.read(item) for item in reader.items(reader.manifest.choosing)]
        self.weights = _speaker_weights(self.examples, config.speaker_power)
        self.model = MotionModel(config.model).to(self.device)
        moved = np.concatenate([e.motion for e in self.examples])
        self.model.motion_scale.copy_(torch.from_numpy(moved.std(0) + 1e-4))
        self.modules = {"motion": self.model}
        self.lip_loss = LipLoss(self.face).to(self.device)

    def batches(self, generator: np.random.Generator) -> Iterator[dict[str, Tensor]]:
        """Endless windows: content (B, 2T, C), level (B, 2T), beta_mouth (B, T, M), motion (B, T, 26)."""
        while True:
            rows = [self._window(self.examples[i], generator) for i in self._choose(generator)]
            arrays = [np.stack([row[k] for row in rows]) for k in range(4)]
            names = ("content", "level", "beta_mouth", "motion")
            yield {n: torch.from_numpy(a).float().to(self.device) for n, a in zip(names, arrays, strict=True)}

    def _choose(self, generator: np.random.Generator) -> np.ndarray:
        return generator.choice(len(self.examples), self.config.batch, p=self.weights)

    def _window(self, example: Example, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
        start = int(generator.integers(0, len(example.motion) - self.config.window + 1))
        stop = start + self.config.window
        double = slice(2 * start, 2 * stop)
        return (
            example.content[double],
            example.level[double],
            example.beta_mouth[start:stop],
            example.motion[start:stop],
        )

    def training_step(self, batch: dict[str, Tensor], optimizer_index: int, step: int) -> dict[str, Tensor]:
        """Sum of the losses; every member of the lip path has its own."""
        config, model = self.config, self.model
        content = batch["content"] + config.feature_noise * torch.randn_like(batch["content"])
        f_a = model.encode_audio(content, batch["level"])
        out: dict[str, Tensor] = {"lips": torch.zeros(()), "correlation": torch.zeros(())}
        for lips in model.lips(f_a):
            reconstruction, correlation = self.lip_loss(lips, batch["beta_mouth"])
            out["lips"], out["correlation"] = out["lips"] + reconstruction, out["correlation"] + correlation
        motion = model.normalise(batch["motion"])
        f_cl, f_ol = model.encode_visual(batch["beta_mouth"], motion)
        out["contrast"] = self._contrast(f_cl, f_a[0])
        out["orthogonal"] = orthogonality(f_ol.flatten(0, 1), f_a[0].flatten(0, 1).detach())
        code = model.mlp_nl(f_ol)
        out["motion"] = F.smooth_l1_loss(
            model.non_lip_decoder(code + 0.02 * torch.randn_like(code)), motion, beta=0.5
        )
        out["code"] = (code.std((0, 1)) - 1).square().mean() + code.mean((0, 1)).square().mean()
        loss = out["lips"] + config.correlation * out["correlation"] + config.contrast * out["contrast"]
        loss = loss + config.orthogonal * out["orthogonal"] + out["motion"] + 0.01 * out["code"]
        return {"loss": loss} | {name: value.detach() for name, value in out.items()}

    def _contrast(self, f_cl: Tensor, f_a: Tensor) -> Tensor:
        """L_cl over six frames of every clip, at least 0.4 s apart."""
        picks = torch.arange(5, f_cl.shape[1] - 5, 11)
        temperature = self.model.temperature.exp().clamp(max=100)
        return contrastive_sync(f_cl[:, picks].flatten(0, 1), f_a[:, picks].flatten(0, 1), temperature)

    def validate(self) -> dict[str, float]:
        """Correlation of opening with the real one (best lag within one frame), by group of speakers."""
        scores: dict[str, list[float]] = {}
        ratios, readout = [], self.lip_loss.readout.cpu().numpy()
        for example in self.held_out:
            predicted, real = predict(self.model, example) @ readout, example.beta_mouth @ readout
            if real[:, 0].std() < 0.01:
                continue
            group = _group(example.item)
            scores.setdefault(group, []).append(best_lag_correlation(predicted[:, 0], real[:, 0])[0])
            scores.setdefault(group + "_width", []).append(
                best_lag_correlation(predicted[:, 1], real[:, 1])[0]
            )
            if group == "wild":
                ratios.append(predicted[:, 0].std() / real[:, 0].std())
        metrics = {f"val_aperture_r_{group}": float(np.mean(values)) for group, values in scores.items()}
        metrics["val_aperture_r"] = float(
            np.mean([np.mean(v) for g, v in scores.items() if not g.endswith("_width")])
        )
        return metrics | {
            "val_opening_ratio_wild": float(np.median(ratios)),
            "val_motion_error": self._motion_error(),
        }

    @torch.no_grad()
    def _motion_error(self) -> float:
        """Mean absolute error of decode(encode(motion)) in standard deviations."""
        errors = []
        for example in self.held_out:
            motion = self.model.normalise(torch.from_numpy(example.motion)[None].to(self.device))
            _, f_ol = self.model.encode_visual(
                torch.from_numpy(example.beta_mouth)[None].to(self.device), motion
            )
            errors.append(float((self.model.non_lip_decoder(self.model.mlp_nl(f_ol)) - motion).abs().mean()))
        return float(np.mean(errors))

    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Normalise the codes and write the motion model as the hub reads it."""
        self.measure_codes()
        config = {"class": "MotionModel", "model": asdict(self.config.model), "metrics": metrics}
        save_pretrained(directory, config | {"built_on": self.built_on}, self.model.state_dict(), card=None)

    @torch.no_grad()
    def measure_codes(self) -> None:
        """Set the mean and scale of f_nl over the training clips."""
        codes = []
        for example in self.examples[:: self.config.variants]:
            motion = self.model.normalise(torch.from_numpy(example.motion)[None].to(self.device))
            _, f_ol = self.model.encode_visual(
                torch.from_numpy(example.beta_mouth)[None].to(self.device), motion
            )
            codes.append(self.model.mlp_nl(f_ol)[0])
        stacked = torch.cat(codes)
        self.model.code_mean.copy_(stacked.mean(0))
        self.model.code_scale.copy_(stacked.std(0) + 1e-4)


@torch.no_grad()
def predict(model: MotionModel, example: Example) -> np.ndarray:
    """beta_mouth (T, M) for a whole clip."""
    device = model.lip_gain.device
    content = torch.from_numpy(example.content).float()[None].to(device)
    lips, _ = model.speak(content, torch.from_numpy(example.level)[None].to(device))
    return lips[0].cpu().numpy()


def _group(item: Item) -> str:
    if item.corpus != "GRID":
        return "wild"
    return "grid_s1" if item.speaker == "s1" else "grid_other"


def _variants(reader: ClipReader, count: int, generator: np.random.Generator, shortest: int) -> list[Example]:
    """Every training clip ``count`` times: as it is, then at other speeds with augmented sound."""
    items = reader.items("train")

    def heard(row: tuple[Item, np.random.Generator]) -> list[Example]:
        return [
            reader.read(row[0], SPEEDS[variant % len(SPEEDS)], row[1] if variant else None)
            for variant in range(count)
        ]

    examples = []
    for variants in side_by_side(heard, list(zip(items, generator.spawn(len(items)), strict=True))):
        for variant, example in enumerate(variants):
            if len(example.motion) < shortest and variant == 0 and len(example.motion) >= 25:
                example = _repeat(example, shortest)
            if len(example.motion) >= shortest and example.found.mean() > 0.9:
                examples.append(example)
    logger.info(
        "%d examples, %.1f minutes", len(examples), sum(len(e.motion) for e in examples) / FRAME_RATE / 60
    )
    return examples


def _repeat(example: Example, length: int) -> Example:
    """A short clip played forth and back in time order of its frames until it fills a window."""
    times = -(-length // len(example.motion))
    return Example(
        content=np.concatenate([example.content] * times),
        level=np.concatenate([example.level] * times),
        beta_mouth=np.concatenate([example.beta_mouth] * times),
        motion=np.concatenate([example.motion] * times),
        found=np.concatenate([example.found] * times),
        times=np.concatenate([example.times] * times),
        item=example.item,
    )


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
    """

    model: PriorConfig = field(default_factory=PriorConfig)
    motion: MotionTrainConfig = MotionTrainConfig()
    motion_model: str = "thpad-motion"
    batch: int = 24
    velocity: float = 3.0
    condition_dropout: float = 0.1


class PriorTask(Task):
    """P_a2nl: x0 prediction with velocity loss, editing masks and dropped conditions (paper, Sec. 3.4)."""

    Config = PriorTrainConfig
    metric, mode = "val_loss", "min"

    def __init__(self, config: PriorTrainConfig, data: Path, seed: int = 0, device: str = "cpu") -> None:
        self.config, self.device = config, torch.device(device)
        self.motion = MotionModel.from_pretrained(config.motion_model).to(self.device)
        face = FaceModel.from_pretrained(config.motion.face_model)
        reader = ClipReader(Manifest.load(data), face, config.motion.features, config.motion.encoder)
        check_built_on(config.motion_model, marks_of(reader))
        examples = _variants(reader, config.motion.variants, np.random.default_rng(seed), 50)
        self.weights = _speaker_weights(examples, 0.6) * np.array(
            [0.4 if e.item.corpus == "GRID" else 1.0 for e in examples]
        )
        self.weights /= self.weights.sum()
        self.examples = [self._encode(e) for e in examples]
        self.lengths = np.array([len(codes) for codes, _ in self.examples])
        if not len(self.lengths):
            raise InvalidOption(f"{data} holds no talking clip of two seconds that trains the prior")
        self.held_out = [
            self._encode(e)
            for e in map(reader.read, reader.items(reader.manifest.choosing))
            if len(e.motion) >= 50
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
        frames = int(generator.integers(min(50, longest), longest + 1))
        weight = np.where(self.lengths >= frames, self.weights, 0.0)
        rows = generator.choice(len(self.examples), self.config.batch, p=weight / weight.sum())
        return self._collate([self.examples[i] for i in rows], frames, generator)

    def _collate(
        self, rows: list[tuple[Tensor, Tensor]], frames: int, generator: np.random.Generator
    ) -> dict[str, Tensor]:
        starts = [int(generator.integers(0, len(codes) - frames + 1)) for codes, _ in rows]
        codes = torch.stack([r[0][s : s + frames] for r, s in zip(rows, starts, strict=True)])
        f_a = torch.stack([r[1][s : s + frames] for r, s in zip(rows, starts, strict=True)])
        known = torch.from_numpy(np.stack([editing_mask(frames, generator) for _ in rows]))
        step = torch.from_numpy(generator.integers(0, self.config.model.diffusion_steps, len(rows)))
        drop = torch.from_numpy(generator.random(len(rows)) < self.config.condition_dropout)
        return {"codes": codes, "f_a": f_a, "known": known, "step": step, "drop": drop}

    def _loss(self, batch: dict[str, Tensor], noise: Tensor) -> dict[str, Tensor]:
        from talkface.performance.sampler import signal_level

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


def editing_mask(frames: int, generator: np.random.Generator) -> np.ndarray:
    """Which frames are given clean, (frames,) float32: none, a prefix, prefix and suffix, or random spans."""
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
