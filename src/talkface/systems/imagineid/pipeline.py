"""``imagine``: speech alone to people who could have that voice, saying it."""

import logging
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from talkface.diffusion.base import Base
from talkface.diffusion.critic import PortraitCritic
from talkface.errors import InvalidOption
from talkface.face.model import FaceModel
from talkface.hub import COMPACT, find_pretrained
from talkface.options import number_within, resolve_device, resolve_dtype
from talkface.output import Generation, fingerprint_of, takes_of
from talkface.performance.config import FRAME_RATE
from talkface.performance.model import DiffusionPrior, MotionModel
from talkface.rendering.refiner import Refiner
from talkface.speech.features import ContentEncoder, FeatureStream
from talkface.systems.imagineid.adapters import Adapters
from talkface.systems.imagineid.imagination import Imagination, Models, Script
from talkface.systems.imagineid.pad import Pad
from talkface.systems.imagineid.portrait import PARTS, PortraitImaginer, Wish
from talkface.systems.imagineid.voice import LEAST_MOOD, Listener, Speaker, one_mood, voiced
from talkface.systems.pipeline import (
    Part,
    Pipeline,
    one_of,
    parts_to_leave_out,
    seeds_of,
    speech_info,
)

logger = logging.getLogger(__name__)

RENDERERS = ("diffusion", "warp")
SIZES = (256, 512)


class ImagineIdPipeline(Pipeline):
    """ImagineID's compact preset: PAD, the face LDM with its adapters, and TH-PAD's head motion.

    ``pipe = ImagineIdPipeline.from_pretrained()``; ``pipe(audio, takes=4)`` gives a
    :class:`~talkface.output.Generation` of :class:`Imagination`.
    """

    system = "imagineid"
    parts = {  # noqa: RUF012 - the base declares it as a class variable
        "pad": Part("pad", Pad),
        "face": Part("face", FaceModel),
        "speech": Part("speech", ContentEncoder),
        "motion": Part("thpad-motion", MotionModel),
        "prior": Part("thpad-prior", DiffusionPrior),
        "refiner": Part("thpad-refiner", Refiner),
        "critic": Part("portrait-critic", PortraitCritic),
    }
    tracking = {"threads": 2}  # noqa: RUF012

    def __init__(
        self,
        base: Base,
        adapters: Adapters,
        pad: Pad,
        face: FaceModel,
        speech: ContentEncoder,
        motion: MotionModel,
        prior: DiffusionPrior,
        refiner: Refiner,
        critic: PortraitCritic,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        name: str = COMPACT,
    ) -> None:
        super().__init__(face, device, dtype, name)
        self.base, self.adapters = base, adapters
        features = FeatureStream(speech, device=self.device)
        self.listener = Listener(pad, features, self.device)
        critic = critic.to(self.device)
        imaginer = PortraitImaginer(base, adapters, pad, face, self.tracker, critic, dtype)
        self.models = Models(
            imaginer, self.listener, face, features, motion, prior, refiner, self.device, dtype
        )

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = COMPACT,
        device: str = "auto",
        dtype: str | None = None,
        base: str | Path = COMPACT,
    ) -> Self:
        """Load the shipped models, or those of a directory in their place.

        Args:
            name_or_path: "compact", or a directory with folders named as in :attr:`parts`; what it lacks is
                taken from the shipped models.
            device: "auto" takes a GPU when there is one.
            dtype: of the arithmetic of the LDM and of the refiner: "float32", "bfloat16", or "auto", the
                default, for the faster one.
            base: "compact", or a directory or hub id of another LDM: one of ours, or a Stable Diffusion 1.x;
                adapters trained for it, and its own critic if it has one, lie in the same directory.

        Raises:
            ModelUnavailable: one of them is missing or damaged.
        """
        place, ldm_place, target = str(name_or_path), str(base), resolve_device(device)
        ldm = Base.from_pretrained(ldm_place, target)
        parts = cls.load_parts(place)
        if own := find_pretrained(ldm_place, "portrait-critic"):
            parts["critic"] = PortraitCritic.from_pretrained(own)
        return cls(
            base=ldm,
            adapters=Adapters.from_pretrained(ldm, parts["pad"], ldm_place, target),
            **parts,
            device=target,
            dtype=resolve_dtype(dtype or cls.default_dtype, target),
            name=place,
        )

    @classmethod
    def _debug_extras(cls, parts: Mapping[str, Any]) -> dict[str, Any]:
        base = Base.debug()
        return {"base": base, "adapters": Adapters.debug(base)}

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

        ``without`` leaves parts out, of :data:`~talkface.systems.imagineid.portrait.PARTS`.
        """
        one_of("renderer", renderer, ("auto", *RENDERERS))
        one_of("size", size, SIZES)
        if emotion != "auto" and emotion_from is not None:
            raise InvalidOption("give either an emotion or a recording to take it from, not both")
        seeds = seeds_of(seed, takes)
        wish = Wish(
            prompt,
            None if steps is None else int(number_within("steps", steps, 1, 100)),
            None if guidance is None else number_within("guidance", guidance, 0.0, 15.0),
            without=parts_to_leave_out(without, PARTS),
        )
        if emotion != "auto":
            one_mood(emotion)  # is there such a one?
        renderer = self.choose_renderer(renderer, wish)
        if ignored := self.base.model.tokenize(prompt).ignored:
            logger.warning("words that are not known and were ignored: %s", ", ".join(ignored))
        path, info = Path(audio), speech_info(audio, FRAME_RATE)
        told = self.listener.speaker(path if identity_from == "voice" else Path(identity_from))
        files = [path, *(Path(one) for one in (identity_from, emotion_from) if one and one != "voice")]
        fingerprint = fingerprint_of(
            files, self.name, self.base.name, self.dtype, wish, emotion, size, renderer, still
        )
        script = Script(
            audio=path,
            info=info,
            speaker=told,
            mood=self._mood(path, emotion, emotion_from, told),
            changing=emotion == "auto" and emotion_from is None,
            wish=wish,
            size=size,
            renderer=renderer,
            provenance=self.provenance(Path(self.base.name).name),
            fingerprint=fingerprint,
            still=still,
        )
        return takes_of(partial(Imagination, self.models, script), seeds)

    def _mood(self, audio: Path, emotion: str, emotion_from: str | Path | None, told: Speaker) -> np.ndarray:
        """Probabilities (8,) of EMOTIONS: as asked for, or as heard in a recording."""
        if emotion_from is not None:
            return self.listener.overall_mood(voiced(Path(emotion_from), LEAST_MOOD).path, told)
        if emotion != "auto":
            return one_mood(emotion)
        return self.listener.overall_mood(audio, told)

    def choose_renderer(self, renderer: str, wish: Wish) -> str:
        """The renderer that "auto" or another name stands for.

        Raises:
            InvalidOption: the base has no adapters for it, or it has no such parts to leave out.
        """
        if renderer == "auto":
            renderer = "warp"
        if renderer == "diffusion" and not self.adapters.complete():
            raise InvalidOption(
                f"there are no adapters for the base {self.base.name}: choose renderer warp, or train them "
                "(recipes/imagineid-tia.yaml, -sca, -mba)"
            )
        parts = PARTS if renderer == "diffusion" else PARTS[:1]
        if not wish.without <= set(parts):
            raise InvalidOption(
                f"{renderer} cannot do without {', '.join(wish.without - set(parts))}; "
                f"only without {', '.join(parts)}"
            )
        return renderer
