"""Content features: what is being said, 50 times a second, from a small encoder shipped with the package.

The encoder is distilled from Whisper base (MIT): its convolutions and four layers are initialised with the
teacher's. From short windows of noisy, reverberant, band-limited speech at any loudness, it is trained to
predict the hidden states of the teacher's fourth layer for the clean speech.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from talkface.hub import build_pretrained
from talkface.speech.mel import BINS, SAMPLE_RATE, log_mel, mel_power

FEATURE_RATE = 50
SAMPLES_PER_FEATURE = SAMPLE_RATE // FEATURE_RATE


@dataclass(frozen=True, kw_only=True)
class ContentEncoderConfig:
    """Architecture of :class:`ContentEncoder`."""

    width: int = 512
    layers: int = 4
    heads: int = 8
    feed_forward: int = 2048
    features: int = 512


def sinusoids(length: int, width: int) -> Tensor:
    """Whisper's sinusoidal positions (length, width)."""
    rates = torch.exp(-math.log(10_000) / (width // 2 - 1) * torch.arange(width // 2))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class ContentEncoder(nn.Module):
    """Maps log-mel (B, 80, 2T) to content features (B, T, C) of zero mean and unit variance over speech."""

    def __init__(self, config: ContentEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv1d(BINS, config.width, 3, padding=1)
        self.conv2 = nn.Conv1d(config.width, config.width, 3, stride=2, padding=1)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                config.width,
                config.heads,
                config.feed_forward,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(config.layers)
        )
        self.head = nn.Linear(config.width, config.features)

    @classmethod
    def debug(cls) -> "ContentEncoder":
        """A tiny random encoder for tests."""
        return cls(ContentEncoderConfig(width=32, layers=1, heads=2, feed_forward=64, features=16)).eval()

    @classmethod
    def from_pretrained(cls, name_or_path: str = "speech") -> "ContentEncoder":
        """Load the shipped encoder, or one from a directory or hub id."""
        return build_pretrained(cls, ContentEncoderConfig, name_or_path)

    def config_dict(self) -> dict[str, Any]:
        """The content of ``config.json``."""
        return {"class": "ContentEncoder", "model": asdict(self.config)}

    def forward(self, mel: Tensor) -> Tensor:
        """Map log-mel (B, 80, 2T), T at most a few hundred, to features (B, T, C)."""
        hidden = nn.functional.gelu(self.conv1(mel))
        hidden = nn.functional.gelu(self.conv2(hidden)).transpose(1, 2)
        hidden = hidden + sinusoids(hidden.shape[1], self.config.width).to(hidden)
        for layer in self.layers:
            hidden = layer(hidden)
        features: Tensor = self.head(hidden)
        return features


@dataclass(frozen=True)
class ContentFeatures:
    """A stretch of speech at 50 Hz: content (T, C), and level (T,) in dB below the loudest, at most 0."""

    content: Tensor
    level: Tensor


class FeatureStream:
    """Content features of speech of any length with constant memory.

    Audio is cut into windows that overlap by a context on either side. Each window is normalised by its own
    loudest moment, but raised by at most ``max_lift`` dB relative to the loudest moment so far, so that the
    noise of a pause is not taken for speech.

    Args:
        encoder: Maps log-mel (1, 80, 2T) to features (1, T, C); moved to ``device``.
        window: Seconds of a window.
        context: Seconds by which windows overlap on either side.
        max_lift: dB.
        device: Where the encoder runs; features come on the CPU.
    """

    def __init__(
        self,
        encoder: nn.Module,
        window: float = 8.0,
        context: float = 1.0,
        max_lift: float = 25.0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.encoder = encoder.to(device)
        self.device = device
        self.step = round((window - 2 * context) * FEATURE_RATE) * SAMPLES_PER_FEATURE
        self.context = round(context * FEATURE_RATE) * SAMPLES_PER_FEATURE
        self.max_lift = max_lift

    def __call__(self, blocks: Iterable[np.ndarray]) -> Iterator[ContentFeatures]:
        """Turn blocks of samples (N,), 16 kHz mono, into consecutive stretches of features.

        The total number of features is ceil(samples / 320).
        """
        held = np.zeros(0, np.float32)  # up to `context` samples already used, then new ones
        used, peak = 0, -10.0
        for block in blocks:
            held = np.concatenate([held, block.astype(np.float32, copy=False)])
            while len(held) - used >= self.step + self.context:
                features, peak = self._window(held[: used + self.step + self.context], used, self.step, peak)
                yield features
                start = max(0, used + self.step - self.context)
                held, used = held[start:], used + self.step - start
        remaining = len(held) - used
        if remaining > 0:
            padding = -len(held) % SAMPLES_PER_FEATURE
            held = np.pad(held, (0, padding))
            yield self._window(held, used, remaining + padding, peak)[0]

    @torch.inference_mode()
    def _window(
        self, samples: np.ndarray, start: int, length: int, peak: float
    ) -> tuple[ContentFeatures, float]:
        """Features of ``length`` samples from ``start`` on, and log10 power of the loudest moment so far."""
        audio = torch.from_numpy(samples)[None].to(self.device)
        if audio.shape[1] < 2 * SAMPLES_PER_FEATURE:
            audio = nn.functional.pad(audio, (0, 2 * SAMPLES_PER_FEATURE - audio.shape[1]))
        here = float(loudest(audio))
        peak = max(peak, here)
        mel = log_mel(audio, max(here, peak - self.max_lift / 10))
        content = self.encoder(mel)[0]
        first, count = start // SAMPLES_PER_FEATURE, length // SAMPLES_PER_FEATURE
        level = 10 * (_frame_power(audio[0]).log10() - (peak - 2.5))
        part = slice(first, first + count)
        return ContentFeatures(content[part].cpu(), level[part].cpu().clamp_max(0.0)), peak


def loudest(samples: Tensor) -> Tensor:
    """Log10 power (B, 1, 1) of the loudest mel bin of each row of samples (B, N)."""
    return mel_power(samples).amax(dim=(1, 2), keepdim=True).clamp_min(1e-10).log10()


def _frame_power(audio: Tensor) -> Tensor:
    """Mean spectral power of each 20 ms, (T,)."""
    frames = audio[: len(audio) // SAMPLES_PER_FEATURE * SAMPLES_PER_FEATURE].reshape(-1, SAMPLES_PER_FEATURE)
    return frames.square().mean(-1).clamp_min(1e-12) * SAMPLES_PER_FEATURE
