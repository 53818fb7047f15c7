"""The input of PAD's audio encoders: content features, level and prosody at 50 Hz."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from talkface.speech.features import FeatureStream
from talkface.speech.mel import BINS, log_mel
from talkface.speech.pitch import pitch
from talkface.systems.imagineid.pad import Speech

PROSODY = 2 + BINS
"""Pitch, periodicity and the log-mel spectrum."""
_LOG_MEL_FLOOR = -2.0  # relative to the loudest moment: eight decades


@dataclass(frozen=True)
class PadInput:
    """Speech at 50 Hz.

    Attributes:
        content: (T, C) content features.
        level: (T,) dB relative to the loudest moment.
        prosody: (T, PROSODY) octaves above 160 Hz, periodicity, log-mel.
    """

    content: np.ndarray
    level: np.ndarray
    prosody: np.ndarray

    def __len__(self) -> int:
        return len(self.level)

    def part(self, start: int, stop: int) -> "PadInput":
        """Features ``start`` to ``stop``."""
        return PadInput(self.content[start:stop], self.level[start:stop], self.prosody[start:stop])


def pad_input(samples: np.ndarray, stream: FeatureStream) -> PadInput:
    """Features of seconds or minutes of speech (N,), 16 kHz mono; all is held in memory."""
    parts = list(stream([samples]))
    content = torch.cat([part.content for part in parts]).half().numpy()
    level = torch.cat([part.level for part in parts]).float().numpy()
    audio = torch.from_numpy(np.pad(samples.astype(np.float32), (0, len(level) * 320 - len(samples))))
    octaves, periodicity = pitch(audio)
    steps = log_mel(audio[None])[0].T  # 100 a second
    mel = steps.reshape(-1, 2, steps.shape[1]).mean(1)
    prosody = torch.cat([octaves[:, None], periodicity[:, None], mel], 1)
    return PadInput(content, level, prosody[: len(level)].half().numpy())


def as_batch(parts: Sequence[PadInput], device: torch.device | str) -> Speech:
    """Stretches of equal length as a batch, normalised for the loudness of each recording."""
    content, level, prosody = (
        torch.from_numpy(np.stack([getattr(part, name) for part in parts])).float().to(device)
        for name in ("content", "level", "prosody")
    )
    mel = prosody[..., 2:]
    mel = (mel - mel.amax((1, 2), keepdim=True)).clamp_min(_LOG_MEL_FLOOR)
    return Speech(content, level, torch.cat([prosody[..., :2], mel], -1))
