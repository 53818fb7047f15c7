"""Distils Whisper base's fourth layer into :class:`ContentEncoder` on every training voice."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from talkface.data.manifest import Item, SpeechClip
from talkface.hub import model_path, save_pretrained
from talkface.speech.features import SAMPLES_PER_FEATURE, ContentEncoder, ContentEncoderConfig, loudest
from talkface.speech.mel import SAMPLE_RATE, log_mel
from talkface.training import Task


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """Settings of the distillation.

    Attributes:
        model: sizes of the student. One of width 512 starts from the teacher's weights.
        seconds_per_batch: of sound.
        shortest, longest: window, in seconds; each batch has windows of one length.
        clean: share of windows without any augmentation.
        teacher: file of Whisper base in CTranslate2's layout, to start from; empty for the hub's copy.
    """

    model: ContentEncoderConfig = field(default_factory=ContentEncoderConfig)
    seconds_per_batch: float = 32.0
    shortest: float = 2.0
    longest: float = 8.0
    clean: float = 0.25
    teacher: str = ""


class StudentTask(Task[StudentConfig]):
    """Regression of the teacher's features of clean speech from augmented speech.

    The teacher is the encoder as it starts out, applied to the same window: Whisper's features depend on the
    position in the window, so that the features of another window cannot be the target. The best weights are
    chosen on held-out voices.
    """

    metric, mode = "val_correlation", "max"

    def prepare(self, data: Path, seed: int) -> None:
        """Load the voices and build the encoder."""
        self.encoder = ContentEncoder(self.config.model).to(self.device)
        self.voices = [self.manifest.speech(item) for item in self._items("train")]
        held_out = self._items("val")
        self.held_out = [self.manifest.speech(item) for item in held_out[:: max(1, len(held_out) // 60)]]
        features = [voice.features for voice in self.voices]
        self.mean, self.deviation = _statistics(features, np.random.default_rng(seed))
        self.weights = np.array([len(v.features) for v in self.voices], np.float64)
        self.weights /= self.weights.sum()
        if self.config.model.width == 512:
            self._start_from_teacher()
        self.teacher = copy.deepcopy(self.encoder).eval().requires_grad_(False)
        self.modules = {"encoder": self.encoder}

    def _items(self, split: str) -> list[Item]:
        return [item for item in self.manifest.items if item.has_speech and item.split == split]

    def _start_from_teacher(self) -> None:
        from talkface.speech.teacher import encoder_state, read_ctranslate2

        path = Path(self.config.teacher) if self.config.teacher else model_path("whisper-base.bin")
        start_from_whisper(self.encoder, encoder_state(read_ctranslate2(path)))
        with torch.no_grad():  # the head begins as the normalised layer itself, exact for clean speech
            self.encoder.head.weight.copy_(torch.diag(torch.from_numpy(1 / self.deviation)))
            self.encoder.head.bias.copy_(torch.from_numpy(-self.mean / self.deviation))

    def batches(self, generator: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless pairs of augmented and clean samples, (B, N) each, with N drawn for each batch."""
        while True:
            seconds = generator.uniform(self.config.shortest, self.config.longest)
            length = round(seconds * 50) * SAMPLES_PER_FEATURE
            size = max(1, round(self.config.seconds_per_batch / seconds))
            picks = generator.choice(len(self.voices), size, p=self.weights)
            yield self._collate([self._window(self.voices[i], length, generator) for i in picks])

    def _window(
        self, voice: SpeechClip, length: int, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Augmented and clean samples (N,) of a voice; short recordings are repeated."""
        start = int(generator.integers(0, max(1, len(voice.audio) - length + 1)))
        clean = voice.samples(start, start + length)
        clean = np.concatenate([clean] * -(-length // len(clean)))[:length]
        if generator.random() < self.config.clean:
            return clean, clean
        return augment(clean, self._babble(length, generator), generator), clean

    def _babble(self, length: int, generator: np.random.Generator) -> np.ndarray:
        """Other people talking: one to four random training voices."""
        out = np.zeros(length, np.float32)
        for index in generator.choice(len(self.voices), int(generator.integers(1, 5))):
            other = self.voices[index].samples(0, length)
            out[: len(other)] += other
        return out

    def _collate(self, rows: list[tuple[np.ndarray, np.ndarray]]) -> tuple[Tensor, Tensor]:
        augmented, clean = (torch.from_numpy(np.stack([row[k] for row in rows])) for k in (0, 1))
        return augmented.to(self.device), clean.to(self.device)

    def training_step(
        self, batch: tuple[Tensor, Tensor], optimizer_index: int, step: int
    ) -> dict[str, Tensor]:
        """Huber distance to the teacher's features of the clean sound."""
        augmented, clean = batch
        with torch.no_grad():
            target = self.teacher(log_mel(clean, loudest(clean)))
        found = self.encoder(log_mel(augmented, loudest(augmented)))
        return {"loss": nn.functional.smooth_l1_loss(found, target)}

    def _noisy_held_out(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Four seconds of each held-out voice, augmented always alike, and clean."""
        generator = np.random.default_rng(0)
        for voice in self.held_out:
            clean = voice.samples(0, min(len(voice.audio), 4 * SAMPLE_RATE))
            noise = self._babble(len(clean), generator)
            augmented = augment(clean, noise, generator)
            yield self._collate([(augmented, clean)])

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Correlation with the teacher's features of clean sound, from clean and noisy held-out sound."""
        features: dict[str, list[np.ndarray]] = {"target": [], "clean": [], "augmented": []}
        for augmented, clean in self._noisy_held_out():
            features["target"].append(_features(self.teacher, clean))
            features["clean"].append(_features(self.encoder, clean))
            features["augmented"].append(_features(self.encoder, augmented))
        target, from_clean, from_noisy = (np.concatenate(parts) for parts in features.values())
        clean_score, noisy_score = _correlation(from_clean, target), _correlation(from_noisy, target)
        return {
            "val_clean": clean_score,
            "val_augmented": noisy_score,
            "val_correlation": (clean_score + noisy_score) / 2,
        }

    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Write the encoder as the hub reads it."""
        config = self.encoder.config_dict() | {"metrics": metrics}
        save_pretrained(directory, config, self.encoder.state_dict(), card=None)


def _features(encoder: ContentEncoder, samples: Tensor) -> np.ndarray:
    """Features (T, C) of samples (1, N)."""
    features: Tensor = encoder(log_mel(samples, loudest(samples)))
    return features[0].cpu().numpy()


def start_from_whisper(encoder: ContentEncoder, state: dict[str, Tensor]) -> None:
    """Copy the teacher's convolutions and first layers into the student."""
    own = {key: state[key] for key in ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias")}
    for index in range(encoder.config.layers):
        source = f"layers.{index}."
        projections = [state[source + f"self_attn.{name}_proj.weight"] for name in "qkv"]
        query, value = state[source + "self_attn.q_proj.bias"], state[source + "self_attn.v_proj.bias"]
        own |= {
            source + "self_attn.in_proj_weight": torch.cat(projections),
            source + "self_attn.in_proj_bias": torch.cat([query, torch.zeros_like(query), value]),
        }
        names = {
            "self_attn.out_proj": "self_attn.out_proj",
            "linear1": "fc1",
            "linear2": "fc2",
            "norm1": "self_attn_layer_norm",
            "norm2": "final_layer_norm",
        }
        for ours, theirs in names.items():
            for kind in ("weight", "bias"):
                own[f"{source}{ours}.{kind}"] = state[f"{source}{theirs}.{kind}"]
    missing = encoder.load_state_dict(own, strict=False)
    assert not missing.unexpected_keys, missing.unexpected_keys


def augment(samples: np.ndarray, babble: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Noise, babble, reverberation, a telephone band and clipping, each at random; (N,) in and out."""
    out = samples
    if generator.random() < 0.3:
        out = _reverberate(out, generator)
    if generator.random() < 0.3:
        out = _mix(out, babble, generator.uniform(3, 25))
    if generator.random() < 0.5:
        out = _mix(out, _coloured_noise(len(out), generator), generator.uniform(3, 30))
    if generator.random() < 0.4:
        out = _equalise(out, generator)
    if generator.random() < 0.1:
        limit = np.quantile(np.abs(out), generator.uniform(0.95, 0.999)) + 1e-4
        out = np.clip(out, -limit, limit)
    return out.astype(np.float32)


def _mix(speech: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
    """Speech with noise ``snr`` dB below it."""
    power = np.square(speech).mean() / (np.square(noise).mean() + 1e-9)
    mixed: np.ndarray = speech + noise * np.sqrt(power) * 10 ** (-snr / 20)
    return mixed


def _coloured_noise(length: int, generator: np.random.Generator) -> np.ndarray:
    """Noise whose spectrum falls with a power of the frequency between 0 (white) and 1."""
    spectrum = np.fft.rfft(generator.standard_normal(length))
    frequency = np.maximum(np.fft.rfftfreq(length, 1 / SAMPLE_RATE), 20.0)
    return np.fft.irfft(spectrum * frequency ** -generator.uniform(0.0, 1.0), length)


def _reverberate(samples: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Samples in a room that reverberates for 0.1 to 0.5 seconds."""
    decay = generator.uniform(0.1, 0.5)
    length = int(decay * SAMPLE_RATE)
    tail = generator.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
    tail *= generator.uniform(0.02, 0.15) / np.sqrt(np.square(tail).sum()) * 3
    tail[0] = 1.0  # the direct sound stays where it is: no shift in time
    size = len(samples) + length
    heard: np.ndarray = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(tail, size), size)
    return heard[: len(samples)]


def _equalise(samples: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Samples through another microphone: random gains of bands, at times with a low-pass filter."""
    spectrum = np.fft.rfft(samples)
    frequency = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    knots = np.array([0, 150, 500, 1500, 3400, 8000.0])
    gain = np.interp(frequency, knots, generator.normal(0, 5, len(knots)))
    if generator.random() < 0.4:
        gain = np.where(frequency > generator.uniform(3000, 6000), -60.0, gain)
    return np.fft.irfft(spectrum * 10 ** (gain / 20), len(samples))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over dimensions of the correlation over time of (T, C)."""
    product = ((a - a.mean(0)) * (b - b.mean(0))).mean(0)
    return float((product / (a.std(0) * b.std(0) + 1e-6)).mean())


def _statistics(features: list[np.ndarray], generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    picks = generator.choice(len(features), min(400, len(features)), replace=False)
    stack = np.concatenate([features[i] for i in picks]).astype(np.float32)
    return stack.mean(0), stack.std(0) + 1e-3
