"""Trains TH-PAD's motion model: E_a, the lip path, the heads and the motion decoder."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from talkface.face.model import FaceModel
from talkface.hub import save_pretrained
from talkface.nn.marks import state_mark, weights_mark
from talkface.performance.config import MotionConfig
from talkface.performance.model import MotionModel
from talkface.systems.thpad.losses import LipLoss, contrastive_sync, orthogonality
from talkface.training import Task
from talkface.training.datasets.clips import (
    ClipReader,
    Example,
    read_variants,
    speaker_weights,
    speakers_and_lengths,
)


@dataclass(frozen=True, kw_only=True)
class MotionTrainConfig:
    """Settings of the motion model's training."""

    model: MotionConfig = field(default_factory=MotionConfig)
    face_model: str = "face"
    features: str = "student"
    encoder: str = "speech"
    variants: int = 5  # speeds and augmentations of each clip, made once
    window: int = 72  # frames
    batch: int = 24  # windows
    correlation: float = 0.5
    motion: float = 0.2
    contrast: float = 0.05
    orthogonal: float = 0.05
    feature_noise: float = 0.1
    speaker_power: float = 0.5  # 0: clips are drawn by their length, 1: speakers alike
    groups: dict[str, str] = field(default_factory=dict)  # by which validation is summed up, by patterns


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

    Where the features are not our encoder's, their name stands in place of its mark.
    """
    encoder = reader.stream.encoder if reader.stream is not None else None
    speech = reader.features if encoder is None else weights_mark(encoder)
    return {"face": state_mark(reader.model.state()), "speech": speech}


class MotionTask(Task[MotionTrainConfig]):
    """Lips from audio, non-lip codes from video, contrast of lips and audio, orthogonality of the rest."""

    metric, mode = "val_aperture_r", "max"

    def prepare(self, data: Path, seed: int) -> None:
        """Read the clips and build the motion model."""
        config = self.config
        self.face = FaceModel.from_pretrained(config.face_model)
        reader = ClipReader(self.manifest, self.face, config.features, config.encoder)
        generator = np.random.default_rng(seed)
        self.built_on = marks_of(reader)
        self.examples = read_variants(reader, config.variants, generator, config.window)
        self.held_out = [reader.read(item) for item in reader.items(self.manifest.choosing)]
        self.weights = speaker_weights(*speakers_and_lengths(self.examples), config.speaker_power)
        self.model = MotionModel(config.model).to(self.device)
        moved = np.concatenate([e.motion for e in self.examples])
        self.model.motion_scale.copy_(torch.from_numpy(moved.std(0) + 1e-4))
        self.modules = {"motion": self.model}
        self.lip_loss = LipLoss(self.face).to(self.device)

    def draw(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        """Windows: content (B, 2T, C), level (B, 2T), beta_mouth (B, T, M), motion (B, T, 26), float32."""
        chosen = generator.choice(len(self.examples), self.config.batch, p=self.weights)
        rows = [self._window(self.examples[index], generator) for index in chosen]
        names = ("content", "level", "beta_mouth", "motion")
        columns = (np.stack(column).astype(np.float32) for column in zip(*rows, strict=True))
        return dict(zip(names, columns, strict=True))

    def _window(self, example: Example, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
        """Content, level, beta_mouth and motion of a window of an example."""
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
        widths: dict[str, list[float]] = {}
        ratios: dict[str, list[float]] = {}
        readout = self.lip_loss.readout.cpu().numpy()
        for example in self.held_out:
            predicted, real = predict(self.model, example) @ readout, example.beta_mouth @ readout
            if real[:, 0].std() < 0.01:
                continue
            group = example.item.look_up(self.config.groups, example.item.group)
            scores.setdefault(group, []).append(best_lag_correlation(predicted[:, 0], real[:, 0])[0])
            widths.setdefault(group, []).append(best_lag_correlation(predicted[:, 1], real[:, 1])[0])
            ratios.setdefault(group, []).append(predicted[:, 0].std() / real[:, 0].std())
        metrics = {f"val_aperture_r_{group}": float(np.mean(values)) for group, values in scores.items()}
        metrics["val_aperture_r"] = float(np.mean(list(metrics.values())))
        metrics |= {
            f"val_aperture_r_{group}_width": float(np.mean(values)) for group, values in widths.items()
        }
        metrics |= {
            f"val_opening_ratio_{group}": float(np.median(values)) for group, values in ratios.items()
        }
        return metrics | {"val_motion_error": self._motion_error()}

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
