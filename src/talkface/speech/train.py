"""Distils Whisper base's fourth layer into :class:`ContentEncoder` on every training voice."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from talkface.data.prepare import Manifest
from talkface.speech.features import SAMPLES_PER_FEATURE, ContentEncoder, ContentEncoderConfig, loudest
from talkface.speech.mel import SAMPLE_RATE, log_mel
from talkface.training import Task


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """Settings of the distillation."""

    model: ContentEncoderConfig = ContentEncoderConfig()
    seconds_per_batch: float = 32.0
    shortest: float = 2.0
    longest: float = 8.0
    clean: float = 0.25  # share of windows without any augmentation
    teacher: str = ""  # Whisper base in CTranslate2's layout, to start from; empty: the hub's copy


class StudentTask(Task):
    """Regression of the teacher's normalised features from augmented speech; chosen on validation voices."""

    Config = StudentConfig
    metric, mode = "val_correlation", "max"

    def __init__(self, config: StudentConfig, data: Path, seed: int = 0, device: str = "cpu") -> None:
        self.config, self.device = config, torch.device(device)
        self.encoder = ContentEncoder(config.model).to(self.device)
        manifest = Manifest.load(data)
        self.voices = [manifest.speech(item) for item in manifest.items if item.has_speech and item.split == "train"]
        held_out = [item for item in manifest.items if item.has_speech and item.split == "val"]
        self.held_out = [manifest.speech(item) for item in held_out[:: max(1, len(held_out) // 60)]]
        self.mean, self.deviation = _statistics([v.features for v in self.voices], np.random.default_rng(seed))
        self.weights = np.array([len(v.features) for v in self.voices], np.float64)
        self.weights /= self.weights.sum()
        if config.model.width == 512:
            self._start_from_teacher()
        self.modules = {"encoder": self.encoder}

    def _start_from_teacher(self) -> None:
        from talkface.hub import model_path
        from talkface.speech.teacher import encoder_state, read_ctranslate2

        path = Path(self.config.teacher) if self.config.teacher else model_path("whisper-base.bin")
        start_from_whisper(self.encoder, encoder_state(read_ctranslate2(path)))
        with torch.no_grad():  # exact for clean speech from the first step: the layer itself, normalised
            self.encoder.head.weight.copy_(torch.diag(torch.from_numpy(1 / self.deviation)))
            self.encoder.head.bias.copy_(torch.from_numpy(-self.mean / self.deviation))

    def batches(self, generator: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless (mel (B, 80, 2T), target (B, T, C)) with T drawn for each batch."""
        while True:
            frames = round(generator.uniform(self.config.shortest, self.config.longest) * 50)
            size = max(1, round(self.config.seconds_per_batch * 50 / frames))
            picks = generator.choice(len(self.voices), size, p=self.weights)
            yield self._collate([self._window(self.voices[i], frames, generator) for i in picks])

    def _window(self, voice, frames: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        total = len(voice.features)
        start = int(generator.integers(0, max(1, total - frames + 1)))
        features = voice.features[start : start + frames].astype(np.float32)
        first = start * SAMPLES_PER_FEATURE
        samples = voice.samples(first, first + len(features) * SAMPLES_PER_FEATURE)
        if generator.random() > self.config.clean:
            samples = augment(samples, self._babble(len(samples), generator), generator)
        repeat = -(-frames // len(features))  # short clips are repeated: position-free, no padding to mask
        features = np.concatenate([features] * repeat)[:frames]
        samples = np.concatenate([samples] * repeat)[: frames * SAMPLES_PER_FEATURE]
        return samples, (features - self.mean) / self.deviation

    def _babble(self, length: int, generator: np.random.Generator) -> np.ndarray:
        """Other people talking: one to four random training voices."""
        out = np.zeros(length, np.float32)
        for index in generator.choice(len(self.voices), int(generator.integers(1, 5))):
            other = self.voices[index].samples(0, length)
            out[: len(other)] += other
        return out

    def _collate(self, rows: list[tuple[np.ndarray, np.ndarray]]) -> tuple[Tensor, Tensor]:
        samples = torch.from_numpy(np.stack([row[0] for row in rows]))
        target = torch.from_numpy(np.stack([row[1] for row in rows]))
        return log_mel(samples, loudest(samples)).to(self.device), target.to(self.device)

    def training_step(self, batch: tuple[Tensor, Tensor], optimizer_index: int, step: int) -> dict[str, Tensor]:
        """Huber distance to the normalised teacher."""
        mel, target = batch
        loss = nn.functional.smooth_l1_loss(self.encoder(mel), target, beta=1.0)
        return {"loss": loss}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean over feature dimensions of the correlation with the teacher on held-out voices."""
        ours, theirs = [], []
        for voice in self.held_out:
            frames = min(len(voice.features), 400)
            samples = torch.from_numpy(voice.samples(0, frames * SAMPLES_PER_FEATURE))[None].to(self.device)
            ours.append(self.encoder(log_mel(samples, loudest(samples)))[0].cpu().numpy())
            theirs.append((voice.features[:frames].astype(np.float32) - self.mean) / self.deviation)
        a, b = np.concatenate(ours), np.concatenate(theirs)
        correlation = ((a - a.mean(0)) * (b - b.mean(0))).mean(0) / (a.std(0) * b.std(0) + 1e-6)
        return {"val_correlation": float(correlation.mean()), "val_mse": float(np.square(a - b).mean())}

    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Write the encoder as the hub reads it."""
        from talkface.hub import save_pretrained

        config = self.encoder.config_dict() | {"metrics": metrics}
        save_pretrained(directory, config, self.encoder.state_dict(), card=None)


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
    power = np.square(speech).mean() / (np.square(noise).mean() + 1e-9)
    return speech + noise * np.sqrt(power) * 10 ** (-snr / 20)


def _coloured_noise(length: int, generator: np.random.Generator) -> np.ndarray:
    spectrum = np.fft.rfft(generator.standard_normal(length))
    frequency = np.maximum(np.fft.rfftfreq(length, 1 / SAMPLE_RATE), 20.0)
    return np.fft.irfft(spectrum * frequency ** -generator.uniform(0.0, 1.0), length)


def _reverberate(samples: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    decay = generator.uniform(0.1, 0.5)
    length = int(decay * SAMPLE_RATE)
    tail = generator.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
    tail *= generator.uniform(0.02, 0.15) / np.sqrt(np.square(tail).sum()) * 3
    tail[0] = 1.0  # the direct sound stays where it is: no shift in time
    size = len(samples) + length
    return np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(tail, size), size)[: len(samples)]


def _equalise(samples: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    spectrum = np.fft.rfft(samples)
    frequency = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    knots = np.array([0, 150, 500, 1500, 3400, 8000.0])
    gain = np.interp(frequency, knots, generator.normal(0, 5, len(knots)))
    if generator.random() < 0.4:
        gain = np.where(frequency > generator.uniform(3000, 6000), -60.0, gain)
    return np.fft.irfft(spectrum * 10 ** (gain / 20), len(samples))


def _statistics(features: list[np.ndarray], generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    picks = generator.choice(len(features), min(400, len(features)), replace=False)
    stack = np.concatenate([features[i] for i in picks]).astype(np.float32)
    return stack.mean(0), stack.std(0) + 1e-3
