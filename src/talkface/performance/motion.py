"""Speech to FaceMotion, as a stream: lips from the audio, everything else drawn from the prior.

Windows of the prior overlap by a clean prefix, so speech of any length costs the same memory.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from talkface.face.model import FaceModel
from talkface.face.motion import FaceMotion
from talkface.performance.blinks import BlinkClock
from talkface.performance.config import FRAME_RATE
from talkface.performance.lips import LipPath, SpeechToLips
from talkface.performance.model import DiffusionPrior, MotionModel
from talkface.performance.sampler import sample
from talkface.speech.features import FeatureStream

_PREFIX = 20  # frames that it is given clean
_REST = 8  # frames at rest that it is given before the first
# The prior's squared error draws calmer heads than people have: a sixth of the variance of rotation on
# training clips in the wild, over a third of the gaze's. These factors make up for some of it.
_LIVELY_HEAD, _LIVELY_GAZE = 2.1, 1.2
_CALM = (
    1.5  # standard deviation in frames of the smoothing of the head: the prior's trembling, not its gestures
)


@dataclass(frozen=True)
class Style:
    """Strengths of the parts of a performance: 1 is as trained, 0 is none."""

    pose: float = 1.0
    blink: float = 1.0
    gaze: float = 1.0
    expression: float = 1.0
    lips: float = 1.0


class SpeechToMotion:
    """Draws FaceMotion at 25 fps from speech.

    Args:
        features: the content encoder's stream.
        model: E_a, lips and decoder.
        prior: P_a2nl.
        face: the 3DMM, for what closes an eye.
        device: where the prior and E_a run.
        lips: what moves the lips instead of the model's own path; see :class:`SpeechToLips`.
    """

    def __init__(
        self,
        features: FeatureStream,
        model: MotionModel,
        prior: DiffusionPrior,
        face: FaceModel,
        device: str | torch.device,
        lips: LipPath | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.speech_to_lips = SpeechToLips(features, model, self.device, lips)
        self.model, self.prior = self.speech_to_lips.model, prior.to(self.device).eval()
        self.eyes = face.eyelids()

    def __call__(
        self,
        blocks: Iterable[np.ndarray],
        seed: int = 0,
        style: Style | None = None,
        num_inference_steps: int = 12,
        guidance_scale: float = 1.0,
    ) -> Iterator[FaceMotion]:
        """Turn blocks of samples (N,), 16 kHz mono, into consecutive stretches of motion at 25 fps.

        There are ceil(samples / 640) frames in all. The same seed gives the same motion on every device; the
        lips do not depend on it.
        """
        yield from calmed(
            self._perform_all(blocks, seed, style or Style(), num_inference_steps, guidance_scale)
        )

    def _perform_all(
        self,
        blocks: Iterable[np.ndarray],
        seed: int,
        style: Style,
        num_inference_steps: int,
        guidance_scale: float,
    ) -> Iterator[FaceMotion]:
        generator = torch.Generator().manual_seed(seed)
        clock = BlinkClock(torch.Generator().manual_seed(seed + 1), style.blink)
        prefix: tuple[Tensor, Tensor] | None = None
        for spoken in self.speech_to_lips(blocks):
            codes = self._draw(spoken.f_a, prefix, generator, num_inference_steps, guidance_scale)
            prefix = _last(prefix, codes, spoken.f_a)
            with torch.inference_mode():
                other = self.model.decode_motion(codes[None])[0].cpu().numpy()
            yield self._perform(spoken.beta_mouth, other, style, clock)

    # -- everything else -------------------------------------------------------------------------

    @torch.inference_mode()
    def _draw(
        self,
        f_a: Tensor,
        prefix: tuple[Tensor, Tensor] | None,
        generator: torch.Generator,
        steps: int,
        guidance: float,
    ) -> Tensor:
        """f_nl (T, non_lip) of a stretch, continuing the prefix."""
        width = self.model.config.non_lip
        known_codes, known_audio = prefix or (self._at_rest(), f_a[:1].expand(_REST, -1))
        audio = torch.cat([known_audio, f_a])[None]
        codes = torch.cat([known_codes, torch.zeros(len(f_a), width, device=self.device)])[None]
        known = torch.zeros(1, audio.shape[1], device=self.device)
        known[:, : len(known_codes)] = 1.0
        noise = torch.randn(1, audio.shape[1], width, generator=generator).to(self.device)
        return sample(self.prior, audio, known, codes, noise, steps, guidance)[0, len(known_codes) :]

    def _at_rest(self) -> Tensor:
        """f_nl of the portrait's own pose and look, (_REST, non_lip): every performance begins there."""
        config = self.model.config
        still = torch.zeros(1, _REST, config.motion, device=self.device)
        lips = torch.zeros(1, _REST, config.beta_mouth, device=self.device)
        _, f_ol = self.model.encode_visual(lips, self.model.normalise(still))
        return self.model.non_lip_code(f_ol)[0]

    def _perform(self, lips: np.ndarray, other: np.ndarray, style: Style, clock: BlinkClock) -> FaceMotion:
        """Split the decoder's output into FaceMotion and scale its parts."""
        upper = self.model.config.beta_upper
        beta_upper, rotation, translation, scale, gaze = np.split(other, np.cumsum([upper, 3, 2, 1]), axis=1)
        openness = 1 + style.expression * (self.eyes.openness(beta_upper) - 1)
        openness = clock(self.eyes.complete(openness))
        return FaceMotion(
            beta_mouth=style.lips * lips,
            beta_upper=self.eyes.with_openness(beta_upper, openness, style.expression),
            # Turned further than these limits, a photograph would tear.
            rotation=_soft_limit(style.pose * _LIVELY_HEAD * rotation, 0.3),
            translation=_soft_limit(style.pose * _LIVELY_HEAD * translation, 0.3),
            scale=1 + _soft_limit(style.pose * scale, 0.15),
            gaze=_soft_limit(style.gaze * _LIVELY_GAZE * gaze, 0.08),
            fps=float(FRAME_RATE),
        )


def _soft_limit(values: np.ndarray, limit: float) -> np.ndarray:
    """Values that bend towards +-limit instead of passing it."""
    return limit * np.tanh(values / limit)


def _last(prefix: tuple[Tensor, Tensor] | None, codes: Tensor, f_a: Tensor) -> tuple[Tensor, Tensor]:
    """The last frames of everything drawn so far."""
    if prefix is not None:
        codes, f_a = torch.cat([prefix[0], codes]), torch.cat([prefix[1], f_a])
    return codes[-_PREFIX:], f_a[-_PREFIX:]


def calmed(motions: Iterable[FaceMotion], deviation: float = _CALM) -> Iterator[FaceMotion]:
    """The same stream with the head's pose smoothed over time; lips, lids and gaze are left as they are."""
    reach = round(3 * deviation)
    held: FaceMotion | None = None
    ready = (
        0  # frames of ``held`` that have been given already; the last ``reach`` of them are kept for context
    )
    for motion in motions:
        held = motion if held is None else FaceMotion.concatenate([held, motion])
        if len(held) - reach > ready:
            yield _smooth_pose(held, deviation)[ready : len(held) - reach]
            drop = max(0, len(held) - 2 * reach)
            held, ready = held[drop:], len(held) - reach - drop
    if held is not None:
        yield _smooth_pose(held, deviation)[ready:]


def _smooth_pose(motion: FaceMotion, deviation: float) -> FaceMotion:
    reach = round(3 * deviation)
    smooth = {
        name: gaussian_filter1d(getattr(motion, name), deviation, axis=0, mode="nearest", radius=reach)
        for name in ("rotation", "translation", "scale")
    }
    return replace(motion, **smooth)


def resample_stream(motions: Iterable[FaceMotion], fps: float, count: int) -> Iterator[FaceMotion]:
    """The same motion at another frame rate: frames 0 to ``count`` - 1 at times k / fps; the end is held."""
    held: FaceMotion | None = None
    held_from, done = 0, 0
    for motion in motions:
        held_from = held_from if held is None else held_from + len(held) - 1
        held = motion if held is None else FaceMotion.concatenate([held[-1:], motion])
        last = (held_from + len(held) - 1) / held.fps
        stop = min(count, int(np.floor(last * fps + 1e-6)) + 1)
        if stop > done:
            yield replace(held.resample(np.arange(done, stop) / fps - held_from / held.fps), fps=fps)
            done = stop
    if held is not None and done < count:
        yield replace(held.resample(np.arange(done, count) / fps - held_from / held.fps), fps=fps)


def exactly(motions: Iterator[FaceMotion], count: int, made: list[FaceMotion]) -> Iterator[FaceMotion]:
    """Cut or hold a stream of motion to ``count`` frames, keeping a copy of what is played."""
    done = 0
    last: FaceMotion | None = None
    for motion in motions:
        part = motion[: count - done]
        if len(part):
            made.append(part)
            yield part
            done, last = done + len(part), part
    while done < count and last is not None:
        made.append(last[-1:])
        yield last[-1:]
        done += 1
