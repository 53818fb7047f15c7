"""The lip path: speech to mouth coefficients, as a stream, with lips at rest where nobody speaks."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from talkface.performance.model import MotionModel
from talkface.speech.activity import VoiceActivity
from talkface.speech.features import FeatureStream

STEP = 100  # frames of a stretch
_CONTEXT = 25  # frames that E_a sees to either side
_QUIET = -30.0  # dB below the loudest
_BEFORE, _AFTER = 5, 4  # frames for which lips may move before and after a voice is heard


LipPath = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Spoken:
    """A stretch of up to 100 frames at 25 fps.

    Attributes:
        beta_mouth: (T, M) coefficients of lips and jaw, at rest where nobody speaks.
        gate: (T,) how open the lips may be, 0 where nobody speaks to 1.
        f_a: (T, audio) f^a.
        content: (2T, C) content features.
        level: (2T,) dB below the loudest.
    """

    beta_mouth: np.ndarray
    gate: np.ndarray
    f_a: Tensor
    content: Tensor
    level: Tensor


class SpeechToLips:
    """Moves lips to speech.

    Args:
        features: the content encoder's stream.
        model: E_a and the lip path.
        device: where they run.
        lips: beta_mouth (1, T, M) of content (1, 2T, C) and level (1, 2T), instead of the model's own.
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

    def __call__(self, blocks: Iterable[np.ndarray]) -> Iterator[Spoken]:
        """Turn blocks of samples (N,), 16 kHz mono, into stretches, ceil(samples / 640) frames in all."""
        activity = VoiceActivity()

        def overheard() -> Iterator[np.ndarray]:
            for block in blocks:
                activity.feed(block)
                yield block

        content, level, first, done = None, torch.zeros(0), 0, 0
        for stretch in self.features(overheard()):
            content = stretch.content if content is None else torch.cat([content, stretch.content])
            level = torch.cat([level, stretch.level])
            while first + len(content) // 2 - done >= STEP + _CONTEXT:
                yield self._stretch(content, level, first, done, done + STEP, activity)
                done += STEP
                drop = max(0, done - _CONTEXT - first)
                content, level, first = content[2 * drop :], level[2 * drop :], first + drop
        if content is None:
            return
        if len(content) % 2:
            content, level = torch.cat([content, content[-1:]]), torch.cat([level, level[-1:]])
        total = first + len(content) // 2
        while done < total:
            stop = min(done + STEP, total)
            yield self._stretch(content, level, first, done, stop, activity)
            done = stop

    @torch.inference_mode()
    def _stretch(
        self, content: Tensor, level: Tensor, first: int, start: int, stop: int, activity: VoiceActivity
    ) -> Spoken:
        low = max(first, start - _CONTEXT)
        part = slice(2 * (low - first), 2 * (stop + _CONTEXT - first))
        given = content[part][None].to(self.device), level[part][None].to(self.device)
        lips, f_a = self.model.speak(*given)
        if self.lips is not None:
            lips = self.lips(*given)
        heard = activity.probability(2 * low, 2 * low + len(level[part]))
        inside = slice(start - low, stop - low)
        gate = speech_gate(heard, level[part].numpy())[inside]
        own = slice(2 * (start - first), 2 * (stop - first))
        return Spoken(
            lips[0, inside].cpu().numpy() * gate[:, None], gate, f_a[0, inside], content[own], level[own]
        )


def speech_gate(probability: np.ndarray, level: np.ndarray) -> np.ndarray:
    """How open the lips may be at 25 fps, 0 to 1, (T,).

    They rest where no voice is heard and the sound is quiet, or where nothing like a voice is heard for long:
    in noise and music the detector misses speech that the content features know.

    Args:
        probability: (2T,) of a voice, at 50 Hz.
        level: (2T,) dB below the loudest.
    """
    frames = len(probability) // 2
    voice = probability[: 2 * frames].reshape(-1, 2).max(1)
    sound = level[: 2 * frames].reshape(-1, 2).max(1)
    clearly = _widened(voice > 0.35, _BEFORE, _AFTER)
    perhaps = _widened(sound > _QUIET, _BEFORE, _AFTER) & _widened(voice > 0.05, _CONTEXT, _CONTEXT)
    open_ = np.pad((clearly | perhaps).astype(np.float32), 2, mode="edge")
    return np.convolve(open_, np.ones(5) / 5, "valid").astype(np.float32)


def _widened(active: np.ndarray, before: int, after: int) -> np.ndarray:
    """True from ``before`` frames before to ``after`` frames after every frame that is, (T,)."""
    return (np.convolve(active, np.ones(before + after + 1), "full") > 0)[before : before + len(active)]
