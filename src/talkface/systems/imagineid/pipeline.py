"""``imagine``: speech alone to people who could have that voice, saying it."""

from collections.abc import Iterable
from pathlib import Path

import torch

from talkface.diffusion.base import COMPACT, Base
from talkface.diffusion.critic import PortraitCritic
from talkface.errors import AudioTooShort, InvalidOption
from talkface.face.model import FaceModel
from talkface.face.tracker import FaceTracker
from talkface.hub import find_pretrained
from talkface.media.audio import probe_audio
from talkface.media.video import exact_fps, frame_count
from talkface.options import number_within, resolve_device, resolve_dtype, whole_seed
from talkface.output.generation import Takes
from talkface.performance.config import FRAME_RATE
from talkface.performance.model import DiffusionPrior, MotionModel
from talkface.rendering.refiner import Refiner
from talkface.speech.features import ContentEncoder, FeatureStream
from talkface.systems.imagineid.adapters import Adapters
from talkface.systems.imagineid.imagination import Imagination, Models, Script
from talkface.systems.imagineid.pad import Pad
from talkface.systems.imagineid.portrait import PARTS, PortraitImaginer, Wish
from talkface.systems.imagineid.voice import LEAST_MOOD, Listener, one_mood, voiced

RENDERERS = ("diffusion", "warp")
SIZES = (256, 512)
_MOST_TAKES = 64


class ImaginePipeline:
    """ImagineID's compact preset: PAD, the face LDM with its adapters, and TH-PAD's head motion.

    Build it with :meth:`from_pretrained`; then ``pipe(audio=..., takes=4)`` gives
    :class:`~talkface.output.generation.Takes` of :class:`Imagination`.
    """

    def __init__(
        self,
        base: Base,
        adapters: Adapters,
        pad: Pad,
        face: FaceModel,
        features: FeatureStream,
        motion: MotionModel,
        prior: DiffusionPrior,
        refiner: Refiner,
        critic: PortraitCritic,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.base, self.adapters = base, adapters
        self.listener = Listener(pad, features, device)
        tracker = FaceTracker(threads=2)
        imaginer = PortraitImaginer(base, adapters, pad, face, tracker, critic.to(device), dtype)
        self.models = Models(
            imaginer, self.listener, face, features, motion, prior, refiner, torch.device(device), dtype
        )

    @classmethod
    def from_pretrained(
        cls, name_or_path: str = COMPACT, base: str = COMPACT, device: str = "auto", dtype: str = "auto"
    ) -> "ImaginePipeline":
        """Load the shipped models, or those of a directory with the same folders.

        Args:
            name_or_path: "compact", or a directory holding pad/, face/, speech/, thpad-motion/,
                thpad-prior/ and thpad-refiner/.
            base: "compact", or a directory or hub id of another LDM: one of ours, or a Stable Diffusion 1.x;
                adapters trained for it, and its own critic if it has one, lie in the same directory.
            device: "auto" takes a GPU when there is one.
            dtype: of the arithmetic of the LDM and of TH-PAD's refiner: "float32", "bfloat16", or "auto" for
                the faster one.

        Raises:
            ModelUnavailable: one of them is missing or damaged.
        """
        target = resolve_device(device)

        def place(part: str) -> str:
            return part if name_or_path == COMPACT else str(Path(name_or_path).resolve() / part)

        ldm, pad = Base.from_pretrained(base, target), Pad.from_pretrained(place("pad"))
        return cls(
            base=ldm,
            adapters=Adapters.from_pretrained(ldm, pad, base, target),
            pad=pad,
            face=FaceModel.from_pretrained(place("face")),
            features=FeatureStream(ContentEncoder.from_pretrained(place("speech")), device=target),
            motion=MotionModel.from_pretrained(place("thpad-motion")),
            prior=DiffusionPrior.from_pretrained(place("thpad-prior")),
            refiner=Refiner.from_pretrained(place("thpad-refiner")),
            critic=PortraitCritic.from_pretrained(
                find_pretrained(base, "portrait-critic") or "portrait-critic"
            ),
            device=target,
            dtype=resolve_dtype(dtype, target),
        )

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
        without: Iterable[str] = (),
    ) -> Takes[Imagination]:
        """Imagine people who say the speech; the options are those of :func:`talkface.imagine`.

        ``without`` leaves parts out, of :data:`~talkface.systems.imagineid.portrait.PARTS`.
        """
        if renderer not in ("auto", *RENDERERS):
            raise InvalidOption(f"renderer is {renderer}; choose auto, {' or '.join(RENDERERS)}")
        if size not in SIZES:
            raise InvalidOption(f"size is {size}; choose {SIZES[0]} or {SIZES[1]}")
        if emotion != "auto" and emotion_from is not None:
            raise InvalidOption("give either an emotion or a recording to take it from, not both")
        takes = int(number_within("takes", takes, 1, _MOST_TAKES))
        wish = Wish(
            prompt,
            None if steps is None else int(number_within("steps", steps, 1, 100)),
            None if guidance is None else number_within("guidance", guidance, 0.0, 15.0),
            without=frozenset(without),
        )
        chosen = one_mood(emotion) if emotion != "auto" else None
        seeds = [whole_seed(seed + take) for take in range(takes)]
        renderer = self.choose_renderer(renderer, wish)
        path, info = Path(audio), probe_audio(audio)
        if frame_count(info.duration, exact_fps(FRAME_RATE)) < 1:
            raise AudioTooShort(f"{path.name} lasts {info.duration:.3f} s; give at least a second of speech")
        told = self.listener.speaker(path if identity_from == "voice" else Path(identity_from))
        if emotion_from is not None:
            chosen = self.listener.overall_mood(voiced(Path(emotion_from), LEAST_MOOD).path, told)
        if chosen is None:
            chosen = self.listener.overall_mood(path, told)
        changing = emotion == "auto" and emotion_from is None
        script = Script(path, info, told, chosen, changing, wish, size, renderer, still)
        return Takes([Imagination(self.models, script, one) for one in seeds])

    def choose_renderer(self, renderer: str, wish: Wish) -> str:
        """The renderer that "auto" or another name stands for.

        Raises:
            InvalidOption: the base has no adapters for it, or it has no such parts to leave out.
        """
        if renderer == "auto":
            renderer = "warp"
        if renderer == "diffusion" and not self.adapters.complete():
            raise InvalidOption(
                f"there are no adapters for the base {self.base.name}: choose --renderer warp, or train them "
                "(recipes/imagineid-tia.yaml, -sca, -mba)"
            )
        parts = PARTS if renderer == "diffusion" else PARTS[:1]
        if not wish.without <= set(parts):
            raise InvalidOption(
                f"{renderer} cannot do without {', '.join(wish.without - set(parts))}; "
                f"only without {', '.join(parts)}"
            )
        return renderer
