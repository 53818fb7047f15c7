"""Speech to FaceMotion, as a stream of any length.

The lips follow from the audio alone. Head pose, brows and gaze are drawn from the diffusion prior, blinks
from :class:`~talkface.performance.blinks.BlinkClock`. The prior draws one stretch after the other; each
begins with the last frames of the one before, given clean.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from talkface.face.model import FaceModel
from talkface.face.motion import FaceMotion, split_deviations
from talkface.performance.blinks import BlinkClock
from talkface.performance.config import FRAME_RATE
from talkface.performance.lips import LipPath, SpeechToLips
from talkface.performance.model import DiffusionPrior, MotionModel
from talkface.performance.sampler import sample
from talkface.speech.features import FeatureStream

HEAD_GAIN, GAZE_GAIN = 2.1, 1.2
"""What the prior's head rotation and translation, and its gaze, are multiplied by.

A prior trained with a squared error draws calmer heads than people have: without these gains the variance of
rotation is a sixth of that of training clips in the wild, the variance of gaze over a third. Gains of 2.0 and
1.2 brought both to about half; the head's was set to 2.1 by hand when the portrait's warp changed.
"""
HEAD_SMOOTHING = 1.5
"""Standard deviation, in frames at 25 fps, of the Gaussian that smooths the head's pose over time.

The prior's output trembles from frame to frame; 0.06 s remove that and leave nods and turns as they are. Set
by hand. Lips, lids and gaze are not smoothed.
"""
MOST_ROTATION, MOST_TRANSLATION, MOST_SCALING, MOST_GAZE = 0.3, 0.3, 0.15, 0.08
"""Limits of the motion, approached softly: rotation in radians, translation and gaze in inter-ocular
distances, scale relative to the portrait's. A photograph that is moved further would tear."""
_PREFIX = 20  # frames of the stretch before that the prior is given clean
_REST = 8  # frames at rest that it is given before the first stretch


@dataclass(frozen=True)
class Style:
    """Strengths of the parts of a performance: 1 is natural, 0 is none.

    Attributes:
        pose: of head rotation, translation and scale.
        blink: how often the eyes blink, relative to the natural rate.
        gaze: of eye movements.
        expression: of brows, forehead and lids.
        lips: of lips and jaw.
    """

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
        face: the 3DMM; it knows which coefficients close an eye.
        device: where the prior and E_a run.
        lips: the lip path, by default the model's own; see :class:`~talkface.performance.lips.SpeechToLips`.
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
        steps: int = 12,
        guidance: float = 1.0,
    ) -> Iterator[FaceMotion]:
        """Turn blocks of samples, 16 kHz mono, into consecutive stretches of motion at 25 fps.

        There are ceil(samples / 640) frames in all. The same seed gives the same motion on every device; the
        lips do not depend on it.

        Args:
            blocks: (N,) samples each.
            seed: of everything but the lips.
            style: strengths of the parts.
            steps: of the prior's denoising.
            guidance: scale of classifier-free guidance; see :func:`~talkface.performance.sampler.sample`.
        """
        yield from smoothed(self._perform_all(blocks, seed, style or Style(), steps, guidance))

    def _perform_all(
        self, blocks: Iterable[np.ndarray], seed: int, style: Style, steps: int, guidance: float
    ) -> Iterator[FaceMotion]:
        """Stretches of motion before the smoothing."""
        generator = torch.Generator().manual_seed(seed)
        clock = BlinkClock(torch.Generator().manual_seed(seed + 1), style.blink)
        prefix: tuple[Tensor, Tensor] | None = None
        for spoken in self.speech_to_lips(blocks):
            codes = self._draw(spoken.f_a, prefix, generator, steps, guidance)
            prefix = _last(prefix, codes, spoken.f_a)
            with torch.inference_mode():
                non_lip = self.model.decode_motion(codes[None])[0].cpu().numpy()
            yield self._perform(spoken.beta_mouth, non_lip, style, clock)

    @torch.inference_mode()
    def _draw(
        self,
        f_a: Tensor,
        prefix: tuple[Tensor, Tensor] | None,
        generator: torch.Generator,
        steps: int,
        guidance: float,
    ) -> Tensor:
        """f_nl (T, non_lip) of a stretch with f_a (T, audio); it continues the prefix, a pair of both."""
        width = self.model.config.non_lip
        known_codes, known_audio = prefix or (self._at_rest(), f_a[:1].expand(_REST, -1))
        audio = torch.cat([known_audio, f_a])[None]
        codes = torch.cat([known_codes, torch.zeros(len(f_a), width, device=self.device)])[None]
        known = torch.zeros(1, audio.shape[1], device=self.device)
        known[:, : len(known_codes)] = 1.0
        noise = torch.randn(1, audio.shape[1], width, generator=generator).to(self.device)
        return sample(self.prior, audio, known, codes, noise, steps, guidance)[0, len(known_codes) :]

    def _at_rest(self) -> Tensor:
        """f_nl (_REST, non_lip) of the portrait's own pose and expression, where a performance begins."""
        config = self.model.config
        still = torch.zeros(1, _REST, config.motion, device=self.device)
        lips = torch.zeros(1, _REST, config.beta_mouth, device=self.device)
        _, f_ol = self.model.encode_visual(lips, self.model.normalise(still))
        return self.model.non_lip_code(f_ol)[0]

    def _perform(self, lips: np.ndarray, non_lip: np.ndarray, style: Style, clock: BlinkClock) -> FaceMotion:
        """FaceMotion from beta_mouth (T, M) and the decoder's output (T, motion), scaled and with blinks."""
        parts = split_deviations(non_lip)
        beta_upper = parts["beta_upper"]
        openness = 1 + style.expression * (self.eyes.openness(beta_upper) - 1)
        openness = clock(self.eyes.complete(openness))
        return FaceMotion(
            beta_mouth=style.lips * lips,
            beta_upper=self.eyes.with_openness(beta_upper, openness, style.expression),
            rotation=_soft_limit(style.pose * HEAD_GAIN * parts["rotation"], MOST_ROTATION),
            translation=_soft_limit(style.pose * HEAD_GAIN * parts["translation"], MOST_TRANSLATION),
            scale=1 + _soft_limit(style.pose * parts["scale"], MOST_SCALING),
            gaze=_soft_limit(style.gaze * GAZE_GAIN * parts["gaze"], MOST_GAZE),
            fps=float(FRAME_RATE),
        )


def _soft_limit(values: np.ndarray, limit: float) -> np.ndarray:
    """Values compressed so that they approach +-limit and never pass it."""
    limited: np.ndarray = limit * np.tanh(values / limit)
    return limited


def _last(prefix: tuple[Tensor, Tensor] | None, codes: Tensor, f_a: Tensor) -> tuple[Tensor, Tensor]:
    """The last frames, codes and f_a, of everything drawn so far."""
    if prefix is not None:
        codes, f_a = torch.cat([prefix[0], codes]), torch.cat([prefix[1], f_a])
    return codes[-_PREFIX:], f_a[-_PREFIX:]


def smoothed(motions: Iterable[FaceMotion], deviation: float = HEAD_SMOOTHING) -> Iterator[FaceMotion]:
    """The same stream with the head's pose smoothed over time; lips, lids and gaze are left as they are.

    Args:
        motions: consecutive stretches.
        deviation: of the Gaussian, in frames.
    """
    reach = round(3 * deviation)
    held: FaceMotion | None = None
    ready = 0  # frames of ``held`` that were yielded before; the last ``reach`` of them are context
    for motion in motions:
        held = motion if held is None else FaceMotion.concatenate([held, motion])
        if len(held) - reach > ready:
            yield _smooth_pose(held, deviation)[ready : len(held) - reach]
            drop = max(0, len(held) - 2 * reach)
            held, ready = held[drop:], len(held) - reach - drop
    if held is not None:
        yield _smooth_pose(held, deviation)[ready:]


def _smooth_pose(motion: FaceMotion, deviation: float) -> FaceMotion:
    """Rotation, translation and scale under a Gaussian of three deviations to either side."""
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
    """Cut a stream of motion to ``count`` frames, or hold its last frame; ``made`` gets what is yielded."""
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
