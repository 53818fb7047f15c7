"""Trains the sync experts: InfoNCE of windows of five frames and speech, over clips and over time."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from talkface.face.model import FaceModel
from talkface.hub import save_pretrained
from talkface.systems.g4g.experts import SYNC_CROP_PIXELS, SYNC_WINDOW, SyncExpert, SyncExpertConfig
from talkface.training import Task
from talkface.training.datasets.augmentation import augment_mouths, draw_augmentation
from talkface.training.datasets.talking import TalkingClip, clip_weights, read_talking

MOST_OFFSET = 15
"""Frames to either side among which validation looks for the right offset."""
_APART = 3  # least distance, in frames, of windows of one clip that count as negatives
_LONGEST = 100_000  # frames; no clip is as long
_CHUNK = 32  # windows that validation embeds at once


@dataclass(frozen=True, kw_only=True)
class ExpertTrainConfig:
    """Settings of an expert's training.

    Contrastive training from scratch can stay for long where all pairs look alike. Both sides therefore also
    predict the mouth's coefficients (weight ``coefficients``), which they learn quickly; the contrast then
    has features to compare.
    """

    model: SyncExpertConfig = field(default_factory=SyncExpertConfig)
    half: str = "a"  # of the clips; or "b", or "all"
    by_clip: tuple[str, ...] = ()  # speakers (patterns) with so many clips that each of these is in a half
    groups: dict[str, str] = field(default_factory=dict)  # by which validation is summed up, by patterns
    clips: int = 12  # per batch
    stretch: int = 48  # frames of each
    every: int = 3  # frames from the start of one window to that of the next
    coefficients: float = 0.5
    feature_noise: float = 0.15
    speaker_power: float = 0.6
    max_clips: int = 0  # 0: all


@dataclass(frozen=True)
class MouthStore:
    """The mouth crops of all clips, on the device that trains, where each is copied once.

    Attributes:
        frames: (N, 3, 96, 96) uint8, clip after clip.
        first: (clips + 1,) where each clip begins, and the last one ends.
    """

    frames: Tensor
    first: Tensor

    @classmethod
    def of(cls, clips: list[TalkingClip], device: torch.device) -> "MouthStore":
        """Cut them out of the frames of clips."""
        first = np.cumsum([0, *map(len, clips)])
        frames = torch.empty(
            int(first[-1]), 3, SYNC_CROP_PIXELS, SYNC_CROP_PIXELS, dtype=torch.uint8, device=device
        )
        for clip, start in zip(clips, first, strict=False):
            cut = torch.from_numpy(clip.mouths(SYNC_CROP_PIXELS))
            frames[start : start + len(clip)] = cut.movedim(-1, 1).to(device)
        return cls(frames, torch.from_numpy(first).to(device))

    def stretches(self, clip: Tensor, start: Tensor, length: int) -> Tensor:
        """Stretches (B, length, 3, 96, 96) uint8 of clips (B,) from their frames ``start`` (B,) on."""
        rows = (self.first[clip] + start)[:, None] + torch.arange(length, device=clip.device)
        return torch.unflatten(self.frames.index_select(0, rows.flatten()), 0, rows.shape)

    def clip(self, index: int) -> Tensor:
        """All mouths of a clip, (T, 3, 96, 96) uint8."""
        return self.frames[int(self.first[index]) : int(self.first[index + 1])]


class ExpertTask(Task[ExpertTrainConfig]):
    """Contrast of mouths and speech; windows of the same clip three or more frames apart are negatives."""

    metric, mode = "val_accuracy", "max"

    def prepare(self, data: Path, seed: int) -> None:
        """Read the clips and build the expert."""
        config = self.config
        face = FaceModel.from_pretrained()
        length = config.stretch + 2
        args: dict[str, Any] = {
            "half": config.half,
            "by_clip": config.by_clip,
            "variants": 2,
            "shortest": length,
            "limit": config.max_clips,
            "seed": seed,
        }
        self.clips = read_talking(data, "train", face, **args)
        self.mouths = MouthStore.of(self.clips, self.device)
        shortest = 2 * MOST_OFFSET + 25
        self.held_out = read_talking(
            data, self.manifest.choosing, face, shortest=shortest, limit=config.max_clips
        )
        self.held_out_mouths = MouthStore.of(self.held_out, self.device)
        self.weights = clip_weights(self.clips, config.speaker_power)
        self.expert = SyncExpert(config.model).to(self.device)
        self.modules = {"expert": self.expert}

    def draw(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        """Stretches of L frames: which they are, their speech and how their mouths are augmented.

        Returns:
            "clip" and "start" (B,), content (B, 2L, C) float16, level (B, 2L), beta (B, L, M), and what
            :func:`draw_augmentation` gives.
        """
        picks = generator.choice(len(self.clips), self.config.clips, p=self.weights)
        rows = [self._stretch(int(index), generator) for index in picks]
        start, content, level, beta = (np.stack(column) for column in zip(*rows, strict=True))
        named = {"clip": picks, "start": start, "content": content, "level": level, "beta": beta}
        return named | draw_augmentation(len(picks), generator)

    def _stretch(self, index: int, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
        """Start, content, level and beta_mouth of a random stretch of a clip."""
        clip, length = self.clips[index], self.config.stretch
        start = int(generator.integers(0, len(clip) - length + 1))
        double = slice(2 * start, 2 * (start + length))
        variant = int(generator.integers(len(clip.content)))
        return (
            np.array(start),
            clip.content[variant][double],
            clip.level[variant][double].astype(np.float32),
            clip.beta_mouth[start : start + length].astype(np.float32),
        )

    def training_step(self, batch: dict[str, Tensor], optimizer_index: int, step: int) -> dict[str, Tensor]:
        """Symmetric cross-entropy, and the distance of the coefficients that both sides predict."""
        every = self.config.every
        mouths = augment_mouths(
            self.mouths.stretches(batch["clip"], batch["start"], self.config.stretch), batch
        )
        content = batch["content"].float()
        content = content + self.config.feature_noise * torch.randn_like(content)
        video = self.expert.embed_video(mouths, every).flatten(0, 1)
        audio = self.expert.embed_audio(content, batch["level"])[:, ::every].flatten(0, 1)
        beta = batch["beta"].unfold(1, SYNC_WINDOW, every).transpose(2, 3).flatten(2).flatten(0, 1)
        near = too_near(batch["clip"], batch["start"], len(video) // len(batch["clip"]), every)
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
        """Share of held-out windows, and of clips, whose offset, among +-MOST_OFFSET, is found to a frame."""
        scores: dict[str, list[float]] = {}
        for index, clip in enumerate(self.held_out):
            group = clip.item.look_up(self.config.groups, clip.item.group)
            windows, whole = offset_accuracy(*self._embed(index))
            scores.setdefault(f"val_accuracy_{group}", []).append(windows)
            scores.setdefault(f"val_clip_accuracy_{group}", []).append(whole)
        metrics = {name: float(np.mean(values)) for name, values in scores.items()}
        groups = [v for n, v in metrics.items() if n.startswith("val_accuracy")]
        return {"val_accuracy": float(np.mean(groups))} | metrics

    @torch.no_grad()
    def _embed(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings of a held-out clip: of its windows of mouths and of its sound, (T - 4, C) each."""
        clip, mouths, parts = self.held_out[index], self.held_out_mouths.clip(index), []
        for start in range(0, len(mouths) - SYNC_WINDOW + 1, _CHUNK):
            piece = mouths[None, start : start + _CHUNK + SYNC_WINDOW - 1].float() / 255
            parts.append(self.expert.embed_video(piece)[0])
        content = torch.from_numpy(clip.content[0]).float()[None].to(self.device)
        level = torch.from_numpy(clip.level[0]).float()[None].to(self.device)
        audio = self.expert.embed_audio(content, level)[0]
        return torch.cat(parts).cpu().numpy(), audio.cpu().numpy()

    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Write the expert as the hub reads it."""
        config = self.expert.config_dict() | {"half": self.config.half, "metrics": metrics}
        save_pretrained(directory, config, self.expert.state_dict(), card=None)


def too_near(clip: Tensor, start: Tensor, count: int, every: int) -> Tensor:
    """Pairs of windows that are neither a match nor negatives, (B * count, B * count) bool.

    They are of one clip and less than three frames apart, or one window that was drawn twice.

    Args:
        clip: (B,) which clip a stretch is of.
        start: (B,) its first frame.
        count: windows of each stretch.
        every: frames from the start of one window to that of the next.
    """
    frame = start[:, None] + every * torch.arange(count, device=start.device)
    place = (clip[:, None] * _LONGEST + frame).flatten()
    near = (place[:, None] - place).abs() < _APART
    return near.fill_diagonal_(False)


def offset_accuracy(video: np.ndarray, audio: np.ndarray, reach: int = MOST_OFFSET) -> tuple[float, float]:
    """How often the right offset is found among +-``reach`` frames.

    Args:
        video: (N, C) embeddings of windows of mouths.
        audio: (N, C) of the sound at the same times.
        reach: frames to either side.

    Returns:
        The share of windows whose nearest sound is within a frame of the right one; and 1.0 or 0.0, whether
        the offset with the least mean distance over the clip is.
    """
    inner = np.arange(reach, len(video) - reach)
    offsets = range(-reach, reach + 1)
    distance = np.stack([np.linalg.norm(video[inner] - audio[inner + k], axis=1) for k in offsets], 1)
    windows = np.abs(distance.argmin(1) - reach) <= 1
    return float(windows.mean()), float(abs(int(distance.mean(0).argmin()) - reach) <= 1)
