"""PAD over recordings of any length: who speaks, what the lips do, and in which mood."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from talkface.errors import AudioTooShort, InvalidOption
from talkface.media.audio import probe_audio, stream_audio
from talkface.performance.config import FRAME_RATE
from talkface.speech.activity import VoiceActivity
from talkface.speech.features import FEATURE_RATE, FeatureStream
from talkface.speech.mel import SAMPLE_RATE
from talkface.systems.imagineid.config import EMOTIONS
from talkface.systems.imagineid.pad import Pad, Speech
from talkface.systems.imagineid.pad_input import PadInput, as_batch, pad_input

logger = logging.getLogger(__name__)

LEAST_MOOD = 0.4
"""Seconds of voice that are enough to hear a mood."""
_IDENTITY_SECONDS = 30.0  # of voice that are listened to for the identity
_LEAST_SECONDS = 1.0  # of voice that are needed for the identity
_IDENTITY_FEATURES = 250  # in a window of PAD's first stage: five seconds
_MOOD_SECONDS = 3.0  # in a window of PAD's third stage
_VOICED = 0.5  # probability from which a moment counts as voice
_VOICED_SHARE = 0.25  # of a block that must be voice for it to count
_SEVERAL_VOICES = 0.2  # spread of the probability of a man's voice over windows that tells of several voices


@dataclass(frozen=True)
class Speaker:
    """What is inferred of a speaker from the voice: of a face that could belong to it, not of a person.

    Attributes:
        shape, shape_spread: (K,) expected alpha of the 3DMM and its standard deviation.
        semantic: (S,) identity embedding.
        male: probability of a man's voice, 0 to 1.
        male_spread: its standard deviation over the windows.
        age, age_spread: expected age and its standard deviation, years.
        seconds: of voice that were listened to.
    """

    shape: np.ndarray
    shape_spread: np.ndarray
    semantic: np.ndarray
    male: float
    male_spread: float
    age: float
    age_spread: float
    seconds: float

    @property
    def code(self) -> np.ndarray:
        """Identity code (K + S,) for PAD's later stages."""
        return np.concatenate([self.shape, self.semantic])


class SpeechAnalyzer:
    """PAD's stages over files.

    Args:
        pad: the three stages.
        stream: the content encoder's.
        device: where they run.
    """

    def __init__(self, pad: Pad, stream: FeatureStream, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self.pad, self.stream = pad.to(self.device).eval(), stream

    # -- who ---------------------------------------------------------------------------------------

    def speaker(self, path: Path) -> Speaker:
        """Who speaks, from the first half minute with a voice.

        Raises:
            AudioTooShort: there is less than a second of voice.
            UnreadableMedia: the file cannot be read.
        """
        voice = voiced(path)
        inferred = self.infer_speaker(pad_input(voice.samples, self.stream), voice.seconds)
        if inferred.male_spread > _SEVERAL_VOICES:
            logger.warning("several voices in %s: one face is imagined from all of them", path.name)
        return inferred

    @torch.inference_mode()
    def infer_speaker(self, features: PadInput, seconds: float) -> Speaker:
        """Who speaks: the mean over windows of five seconds."""
        count = max(1, len(features) // _IDENTITY_FEATURES)
        length = max(4, len(features) // count // 4 * 4)
        parts = [features.part(k * length, (k + 1) * length) for k in range(count)]
        inferred = self.pad.identity(as_batch(parts, self.device))
        male = inferred.male.sigmoid().cpu().numpy()
        age_variance = inferred.age_spread.square().mean() + inferred.age.var(unbiased=False)
        semantic = inferred.semantic.mean(0)
        return Speaker(
            shape=inferred.shape.mean(0).cpu().numpy(),
            shape_spread=inferred.shape_spread.mean(0).cpu().numpy(),
            semantic=(semantic / semantic.norm()).cpu().numpy(),
            male=float(inferred.male.mean().sigmoid()),
            male_spread=float(male.std()),
            age=10 * float(inferred.age.mean()),
            age_spread=10 * float(age_variance.sqrt()),
            seconds=seconds,
        )

    # -- what --------------------------------------------------------------------------------------

    def lips(self, speaker: Speaker, content: Tensor, level: Tensor) -> Tensor:
        """beta_mouth (1, T, M) of content (1, 2T, C) and level (1, 2T), as this speaker would say it."""
        silent = torch.zeros(*level.shape, self.pad.config.prosody, device=self.device)
        return self.pad.content.mean(Speech(content, level, silent), self._code(speaker))

    def _code(self, speaker: Speaker) -> Tensor:
        return torch.from_numpy(speaker.code).float()[None].to(self.device)

    # -- how ---------------------------------------------------------------------------------------

    def moods(self, blocks: Iterable[np.ndarray], speaker: Speaker) -> Iterator[np.ndarray]:
        """Probabilities (T, 8) of EMOTIONS at 25 fps, in stretches, of blocks of samples at 16 kHz.

        Each three seconds have a mood, between which probabilities are interpolated; where nobody speaks the
        mood stays as it was.
        """
        length = round(_MOOD_SECONDS * FRAME_RATE)
        weight = (np.arange(length)[:, None] + 0.5) / length
        last: np.ndarray | None = None
        for mood in self._block_moods(blocks, speaker):
            if last is None:
                yield np.repeat(mood[None], length // 2, 0)
            else:
                yield (1 - weight) * last + weight * mood
            last = mood
        while last is not None:
            yield np.repeat(last[None], length, 0)

    def overall_mood(self, path: Path, speaker: Speaker) -> np.ndarray:
        """Mean probabilities (8,) of EMOTIONS over the first minute of a recording."""
        found = []
        for number, mood in enumerate(self._block_moods(stream_audio(path), speaker)):
            found.append(mood)
            if number * _MOOD_SECONDS > 60:
                break
        return np.mean(found, 0) if found else _neutral()

    def _block_moods(self, blocks: Iterable[np.ndarray], speaker: Speaker) -> Iterator[np.ndarray]:
        activity, done = VoiceActivity(), 0
        mood = _neutral()
        for samples in _regular(blocks, round(_MOOD_SECONDS * SAMPLE_RATE)):
            activity.feed(samples)
            count = len(samples) * FEATURE_RATE // SAMPLE_RATE
            voiced = activity.probability(done, done + count) > _VOICED
            done += count
            if count >= FEATURE_RATE and voiced.mean() > _VOICED_SHARE:
                mood = self._mood(pad_input(samples, self.stream), speaker)
            yield mood

    @torch.inference_mode()
    def _mood(self, features: PadInput, speaker: Speaker) -> np.ndarray:
        speech = as_batch([features.part(0, len(features) // 4 * 4)], self.device)
        code = self._code(speaker)
        mouth = self.pad.content.mean(speech, code)
        logits = self.pad.emotion.logits(speech, code, mouth)[0].mean(0)
        probabilities: np.ndarray = logits.softmax(-1).cpu().numpy()
        return probabilities

    @torch.inference_mode()
    def expression(self, moods: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """beta_upper (T, U) and residual of beta_mouth (T, M) of probabilities (T, 8)."""
        upper, mouth = self.pad.emotion.express(torch.from_numpy(moods).float().to(self.device))
        return upper.cpu().numpy(), mouth.cpu().numpy()


def one_mood(name: str) -> np.ndarray:
    """Probabilities (8,) of EMOTIONS for one mood by name.

    Raises:
        InvalidOption: there is no such mood.
    """
    if name not in EMOTIONS:
        raise InvalidOption(f"emotion is {name}; choose auto, {', '.join(EMOTIONS)}")
    probabilities = np.zeros(len(EMOTIONS), np.float32)
    probabilities[EMOTIONS.index(name)] = 1
    return probabilities


def _neutral() -> np.ndarray:
    return one_mood("neutral")


@dataclass(frozen=True)
class VoicedSpeech:
    """The voiced blocks of a file: samples (N,), 16 kHz mono, and how many seconds of them are voice."""

    path: Path
    samples: np.ndarray
    seconds: float


def voiced(path: Path, least: float = _LEAST_SECONDS) -> VoicedSpeech:
    """The first half minute of a file in which somebody speaks.

    Args:
        path: the file.
        least: seconds of voice that it must hold.

    Raises:
        AudioTooShort: there is less.
        UnreadableMedia: the file cannot be read.
    """
    info = probe_audio(path)
    kept: list[np.ndarray] = []
    activity, done, seconds = VoiceActivity(), 0, 0.0
    for block in stream_audio(path, block_seconds=2.0, gain=info.gain()):
        activity.feed(block)
        count = len(block) * FEATURE_RATE // SAMPLE_RATE
        speaks = activity.probability(done, done + count) > _VOICED
        done += count
        if count and speaks.mean() > _VOICED_SHARE:
            kept.append(block)
            seconds += float(speaks.sum()) / FEATURE_RATE
        if seconds >= _IDENTITY_SECONDS:
            break
    if seconds < least:
        raise AudioTooShort(
            f"{path.name} holds {seconds:.1f} s of voice; give at least {least:g} s of speech "
            "(silence, music and noise have no speaker)"
        )
    return VoicedSpeech(path, np.concatenate(kept), seconds)


def _regular(blocks: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same samples in blocks of one size; the last one may be shorter."""
    held = np.zeros(0, np.float32)
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) >= size:
            yield held[:size]
            held = held[size:]
    if len(held):
        yield held
