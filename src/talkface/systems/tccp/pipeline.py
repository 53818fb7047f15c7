"""``fill``: a video in which a face is missing, speech and an identity to the face, in place and in sync."""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from talkface.diffusion.base import COMPACT, Base
from talkface.errors import AudioTooShort, InvalidOption, ModelUnavailable
from talkface.face.model import FaceModel
from talkface.face.people import scan
from talkface.face.portrait import PIXELS
from talkface.face.tracker import FaceTracker
from talkface.hub import find_pretrained
from talkface.media.audio import probe_audio
from talkface.media.image import load_image
from talkface.media.source import SourceVideo
from talkface.media.timeline import Timeline
from talkface.options import number_within, resolve_device, resolve_dtype, whole_seed
from talkface.output.generation import Takes
from talkface.performance.model import DiffusionPrior, MotionModel
from talkface.performance.motion import SpeechToMotion
from talkface.rendering.refiner import Refiner
from talkface.speech.features import ContentEncoder, FeatureStream
from talkface.systems.tccp.filling import Filling, Hands, Scene
from talkface.systems.tccp.identity import Identity
from talkface.systems.tccp.landmarks import LandmarkTransformer
from talkface.systems.tccp.masks import FaceMask, Mask, read_mask
from talkface.systems.tccp.model import MVControlNet
from talkface.systems.tccp.placing import Landmarks, Placer
from talkface.systems.tccp.renderer import FaceRenderer, Settings

logger = logging.getLogger(__name__)

IMAGINED = "imagined"
Imagine = Callable[[Path, int, int], np.ndarray]
"""Imagines a portrait (H, W, 3) uint8 RGB from speech, a seed and a size in pixels."""
PARTS = ("context", "over_time", "reference", "detail", "matte", "stage2")
"""What can be left out, to see what it is worth."""
_LOOKED_AT = 48  # frames of the fast look
SIZES = (PIXELS, 2 * PIXELS)
"""Sides of the square in which a face is filled in, pixels."""
_MOST_TAKES = 64


class TccpPipeline:
    """TCCP's compact preset: stage 1, stage 2 over the face LDM, and TH-PAD's lips, blinks and gaze.

    Build it with :meth:`from_pretrained`; then ``pipe(video, audio, identity="anna.jpg")`` gives
    :class:`~talkface.output.generation.Takes` of :class:`Filling`.
    """

    def __init__(
        self,
        base: Base,
        net: MVControlNet,
        placing: LandmarkTransformer,
        face: FaceModel,
        performer: SpeechToMotion,
        refiner: Refiner | None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        imagine: Imagine | None = None,
    ) -> None:
        self.imagine = imagine
        self.base, self.net, self.placing = base, net, placing
        self.face, self.performer, self.refiner, self.device = face, performer, refiner, torch.device(device)
        self.dtype, self.tracker = dtype, FaceTracker(threads=1)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str = COMPACT,
        device: str = "auto",
        dtype: str = "auto",
        imagine: Imagine | None = None,
    ) -> "TccpPipeline":
        """Load the shipped models, or those of a directory in their place.

        Args:
            name_or_path: "compact", or a directory holding any of tccp-video/, tccp-landmarks/,
                imagineid-mba/, face/, speech/, thpad-motion/, thpad-prior/, thpad-refiner/, and
                face-diffusion/ with face-autoencoder/; what it lacks is taken from those shipped.
            device: "auto" takes a GPU when there is one.
            dtype: of stage 2's arithmetic: "float32", "bfloat16", or "auto" for the faster one.
            imagine: what imagines a face from a voice, for ``identity="imagined"``.

        Raises:
            ModelUnavailable: one of them is damaged, or was trained over another base; there is no such
                directory.
        """
        target = resolve_device(device)
        if name_or_path != COMPACT and not Path(name_or_path).is_dir():
            raise ModelUnavailable(f"there is no directory {name_or_path} with models")

        def place(part: str) -> str:
            return find_pretrained(name_or_path, part) or part

        own_base = find_pretrained(name_or_path, "face-diffusion")
        base = Base.from_pretrained(name_or_path if own_base else COMPACT, target)
        face = FaceModel.from_pretrained(place("face"))
        features = FeatureStream(ContentEncoder.from_pretrained(place("speech")), device=target)
        motion = MotionModel.from_pretrained(place("thpad-motion"))
        prior = DiffusionPrior.from_pretrained(place("thpad-prior"))
        return cls(
            base=base,
            net=MVControlNet.from_pretrained(base.model, place("tccp-video")).to(target),
            placing=LandmarkTransformer.from_pretrained(place("tccp-landmarks")),
            face=face,
            performer=SpeechToMotion(features, motion, prior, face, target),
            refiner=Refiner.from_pretrained(place("thpad-refiner")),
            device=target,
            dtype=resolve_dtype(dtype, target),
            imagine=imagine,
        )

    def __call__(
        self,
        video: str | Path,
        audio: str | Path,
        *,
        identity: str | Path | Sequence[str | Path] = IMAGINED,
        mask: str | Path = "auto",
        face: int = 0,
        margin: float = 0.25,
        sync_mode: str = "cut_off",
        landmarks: str | Path | None = None,
        takes: int = 1,
        seed: int = 0,
        steps: int = 2,
        size: int = PIXELS,
        start: float = 0.0,
        stop: float | None = None,
        chained: bool = False,
        without: Iterable[str] = (),
    ) -> Takes[Filling]:
        """Fill the face; the options are those of :func:`talkface.fill`, and two more.

        With ``chained``, every window is drawn given the last frame of the one before, as in the paper;
        ``without`` names those of PARTS that are left out.
        """
        takes = int(number_within("takes", takes, 1, _MOST_TAKES))
        settings = Settings(
            steps=int(number_within("steps", steps, 1, 100)),
            dtype=self.dtype,
            chained=chained,
            without=frozenset(without),
        )
        if not settings.without <= set(PARTS):
            raise InvalidOption(f"there are only {', '.join(PARTS)} to leave out")
        seeds = [whole_seed(seed + take) for take in range(takes)]
        margin = number_within("margin", margin, 0.05, 1.0)
        given = None if landmarks is None else Landmarks.from_json(landmarks)
        source = SourceVideo(video, start, stop)
        for note in source.notes:
            logger.warning("%s: %s", source.path.name, note)
        path, info = Path(audio), probe_audio(audio)
        if info.duration * float(source.fps) < 1:
            raise AudioTooShort(f"{path.name} lasts {info.duration:.3f} s, less than one frame")
        timeline = Timeline(source, info.duration, sync_mode)
        found = self._mask(source, str(mask), face, margin)
        scene = Scene(source, timeline, found, path, info, given)
        if size not in SIZES:
            raise InvalidOption(f"size is {size}; choose {SIZES[0]} or {SIZES[1]}")
        people = self._people(identity, path, size)
        hands = Hands(
            face=self.face,
            placer=lambda who: Placer(
                self.placing, who.alpha, self.device, found.margin, "context" in settings.without
            ),
            performer=self.performer,
            renderer=lambda who, one: FaceRenderer(
                self.base, self.net, who, self.face, self.refiner, one, settings
            ),
        )
        return Takes([Filling(hands, scene, people(one), one) for one in seeds])

    def _mask(self, source: SourceVideo, mask: str, face: int, margin: float) -> Mask:
        if mask != "auto":
            return read_mask(mask, source)
        cast = scan(source.sparse(_LOOKED_AT), self.tracker, self.face)
        return FaceMask(self.tracker, cast, face, margin)

    def _people(
        self, identity: str | Path | Sequence[str | Path], audio: Path, size: int
    ) -> Callable[[int], Callable[[], Identity]]:
        """For a seed, what tells whose face it is; pictures are looked at at once."""
        if identity == IMAGINED:
            if self.imagine is None:
                raise InvalidOption("nothing imagines here: give portraits, or a pipeline with `imagine`")
            return lambda seed: lambda: self._imagined(audio, seed, size)
        paths = [identity] if isinstance(identity, str | Path) else list(identity)
        known = self.identify(paths, size)
        return lambda seed: lambda: known

    def identify(self, paths: Sequence[str | Path], size: int = PIXELS) -> Identity:
        """Look at portraits of a person; ``size`` is of the face that is filled in.

        Raises:
            NoFaceFound, InvalidOption, UnreadableMedia.
        """
        return self._identity([(Path(path).name, load_image(path)) for path in paths], size)

    def _identity(self, given: Sequence[tuple[str, np.ndarray]], size: int) -> Identity:
        return Identity.of(given, self.tracker, self.face, self.base, max(size, self.base.pixels))

    def _imagined(self, audio: Path, seed: int, size: int) -> Identity:
        assert self.imagine is not None  # was looked at before
        return self._identity([("the imagined portrait", self.imagine(audio, seed, size))], size)
