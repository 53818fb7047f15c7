"""Talking clips as examples: content features, mouth and other coefficients on one clock of 25 fps."""

import json
from dataclasses import dataclass

import numpy as np
import torch
from scipy.signal import resample_poly
from torch import Tensor

from talkface.data.prepare import Item, Manifest
from talkface.face.model import FaceModel
from talkface.face.motion import FaceMotion
from talkface.performance.config import FRAME_RATE
from talkface.speech.features import ContentEncoder, FeatureStream
from talkface.training.tasks.speech_student import augment


@dataclass
class Example:
    """A clip (or a sped-up copy): content (2T, C) float16, level (2T,), beta_mouth (T, M), motion (T, 26).

    ``found`` (T,) says where the face was seen, ``times`` (T,) where in the clip the frames are, seconds.
    """

    content: np.ndarray
    level: np.ndarray
    beta_mouth: np.ndarray
    motion: np.ndarray
    found: np.ndarray
    times: np.ndarray
    item: Item


def non_lip(motion: FaceMotion) -> np.ndarray:
    """Non-lip coefficients (T, 26) as deviations from the clip's median: upper face, pose, gaze."""
    parts = [motion.beta_upper, motion.rotation, motion.translation, motion.scale, motion.gaze]
    stacked = np.concatenate(parts, 1)
    return (stacked - np.median(stacked, 0)).astype(np.float32)


class ClipReader:
    """Reads clips of a prepared folder as examples, at any speed and with any audio augmentation.

    Args:
        features: "student" runs our encoder on the sound; "teacher" takes the cached teacher features and
            "mel" the log-mel spectrogram, both only at speed 1 and without augmentation (for comparisons);
            "none" leaves content empty.
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
        """Usable talking clips of a split; training leaves out those whose sync could not be found."""
        chosen = [
            i for i in self.manifest.items if i.has_video and i.has_speech and i.usable and i.split == split
        ]
        return [i for i in chosen if split == "val" or self.offsets.get(i.key, 0.0) is not None]

    def read(self, item: Item, speed: float = 1.0, generator: np.random.Generator | None = None) -> Example:
        """Read a clip.

        ``speed`` 1.1 plays sound and motion 10 % faster, pitch included; a generator augments the sound.
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
            non_lip(motion),
            track.found[seen],
            times[:length],
            item,
        )

    def _content(self, voice, audio: np.ndarray, speed: float, generator) -> tuple[np.ndarray, np.ndarray]:
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
