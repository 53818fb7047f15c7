"""``imagine``: speech alone to people who could have that voice, saying it."""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch

from talkface.diffusion.base import Base
from talkface.diffusion.critic import PortraitCritic
from talkface.errors import InvalidOption
from talkface.face.portrait import PORTRAIT_SIZES
from talkface.hub import COMPACT, find_pretrained
from talkface.options import number_within, resolve_device
from talkface.output import Generation, takes_of
from talkface.performance.config import FRAME_RATE
from talkface.systems.imagineid.adapters import Adapters
from talkface.systems.imagineid.imagination import Imagination, ImagineModels, ImagineRequest
from talkface.systems.imagineid.pad import Pad
from talkface.systems.imagineid.portrait import ABLATIONS, PortraitImaginer, PortraitOptions
from talkface.systems.imagineid.voice import LEAST_MOOD, Speaker, SpeechAnalyzer, one_mood, voiced
from talkface.systems.pipeline import (
    PerformanceParts,
    Pipeline,
    one_of,
    part,
    parts_to_leave_out,
    seeds_of,
    speech_info,
)

logger = logging.getLogger(__name__)

RENDERERS = ("diffusion", "warp")


@dataclass(frozen=True, kw_only=True)
class ImagineIdParts(PerformanceParts):
    """PAD, the face LDM with its adapters, the critic of portraits, and TH-PAD's head motion."""

    pad: Pad = part("pad", Pad)
    critic: PortraitCritic = part("portrait-critic", PortraitCritic)
    base: Base
    adapters: Adapters


class ImagineIdPipeline(Pipeline[ImagineIdParts]):
    """ImagineID's compact preset: PAD, the face LDM with its adapters, and TH-PAD's head motion.

    ``pipe = ImagineIdPipeline.from_pretrained()``; ``pipe(audio, takes=4)`` gives a
    :class:`~talkface.output.Generation` of :class:`Imagination`.
    """

    system, parts_type = "imagineid", ImagineIdParts
    tracking: ClassVar = {"threads": 2}

    def set_up(self) -> None:
        """The analyzer, and what imagines and draws."""
        parts = self.parts
        self.analyzer = SpeechAnalyzer(parts.pad, self.features, self.device)
        critic = parts.critic.to(self.device)
        imaginer = PortraitImaginer(
            parts.base, parts.adapters, parts.pad, self.face, self.tracker, critic, self.dtype
        )
        self.models = ImagineModels(
            imaginer=imaginer,
            analyzer=self.analyzer,
            face=self.face,
            features=self.features,
            motion=parts.motion,
            prior=parts.prior,
            refiner=parts.refiner,
            device=self.device,
            dtype=self.dtype,
        )

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = COMPACT,
        device: str = "auto",
        dtype: str | None = None,
        base: str | Path | None = None,
    ) -> Self:
        """Load the shipped models, or others in their place, as :meth:`Pipeline.from_pretrained` does.

        ``base`` is "compact", or a directory or hub id of another LDM: one of ours, or a Stable Diffusion
        1.x; adapters trained for it, and its own critic if it has one, lie in the same directory. By default
        it is the directory of the other models if that holds face-diffusion/, else "compact".
        """
        place, target = str(name_or_path), resolve_device(device)
        own = place if find_pretrained(place, "face-diffusion") else COMPACT
        parts = cls.load_parts(place, target, str(base or own))
        return cls(parts, target, cls.dtype_of(dtype, target), place)

    @property
    def origins(self) -> list[str]:
        """Where the networks came from, and the LDM."""
        return [self.name, self.parts.base.name]

    @classmethod
    def load_parts(cls, place: str, device: torch.device, base: str = COMPACT) -> ImagineIdParts:
        """The parts of a preset or a directory, over a base."""
        further = ("face-diffusion", "imagineid-tia", "imagineid-sca", "imagineid-mba")
        parts, ldm = cls.parts_type.load(place, further), Base.from_pretrained(base, device)
        if own := find_pretrained(base, "portrait-critic"):
            parts["critic"] = PortraitCritic.from_pretrained(own)
        places = (base,) if place == COMPACT else (place, base)
        adapters = Adapters.from_pretrained(ldm, parts["pad"], places, device)
        return ImagineIdParts(**parts, base=ldm, adapters=adapters)

    @classmethod
    def debug_parts(cls) -> ImagineIdParts:
        """Tiny random parts."""
        parts, base = cls.parts_type.debug(), Base.debug()
        return ImagineIdParts(**parts, base=base, adapters=Adapters.debug(base, parts["pad"]))

    @classmethod
    def debug(cls, device: str = "cpu", seed: int = 0) -> Self:
        """A pipeline of tiny random networks; what they draw is taken for the face asked for."""
        pipeline = super().debug(device, seed)
        pipeline.models.imaginer.trusting = True
        return pipeline

    def __call__(
        self,
        audio: str | Path,
        *,
        takes: int = 1,
        seed: int = 0,
        prompt: str = "",
        emotion: str = "auto",
        identity_from: str | Path = "voice",
        emotion_from: str | Path | None = None,
        size: int = 256,
        steps: int | None = None,
        guidance: float | None = None,
        renderer: str = "auto",
        still: bool = False,
        without: Collection[str] = (),
    ) -> Generation[Imagination]:
        """Imagine people who say the speech; the options are those of :func:`talkface.imagine`.

        ``without`` leaves parts out, of :data:`~talkface.systems.imagineid.portrait.ABLATIONS`.
        """
        one_of("renderer", renderer, ("auto", *RENDERERS))
        one_of("size", size, PORTRAIT_SIZES)
        if emotion != "auto" and emotion_from is not None:
            raise InvalidOption("give either an emotion or a recording to take it from, not both")
        seeds = seeds_of(seed, takes)
        options = PortraitOptions(
            prompt,
            None if steps is None else int(number_within("steps", steps, 1, 100)),
            None if guidance is None else number_within("guidance", guidance, 0.0, 15.0),
            without=parts_to_leave_out(without, ABLATIONS),
        )
        if emotion != "auto":
            one_mood(emotion)  # refuses names of moods that do not exist, before anything is computed
        renderer = self.choose_renderer(renderer, options)
        if ignored := self.parts.base.model.tokenize(prompt).ignored:
            logger.warning("words that are not known and were ignored: %s", ", ".join(ignored))
        path, info = Path(audio), speech_info(audio, FRAME_RATE)
        told = self.analyzer.speaker(path if identity_from == "voice" else Path(identity_from))
        files = [path, *(Path(one) for one in (identity_from, emotion_from) if one and one != "voice")]
        fingerprint = self.fingerprint(files, options, emotion, size, renderer, still)
        request = ImagineRequest(
            audio=path,
            info=info,
            speaker=told,
            mood=self._mood(path, emotion, emotion_from, told),
            changing=emotion == "auto" and emotion_from is None,
            options=options,
            size=size,
            renderer=renderer,
            provenance=self.provenance(),
            fingerprint=fingerprint,
            still=still,
        )
        return takes_of(partial(Imagination, self.models, request), seeds)

    def _mood(self, audio: Path, emotion: str, emotion_from: str | Path | None, told: Speaker) -> np.ndarray:
        """Probabilities (8,) of EMOTIONS: as asked for, or as heard in a recording."""
        if emotion_from is not None:
            return self.analyzer.overall_mood(voiced(Path(emotion_from), LEAST_MOOD).path, told)
        if emotion != "auto":
            return one_mood(emotion)
        return self.analyzer.overall_mood(audio, told)

    def choose_renderer(self, renderer: str, options: PortraitOptions) -> str:
        """The renderer that "auto" or another name stands for.

        Raises:
            InvalidOption: the base has no adapters for it, or it has no such parts to leave out.
        """
        if renderer == "auto":
            renderer = "warp"
        if renderer == "diffusion" and not self.parts.adapters.complete():
            raise InvalidOption(
                f"there are no adapters for the base {self.parts.base.name}: choose renderer warp, or train "
                "them (recipes/imagineid-tia.yaml, -sca, -mba)"
            )
        parts = ABLATIONS if renderer == "diffusion" else ABLATIONS[:3]
        if unused := options.without - set(parts):
            raise InvalidOption(
                f"the renderer {renderer} does not use {', '.join(sorted(unused))}; "
                f"what can be left out with it: {', '.join(parts)}"
            )
        return renderer
