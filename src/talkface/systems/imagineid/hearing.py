"""What the audio encoders of PAD are given: content features, level and prosody at 50 Hz."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from talkface.data.prepare import Item, Manifest
from talkface.speech.features import FeatureStream
from talkface.speech.mel import BINS, log_mel
from talkface.speech.pitch import pitch

PROSODY = 2 + BINS
"""Pitch, periodicity and the log-mel spectrum."""


@dataclass(frozen=True)
class Heard:
    """Speech at 50 Hz.

    Attributes:
        content: (T, C) content features.
        level: (T,) dB below the loudest.
        prosody: (T, PROSODY) octaves above 160 Hz, periodicity, log-mel.
    """

    content: np.ndarray
    level: np.ndarray
    prosody: np.ndarray

    def __len__(self) -> int:
        return len(self.level)

    def part(self, start: int, stop: int) -> "Heard":
        """Features ``start`` to ``stop``."""
        return Heard(self.content[start:stop], self.level[start:stop], self.prosody[start:stop])


def hear(samples: np.ndarray, stream: FeatureStream) -> Heard:
    """Features of speech (N,), 16 kHz mono, as a whole: for seconds, not for hours."""
    return _joined(stream([samples]), samples)


def _joined(stretches: Iterable, samples: np.ndarray) -> Heard:
    parts = list(stretches)
    content = torch.cat([part.content for part in parts]).half().numpy()
    level = torch.cat([part.level for part in parts]).float().numpy()
    audio = torch.from_numpy(np.pad(samples.astype(np.float32), (0, len(level) * 320 - len(samples))))
    octaves, periodicity = pitch(audio)
    mel = log_mel(audio[None])[0].T.unflatten(0, (-1, 2)).mean(1)
    prosody = torch.cat([octaves[:, None], periodicity[:, None], mel], 1)
    return Heard(content, level, prosody[: len(level)].half().numpy())


def heard(manifest: Manifest, item: Item, stream: FeatureStream) -> Heard:
    """Features of an item of a prepared folder; found on first use and kept."""
    path = manifest.directory / "heard" / f"{item.key}.npz"
    if not path.is_file():
        voice = manifest.speech(item)
        _keep(path, hear(voice.samples(0, len(voice.audio)), stream))
    with np.load(path) as arrays:
        return Heard(arrays["content"], arrays["level"], arrays["prosody"])


def _keep(path: Path, found: Heard) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, content=found.content, level=found.level, prosody=found.prosody)
    partial.replace(path)
