"""Trains the sync experts: windows of five frames against speech, InfoNCE over clips and over time."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from talkface.data.prepare import Manifest
from talkface.face.model import FaceModel
from talkface.systems.g4g.data import TalkingClip, read_talking, speaker_weights
from talkface.systems.g4g.experts import MOUTH_PIXELS, WINDOW, SyncExpert, SyncExpertConfig
from talkface.training import Task

logger = logging.getLogger(__name__)

REACH = 15  # frames to either side among which the right one is to be found


@dataclass(frozen=True, kw_only=True)
class ExpertTrainConfig:
    """Settings of an expert's training.

    The aids keep a run from being stuck where every pair looks alike (a loss of ln 2 elsewhere): both sides
    must also tell the mouth's coefficients, which they learn at once, and the contrast then has something to
    compare.
    """

    model: SyncExpertConfig = field(default_factory=SyncExpertConfig)
    half: str = "a"
    clips: int = 12  # per batch
    stretch: int = 48  # frames of each
    every: int = 3  # frames from window to window
    coefficients: float = 0.5
    feature_noise: float = 0.15
    speaker_power: float = 0.6
    max_clips: int = 0  # 0: all


class ExpertTask(Task):
    """Contrast of mouths and speech; windows of the same clip three or more frames apart are negatives."""

    Config = ExpertTrainConfig
    metric, mode = "val_accuracy", "max"

    def __init__(self, config: ExpertTrainConfig, data: Path, seed: int = 0, device: str = "cpu") -> None:
        self.config, self.device = config, torch.device(device)
        face = FaceModel.from_pretrained()
        length = config.stretch + 2
        args: dict[str, Any] = {
            "half": config.half,
            "variants": 2,
            "shortest": length,
            "limit": config.max_clips,
            "seed": seed,
        }
        self.clips = read_talking(data, "train", face, **args)
        self.mouths = [clip.mouths(MOUTH_PIXELS) for clip in self.clips]
        held_out = Manifest.load(data).choosing
        self.held_out = read_talking(data, held_out, face, shortest=2 * REACH + 25, limit=config.max_clips)
        self.weights = speaker_weights(self.clips, config.speaker_power)
        self.expert = SyncExpert(config.model).to(self.device)
        self.modules = {"expert": self.expert}

    def batches(self, generator: np.random.Generator) -> Iterator[dict[str, Tensor]]:
        """Endless batches of stretches: mouths (B, L, H, W, 3), content (B, 2L, C), level, beta (B, L, M)."""
        while True:
            picks = generator.choice(len(self.clips), self.config.clips, p=self.weights)
            rows = [self._stretch(int(index), generator) for index in picks]
            names = ("mouths", "content", "level", "beta", "clip", "start")
            arrays = [np.stack([row[k] for row in rows]) for k in range(len(names))]
            yield {n: torch.from_numpy(a).to(self.device) for n, a in zip(names, arrays, strict=True)}

    def _stretch(self, index: int, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
        clip, length = self.clips[index], self.config.stretch
        start = int(generator.integers(0, len(clip) - length + 1))
        part, double = slice(start, start + length), slice(2 * start, 2 * (start + length))
        variant = int(generator.integers(len(clip.content)))
        return (
            _Look.draw(generator)(self.mouths[index][part]),
            clip.content[variant][double].astype(np.float32),
            clip.level[variant][double].astype(np.float32),
            clip.beta_mouth[part].astype(np.float32),
            np.array(index),
            np.array(start),
        )

    def training_step(self, batch: dict[str, Tensor], optimizer_index: int, step: int) -> dict[str, Tensor]:
        """Symmetric cross-entropy and the coefficients of both sides."""
        every = self.config.every
        content = batch["content"] + self.config.feature_noise * torch.randn_like(batch["content"])
        video = self.expert.embed_video(_pixels(batch["mouths"]), every).flatten(0, 1)
        audio = self.expert.embed_audio(content, batch["level"])[:, ::every].flatten(0, 1)
        beta = batch["beta"].unfold(1, WINDOW, every).transpose(2, 3).flatten(2).flatten(0, 1)
        count = len(video) // len(batch["clip"])
        frame = batch["start"][:, None] + every * torch.arange(count, device=self.device)
        place = (batch["clip"][:, None] * 100_000 + frame).flatten()
        near = (place[:, None] - place[None]).abs() < 3
        near.fill_diagonal_(False)
        logits = self.expert.logits(video, audio).masked_fill(near, -1e4)
        target = torch.arange(len(logits), device=self.device)
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        mouth = F.smooth_l1_loss(self.expert.mouth_of_video(video), beta)
        mouth = mouth + F.smooth_l1_loss(self.expert.mouth_of_speech(audio), beta)
        with torch.no_grad():
            right = (logits.argmax(1) == target).float().mean()
        loss = contrast + self.config.coefficients * mouth
        return {"loss": loss, "contrast": contrast.detach(), "mouth": mouth.detach(), "right": right}

    def validate(self) -> dict[str, float]:
        """Share of held-out windows, and of clips, whose offset is found within a frame among +-15."""
        scores: dict[str, list[float]] = {}
        for clip in self.held_out:
            group = "wild" if clip.item.corpus != "GRID" else "grid"
            windows, whole = offset_accuracy(*self._embed(clip))
            scores.setdefault(f"val_accuracy_{group}", []).append(windows)
            scores.setdefault(f"val_clip_accuracy_{group}", []).append(whole)
        metrics = {name: float(np.mean(values)) for name, values in scores.items()}
        groups = [v for n, v in metrics.items() if n.startswith("val_accuracy")]
        return {"val_accuracy": float(np.mean(groups))} | metrics

    @torch.no_grad()
    def _embed(self, clip: TalkingClip) -> tuple[np.ndarray, np.ndarray]:
        mouths = torch.from_numpy(clip.mouths(MOUTH_PIXELS)).to(self.device)
        parts = []
        for start in range(0, len(mouths) - WINDOW + 1, 32):  # pieces: a window is five pictures
            piece = _pixels(mouths[None, start : start + 32 + WINDOW - 1])
            parts.append(self.expert.embed_video(piece)[0])
        content = torch.from_numpy(clip.content[0]).float()[None].to(self.device)
        level = torch.from_numpy(clip.level[0]).float()[None].to(self.device)
        audio = self.expert.embed_audio(content, level)[0]
        return torch.cat(parts).cpu().numpy(), audio.cpu().numpy()

    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Write the expert as the hub reads it."""
        from talkface.hub import save_pretrained

        config = self.expert.config_dict() | {"half": self.config.half, "metrics": metrics}
        save_pretrained(directory, config, self.expert.state_dict(), card=None)


def offset_accuracy(video: np.ndarray, audio: np.ndarray, reach: int = REACH) -> tuple[float, float]:
    """Is the right offset found among +-``reach`` frames?

    Args:
        video: (N, C) embeddings of windows of mouths.
        audio: (N, C) of the sound at the same times.
        reach: frames to either side.

    Returns:
        The share of single windows whose nearest sound is within a frame of the right one, and 1.0 or 0.0 for
        the whole clip by the mean distance at each offset.
    """
    inner = np.arange(reach, len(video) - reach)
    apart = np.stack(
        [np.linalg.norm(video[inner] - audio[inner + k], axis=1) for k in range(-reach, reach + 1)], 1
    )
    windows = np.abs(apart.argmin(1) - reach) <= 1
    return float(windows.mean()), float(abs(int(apart.mean(0).argmin()) - reach) <= 1)


def _pixels(mouths: Tensor) -> Tensor:
    """(B, T, H, W, 3) uint8 to (B, T, 3, H, W) in [0, 1]."""
    return mouths.movedim(-1, 2).float() / 255


@dataclass(frozen=True)
class _Look:
    """How the frames of a clip are made to look: mirror, place, size, colour, alike on all of them."""

    mirror: bool
    matrix: np.ndarray
    gain: np.ndarray
    lift: float
    noise: float
    seed: int

    @classmethod
    def draw(cls, generator: np.random.Generator) -> "_Look":
        scale, (x, y) = generator.uniform(0.9, 1.1), generator.uniform(-5, 5, 2)
        turn = generator.normal(0, 0.05)
        linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        middle = np.full(2, MOUTH_PIXELS / 2)
        matrix = np.concatenate([linear, (middle - linear @ middle + (x, y))[:, None]], 1)
        gain = generator.uniform(0.7, 1.3) * generator.uniform(0.85, 1.15, 3)
        noise = generator.uniform(0, 6) if generator.random() < 0.3 else 0.0
        return cls(
            bool(generator.random() < 0.5),
            matrix,
            gain.astype(np.float32),
            float(generator.uniform(-20, 20)),
            noise,
            int(generator.integers(2**31)),
        )

    def __call__(self, mouths: np.ndarray) -> np.ndarray:
        import cv2

        out = np.empty_like(mouths)
        size = MOUTH_PIXELS, MOUTH_PIXELS
        rng = np.random.default_rng(self.seed)
        for k, mouth in enumerate(mouths):
            moved = cv2.warpAffine(mouth, self.matrix, size, borderMode=cv2.BORDER_REPLICATE)
            look = moved * self.gain + self.lift
            if self.noise:
                look = look + rng.normal(0, self.noise, look.shape)
            out[k] = np.clip(look, 0, 255)
        return out[:, :, ::-1] if self.mirror else out
