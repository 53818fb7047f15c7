"""``fill``: a video in which a face is missing, speech and an identity to the face, in place and in sync."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from talkface.diffusion.base import Base
from talkface.errors import InvalidOption
from talkface.face.people import scan
from talkface.face.portrait import PORTRAIT_PIXELS, PORTRAIT_SIZES
from talkface.hub import COMPACT, find_pretrained
from talkface.media.image import load_image
from talkface.media.source import SourceVideo
from talkface.media.timeline import Timeline
from talkface.options import number_within
from talkface.output import Generation, takes_of
from talkface.performance.motion import SpeechToMotion
from talkface.systems.pipeline import (
    PerformanceParts,
    Pipeline,
    one_of,
    open_source,
    part,
    parts_to_leave_out,
    seeds_of,
    shaken,
    speech_info,
    stretch_of,
)
from talkface.systems.tccp.config import FACE
from talkface.systems.tccp.filling import FillComponents, Filling, FillInput
from talkface.systems.tccp.identity import PortraitIdentity
from talkface.systems.tccp.landmarks import LandmarkTransformer
from talkface.systems.tccp.masks import FaceMask, Mask, read_mask
from talkface.systems.tccp.model import MVControlNet
from talkface.systems.tccp.placing import Landmarks, PoseEstimator
from talkface.systems.tccp.renderer import FaceRenderer, Settings

IMAGINED = "imagined"
Imagine = Callable[[Path, int, int], np.ndarray]
"""Imagines a portrait (H, W, 3) uint8 RGB from speech, a seed and a size in pixels."""
ABLATIONS = ("context", "over_time", "reference", "detail", "matte", "stage2")
"""What can be left out, to see what it is worth."""
_LOOKED_AT = 48  # frames of the fast look


@dataclass(frozen=True, kw_only=True)
class TccpParts(PerformanceParts):
    """Stage 1, stage 2 over the face LDM, and TH-PAD's lips, blinks and gaze."""

    placing: LandmarkTransformer = part("tccp-landmarks", LandmarkTransformer)
    base: Base
    net: MVControlNet


class TccpPipeline(Pipeline[TccpParts]):
    """TCCP's compact preset: stage 1, stage 2 over the face LDM, and TH-PAD's lips, blinks and gaze.

    ``pipe = TccpPipeline.from_pretrained()``; ``pipe(video, audio, identity="anna.jpg")`` gives a
    :class:`~talkface.output.Generation` of :class:`Filling`.

    Attributes:
        imagine: What imagines a face from a voice, for ``identity="imagined"``; None at first.
    """

    system, parts_type = "tccp", TccpParts
    tracking: ClassVar = {"threads": 1}
    imagine: Imagine | None = None

    def set_up(self) -> None:
        """Stage 2 on its device, and the performer of lips, blinks and gaze."""
        self.parts.net.to(self.device)
        self.performer = SpeechToMotion(
            self.features, self.parts.motion, self.parts.prior, self.face, self.device
        )

    @classmethod
    def load_parts(cls, place: str, device: torch.device) -> TccpParts:
        """The parts of a preset or a directory, which may hold tccp-video/ and another face LDM, too."""
        parts = cls.parts_type.load(place, further=("face-diffusion", "tccp-video"))
        base = Base.from_pretrained(place if find_pretrained(place, "face-diffusion") else COMPACT, device)
        net = MVControlNet.from_pretrained(base.model, find_pretrained(place, "tccp-video") or "tccp-video")
        return TccpParts(**parts, base=base, net=net)

    @classmethod
    def debug_parts(cls) -> TccpParts:
        """Tiny random parts."""
        base = Base.debug()
        net = shaken(MVControlNet(FACE, base.model).eval())
        return TccpParts(**cls.parts_type.debug(), base=base, net=net)

    def __call__(
        self,
        video: str | Path,
        audio: str | Path,
        *,
        identity: str | Path | Sequence[str | Path],
        mask: str | Path = "auto",
        face: int = 0,
        margin: float = 0.25,
        sync_mode: str = "cut_off",
        landmarks: str | Path | None = None,
        takes: int = 1,
        seed: int = 0,
        steps: int = 2,
        resolution: int = PORTRAIT_PIXELS,
        start: float | str = 0.0,
        stop: float | str | None = None,
        chained: bool = False,
        without: Collection[str] = (),
    ) -> Generation[Filling]:
        """Fill the face; the options are those of :func:`talkface.fill`, and two more.

        With ``chained``, every window is drawn given the last frame of the one before, as in the paper;
        ``without`` names those of ABLATIONS that are left out.
        """
        seeds = seeds_of(seed, takes)
        one_of("resolution", resolution, PORTRAIT_SIZES)
        settings = Settings(
            steps=int(number_within("steps", steps, 1, 100)),
            dtype=self.dtype,
            chained=chained,
            without=parts_to_leave_out(without, ABLATIONS),
        )
        margin = number_within("margin", margin, 0.05, 1.0)
        given = None if landmarks is None else Landmarks.from_json(landmarks)
        source = open_source(video, start, stop)
        path, info = Path(audio), speech_info(audio, source.fps)
        timeline = Timeline(source, info.duration, sync_mode)
        found = self._mask(source, str(mask), face, margin)
        people = self._people(identity, path, resolution)
        files = [source.path, path, *_files(identity, mask, landmarks)]
        chosen = sync_mode, str(mask), face, margin, resolution, str(identity) == IMAGINED
        inputs = FillInput(
            source=source,
            timeline=timeline,
            mask=found,
            audio=path,
            info=info,
            provenance=self.provenance(),
            fingerprint=self.fingerprint(files, stretch_of(source), chosen, settings),
            given=given,
        )
        components = self._components(found.margin, settings)
        return takes_of(lambda one: Filling(components, inputs, people(one), one), seeds)

    def _components(self, margin: float, settings: Settings) -> FillComponents:
        """What fills holes that are larger than the face by a margin."""
        blind = "context" in settings.without
        return FillComponents(
            face=self.face,
            pose_estimator=lambda who: PoseEstimator(
                self.parts.placing, who.alpha, self.device, margin, blind
            ),
            performer=self.performer,
            renderer=lambda who, seed: FaceRenderer(
                self.parts.base, self.parts.net, who, self.face, self.parts.refiner, seed, settings
            ),
        )

    def _mask(self, source: SourceVideo, mask: str, face: int, margin: float) -> Mask:
        if mask != "auto":
            return read_mask(mask, source)
        persons = scan(source.sparse(_LOOKED_AT), self.tracker, self.face)
        return FaceMask(self.tracker, persons, face, margin)

    def _people(
        self, identity: str | Path | Sequence[str | Path], audio: Path, size: int
    ) -> Callable[[int], Callable[[], PortraitIdentity]]:
        """For a seed, what tells whose face it is; pictures are looked at at once."""
        if identity == IMAGINED:
            if self.imagine is None:
                raise InvalidOption("nothing imagines here: give portraits, or a pipeline with `imagine`")
            return lambda seed: lambda: self._imagined(audio, seed, size)
        paths = [identity] if isinstance(identity, str | Path) else list(identity)
        known = self.identify(paths, size)
        return lambda seed: lambda: known

    def identify(self, paths: Sequence[str | Path], size: int = PORTRAIT_PIXELS) -> PortraitIdentity:
        """Look at portraits of a person; ``size`` is of the face that is filled in.

        Raises:
            NoFaceFound, InvalidOption, UnreadableMedia.
        """
        return self._identity([(Path(path).name, load_image(path)) for path in paths], size)

    def _identity(self, given: Sequence[tuple[str, np.ndarray]], size: int) -> PortraitIdentity:
        return PortraitIdentity.of(
            given, self.tracker, self.face, self.parts.base, max(size, self.parts.base.pixels)
        )

    def _imagined(self, audio: Path, seed: int, size: int) -> PortraitIdentity:
        assert self.imagine is not None  # was looked at before
        return self._identity([("the imagined portrait", self.imagine(audio, seed, size))], size)


def _files(*given: str | Path | Sequence[str | Path] | None) -> list[Path]:
    """Those of the arguments that are files."""
    flat: list[str | Path] = []
    for one in given:
        flat += [] if one is None else [one] if isinstance(one, str | Path) else list(one)
    return [path for path in map(Path, flat) if path.is_file()]
