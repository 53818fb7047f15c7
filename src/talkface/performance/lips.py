"""The lip path: speech to mouth coefficients, as a stream, with lips at rest where nobody speaks."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from talkface.performance.model import MotionModel
from talkface.speech.activity import VoiceActivity
from talkface.speech.features import FeatureStream

STRETCH_FRAMES = 100
_CONTEXT = 25  # frames that E_a sees to either side
_QUIET = -30.0  # dB relative to the loudest sound
_BEFORE, _AFTER = 5, 4  # frames for which lips may move before and after a voice is heard
_VOICE, _PERHAPS = 0.35, 0.05  # probabilities from which sound is, and may be, a voice


LipPath = Callable[[Tensor, Tensor], Tensor]
"""beta_mouth (1, T, M) from content features (1, 2T, C) and level (1, 2T)."""


@dataclass(frozen=True)
class SpokenLips:
    """What the lips do over a stretch of up to STRETCH_FRAMES frames at 25 fps, and the speech behind it.

    Attributes:
        beta_mouth: (T, M) coefficients of lips and jaw, at rest where nobody speaks.
        gate: (T,) the voice gate: 0 where nobody speaks, 1 where somebody does; it scales beta_mouth.
        f_a: (T, audio) audio code f^a.
        content: (2T, C) content features.
        level: (2T,) dB relative to the loudest sound, 0 or less.
    """

    beta_mouth: np.ndarray
    gate: np.ndarray
    f_a: Tensor
    content: Tensor
    level: Tensor


class SpeechToLips:
    """Turns speech into lip motion.

    Args:
        features: the content encoder's stream.
        model: E_a and the lip path.
        device: where they run.
        lips: the lip path; by default the model's own.
    """

    def __init__(
        self,
        features: FeatureStream,
        model: MotionModel,
        device: str | torch.device,
        lips: LipPath | None = None,
    ) -> None:
        self.features, self.device = features, torch.device(device)
        self.model, self.lips = model.to(self.device).eval(), lips

    def __call__(self, blocks: Iterable[np.ndarray]) -> Iterator[SpokenLips]:
        """Turn blocks of samples (N,), 16 kHz mono, into stretches: ceil(samples / 640) frames in all.

        Yields:
            Consecutive stretches; what they hold does not depend on how the samples are cut into blocks.
        """
        activity = VoiceActivity()

        def overheard() -> Iterator[np.ndarray]:
            for block in blocks:
                activity.feed(block)
                yield block

        content, level, first, done = None, torch.zeros(0), 0, 0
        for stretch in self.features(overheard()):
            content = stretch.content if content is None else torch.cat([content, stretch.content])
            level = torch.cat([level, stretch.level])
            while first + len(content) // 2 - done >= STRETCH_FRAMES + _CONTEXT:
                yield self._stretch(content, level, first, done, done + STRETCH_FRAMES, activity)
                done += STRETCH_FRAMES
                drop = max(0, done - _CONTEXT - first)
                content, level, first = content[2 * drop :], level[2 * drop :], first + drop
        if content is None:
            return
        if len(content) % 2:
            content, level = torch.cat([content, content[-1:]]), torch.cat([level, level[-1:]])
        total = first + len(content) // 2
        while done < total:
            stop = min(done + STRETCH_FRAMES, total)
            yield self._stretch(content, level, first, done, stop, activity)
            done = stop

    @torch.inference_mode()
    def _stretch(
        self, content: Tensor, level: Tensor, first: int, start: int, stop: int, activity: VoiceActivity
    ) -> SpokenLips:
        """Frames ``start`` to ``stop`` of features that begin at frame ``first``."""
        low = max(first, start - _CONTEXT)
        part = slice(2 * (low - first), 2 * (stop + _CONTEXT - first))
        given = content[part][None].to(self.device), level[part][None].to(self.device)
        lips, f_a = self.model.speak(*given)
        if self.lips is not None:
            lips = self.lips(*given)
        voice = activity.probability(2 * low, 2 * low + len(level[part]))
        inside = slice(start - low, stop - low)
        gate = speech_gate(voice, level[part].numpy())[inside]
        own = slice(2 * (start - first), 2 * (stop - first))
        beta_mouth = lips[0, inside].cpu().numpy() * gate[:, None]
        return SpokenLips(beta_mouth, gate, f_a[0, inside], content[own], level[own])


def speech_gate(probability: np.ndarray, level: np.ndarray) -> np.ndarray:
    """The voice gate (T,) at 25 fps, 0 where the lips rest and 1 where they move, with soft edges.

    Lips move around frames with a clear voice, and also where the sound is loud and anything like a voice is
    heard within a second: in noise and music the detector misses speech that the content features recognise.

    Args:
        probability: (2T,) of a voice, at 50 Hz.
        level: (2T,) dB relative to the loudest sound.
    """
    frames = len(probability) // 2
    voice = probability[: 2 * frames].reshape(-1, 2).max(1)
    sound = level[: 2 * frames].reshape(-1, 2).max(1)
    clearly = _widened(voice > _VOICE, _BEFORE, _AFTER)
    perhaps = _widened(sound > _QUIET, _BEFORE, _AFTER) & _widened(voice > _PERHAPS, _CONTEXT, _CONTEXT)
    open_ = np.pad((clearly | perhaps).astype(np.float32), 2, mode="edge")
    return np.convolve(open_, np.ones(5) / 5, "valid").astype(np.float32)


def _widened(active: np.ndarray, before: int, after: int) -> np.ndarray:
    """True (T,) from ``before`` frames before an active frame to ``after`` frames behind it."""
    near: np.ndarray = np.convolve(active, np.ones(before + after + 1), "full") > 0
    return near[before : before + len(active)]
