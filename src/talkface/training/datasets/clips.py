"""Talking clips as examples: content features, mouth and non-lip coefficients at 25 fps, and variants."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from scipy.signal import resample_poly
from torch import Tensor

from talkface.data.manifest import Item, Manifest, SpeechClip
from talkface.data.parallel import parallel_map
from talkface.face.model import FaceModel
from talkface.performance.config import FRAME_RATE
from talkface.speech.features import ContentEncoder, FeatureStream
from talkface.training.tasks.speech_student import augment

logger = logging.getLogger(__name__)

SPEEDS = (1.0, 0.88, 1.13, 0.94, 1.06)
"""At which the variants of a clip are played."""
_LEAST_FRAMES = 25  # of a clip that is repeated to fill a window


@dataclass
class Example:
    """A clip, or a copy of it at another speed, at 25 fps.

    Attributes:
        content: (2T, C) float16 content features.
        level: (2T,) dB relative to the loudest sound.
        beta_mouth: (T, M) mouth coefficients.
        motion: (T, 26) non-lip coefficients, as deviations from the clip's median.
        found: (T,) whether the face was seen.
        times: (T,) of the frames in the clip, seconds.
        item: the clip.
    """

    content: np.ndarray
    level: np.ndarray
    beta_mouth: np.ndarray
    motion: np.ndarray
    found: np.ndarray
    times: np.ndarray
    item: Item


class ClipReader:
    """Reads clips of a prepared folder as examples, at any speed and with augmented sound.

    Args:
        manifest: the prepared folder.
        model: the 3DMM.
        features: "student" runs our encoder on the sound; "teacher" takes the cached teacher features and
            "mel" the log-mel spectrogram, both only at speed 1 and without augmentation (for comparisons);
            "none" leaves content empty.
        encoder: name or directory of our encoder.
    """

    def __init__(
        self, manifest: Manifest, model: FaceModel, features: str = "student", encoder: str = "speech"
    ) -> None:
        self.manifest, self.model, self.features = manifest, model, features
        self.stream = (
            FeatureStream(ContentEncoder.from_pretrained(encoder)) if features == "student" else None
        )
        path = manifest.directory / "sync.json"
        self.offsets: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}

    def items(self, split: str) -> list[Item]:
        """Usable talking clips of a split; those of the training split only if their sync offset is known."""
        chosen = [
            i for i in self.manifest.items if i.has_video and i.has_speech and i.usable and i.split == split
        ]
        return [i for i in chosen if split == "val" or self.offsets.get(i.key, 0.0) is not None]

    def read(self, item: Item, speed: float = 1.0, generator: np.random.Generator | None = None) -> Example:
        """Read a clip.

        Args:
            item: the clip.
            speed: 1.1 plays sound and motion 10 % faster, pitch included.
            generator: draws an augmentation of the sound; None leaves it as it is.
        """
        voice, track = self.manifest.speech(item), self.manifest.track(item)
        fps = (len(track.times) - 1) / max(track.times[-1] - track.times[0], 1e-3)
        fit = self.model.fit(track.points, fps)
        audio = voice.samples(0, len(voice.audio))
        content, level = self._content(voice, audio, speed, generator)
        shift = 0.0 if item.split == "val" else (self.offsets.get(item.key) or 0.0) / FRAME_RATE
        begin = max(0.0, float(track.times[0]), -shift)
        end = min(float(track.times[-1]), len(audio) / 16_000 - shift)
        times = np.arange(begin, end, speed / FRAME_RATE)
        first = round((begin + shift) / speed * 2 * FRAME_RATE)
        length = max(0, min(len(times), (len(content) - first) // 2))
        motion = fit.motion.resample(times[:length] - track.times[0]) if length else fit.motion[:0]
        seen = np.clip(np.round((times[:length] - track.times[0]) * fps).astype(int), 0, len(track.found) - 1)
        part = slice(first, first + 2 * length)
        return Example(
            content[part],
            level[part],
            motion.beta_mouth,
            motion.deviations(),
            track.found[seen],
            times[:length],
            item,
        )

    def _content(
        self, voice: SpeechClip, audio: np.ndarray, speed: float, generator: np.random.Generator | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Content features (2T, C) and level (2T,) of a clip's sound (N,)."""
        if speed != 1.0:
            audio = resample_poly(audio, 100, round(100 * speed)).astype(np.float32)
        if generator is not None:
            noise = generator.standard_normal(len(audio)) * 0.0
            audio = augment(audio, noise + generator.standard_normal(len(audio)), generator)
        stream = self.stream or FeatureStream(_NoEncoder())
        stretches = list(stream([audio]))
        level = torch.cat([s.level for s in stretches]).numpy()
        if self.features == "none":
            return np.zeros((len(level), 0), np.float16), level
        if self.features == "teacher":
            return voice.features, level[: len(voice.features)]
        return torch.cat([s.content for s in stretches]).half().numpy(), level


class _NoEncoder(torch.nn.Module):
    """Stands for the encoder where the plain log-mel spectrogram is wanted."""

    def forward(self, mel: Tensor) -> Tensor:
        return mel.unfold(2, 2, 2).transpose(1, 2).flatten(2)


def read_variants(
    reader: ClipReader, count: int, generator: np.random.Generator, shortest: int
) -> list[Example]:
    """Every training clip ``count`` times: as it is, then at other speeds with augmented sound.

    Args:
        reader: of the prepared folder.
        count: variants of each clip.
        generator: draws the augmentations.
        shortest: least number of frames. A shorter clip of a second or more is repeated to fill them, in its
            first variant only.
    """
    items = reader.items("train")

    def heard(row: tuple[Item, np.random.Generator]) -> list[Example]:
        return [
            reader.read(row[0], SPEEDS[variant % len(SPEEDS)], row[1] if variant else None)
            for variant in range(count)
        ]

    examples: list[Example] = []
    for variants in parallel_map(heard, list(zip(items, generator.spawn(len(items)), strict=True))):
        for variant, example in enumerate(variants):
            too_short = variant == 0 and _LEAST_FRAMES <= len(example.motion) < shortest
            filled = _repeat(example, shortest) if too_short else example
            if len(filled.motion) >= shortest and filled.found.mean() > 0.9:
                examples.append(filled)
    minutes = sum(len(e.motion) for e in examples) / FRAME_RATE / 60
    logger.info("%d examples, %.1f minutes", len(examples), minutes)
    return examples


def _repeat(example: Example, length: int) -> Example:
    """A short clip, repeated end to end until it has ``length`` frames."""
    times = -(-length // len(example.motion))
    columns: dict[str, Any] = {}
    for field in fields(Example):
        if field.name != "item":
            columns[field.name] = np.concatenate([getattr(example, field.name)] * times)
    return replace(example, **columns)


def speakers_and_lengths(examples: list[Example]) -> tuple[list[str], list[int]]:
    """Who speaks in each example, and its number of frames."""
    return [example.item.speaker for example in examples], [len(example.motion) for example in examples]


def speaker_weights(speakers: Sequence[str], lengths: Sequence[int], power: float) -> np.ndarray:
    """Probability with which each of N clips is drawn, (N,).

    Args:
        speakers: of the clips.
        lengths: of the clips, in frames.
        power: at 0 clips are drawn by their length, at 1 all speakers alike.
    """
    total: dict[str, int] = {}
    for speaker, length in zip(speakers, lengths, strict=True):
        total[speaker] = total.get(speaker, 0) + length
    weight = np.array([n / total[s] ** power for s, n in zip(speakers, lengths, strict=True)])
    weight /= weight.sum()
    return weight
