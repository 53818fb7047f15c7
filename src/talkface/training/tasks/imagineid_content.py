"""Trains PAD's second stage: mouth coefficients from speech and identity."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from talkface.systems.imagineid.pad import Speech
from talkface.systems.imagineid.pad_input import PadInput
from talkface.systems.thpad.losses import LipLoss
from talkface.training.datasets.clips import ClipReader, Example
from talkface.training.datasets.pad_inputs import pad_input_of
from talkface.training.tasks.imagineid_pad import RATE, PadTask, looped
from talkface.training.tasks.thpad_motion import best_lag_correlation

logger = logging.getLogger(__name__)

_NO_IDENTITY = 0.3  # share of windows whose identity code is zero
_CODE_NOISE = 0.15  # standard deviation of the noise on identity codes


class ContentTask(PadTask):
    """Stage 2 on talking clips: mouth coefficients."""

    stage = "content"
    metric, mode = "val_aperture_r", "max"

    def read_data(self, generator: np.random.Generator) -> None:
        """Clips, some of them faster or slower and with other sound."""
        reader = ClipReader(self.manifest, self.face, encoder=self.config.speech)
        window = round(25 * self.config.seconds[1]) // 2 * 2
        self.window = window
        self.clips: list[Example] = []
        self.left_out: list[Example] = []
        speakers = sorted({item.speaker for item in reader.items("train")})
        unseen = set(speakers[:: self.config.left_out] if self.config.left_out else [])
        for variant in range(self.config.variants):
            for item in reader.items("train"):
                speed = 1.0 if variant == 0 else float(generator.uniform(0.88, 1.13))
                clip = reader.read(item, speed, generator if variant else None)
                if item.speaker in unseen:
                    self.left_out += [clip] if variant == 0 else []
                elif len(clip.motion) >= window:
                    self.clips.append(clip)
        self.held_out = [reader.read(item) for item in reader.items("val")]
        items = [*reader.items("train"), *reader.items("val")]
        self.features = {item.key: pad_input_of(self.manifest, item, self.stream) for item in items}
        self.clips_of: dict[str, list[str]] = {}
        for item in reader.items("train"):
            self.clips_of.setdefault(item.person, []).append(item.key)
        counts: dict[str, int] = {}
        for clip in self.clips:
            counts[clip.item.speaker] = counts.get(clip.item.speaker, 0) + len(clip.motion)
        weight = np.array([len(clip.motion) / counts[clip.item.speaker] ** 0.5 for clip in self.clips])
        self.weights = weight / weight.sum()
        self.lip_loss = LipLoss(self.face).to(self.device)

    def batches(self, generator: np.random.Generator) -> Iterator[tuple[Speech, Speech, Tensor, Tensor]]:
        """Endless batches: speech, speakers' voices, whether these are known (B, 1), beta_mouth (B, T, M)."""
        while True:
            parts, voices, mouths = [], [], []
            for index in generator.choice(len(self.clips), self.config.batch, p=self.weights):
                clip = self.clips[index]
                start = int(generator.integers(0, len(clip.motion) - self.window + 1))
                parts.append(_clip_part(clip, start, start + self.window, self.pad.config.prosody))
                voices.append(self._voice(clip, generator))
                mouths.append(clip.beta_mouth[start : start + self.window])
            mouth = torch.from_numpy(np.stack(mouths)).float().to(self.device)
            known = torch.from_numpy(generator.random((len(parts), 1)) > _NO_IDENTITY).to(mouth)
            yield self.speech(parts, self.config.noise), self.speech(voices), known, mouth

    def _voice(self, clip: Example, generator: np.random.Generator) -> PadInput:
        """Three seconds of the speaker, from any of the speaker's clips.

        Codes of the clips themselves would let the stage memorise them.
        """
        keys = self.clips_of[clip.item.person]
        whole = self.features[keys[generator.integers(len(keys))]]
        return looped(whole, int(generator.integers(len(whole))), 3 * RATE // 4 * 4)

    def training_step(
        self, batch: tuple[Speech, Speech, Tensor, Tensor], optimizer_index: int, step: int
    ) -> dict[str, Tensor]:
        """Distance from the tracked lips and correlation with them, summed over the members."""
        speech, voices, known, real = batch
        code = self.code(voices)
        code = known * (code + _CODE_NOISE * torch.randn_like(code))
        distance, correlation = torch.zeros(()), torch.zeros(())
        for lips in self.pad.content(speech, code):
            far, apart = self.lip_loss(lips, real)
            distance, correlation = distance + far, correlation + apart
        return {"loss": distance + 0.5 * correlation, "lips": distance.detach()}

    @torch.no_grad()
    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Write the stages; the lips' gain is the given one, times what unseen training speakers need."""
        gain = self.pad.content.gain.fill_(self.config.gain)
        if self.left_out:
            readout = self.lip_loss.readout[:, 0]
            predicted = np.mean([float((self._lips(clip) @ readout).std()) for clip in self.left_out])
            real = np.mean([(clip.beta_mouth @ readout.cpu().numpy()).std() for clip in self.left_out])
            gain.mul_(float(real / predicted))
        logger.info("gain of the lips %.2f", float(gain))
        super().export(directory, metrics)

    def _lips(self, clip: Example) -> Tensor:
        part = _clip_part(clip, 0, len(clip.motion), self.pad.config.prosody)
        code = self.code(self.speech([self.features[clip.item.key]]))
        return self.pad.content.mean(self.speech([part]), code)[0]

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Correlation of the opening with the real one, by group of speakers."""
        scores: dict[str, list[float]] = {}
        readout = self.lip_loss.readout.cpu().numpy()[:, 0]
        for clip in self.held_out:
            real = clip.beta_mouth @ readout
            if real.std() < 0.01:
                continue
            lips = self._lips(clip).cpu().numpy()
            score = best_lag_correlation(lips @ readout, real[: len(lips)])[0]
            scores.setdefault(clip.item.look_up(self.config.groups, clip.item.group), []).append(score)
        metrics = {f"val_aperture_r_{group}": float(np.mean(values)) for group, values in scores.items()}
        return {"val_aperture_r": float(np.mean(list(metrics.values()))), **metrics}


def _clip_part(clip: Example, start: int, stop: int, prosody: int) -> PadInput:
    """Speech of a clip from one frame to another, without prosody, which the content stage does not use."""
    part = slice(2 * start, 2 * stop)
    return PadInput(clip.content[part], clip.level[part], np.zeros((2 * (stop - start), prosody), np.float16))
