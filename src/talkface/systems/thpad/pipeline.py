"""``animate``: one portrait and speech to a talking person."""

import logging
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from talkface.errors import NoFaceFound, UnusableFace
from talkface.face import topology as tp
from talkface.face.mesh import FaceMesh
from talkface.face.motion import FaceMotion
from talkface.media.audio import AudioInfo, stream_audio
from talkface.media.decode import Frame
from talkface.media.image import load_image
from talkface.media.rate import exact_fps, frame_count
from talkface.options import face_within, number_within
from talkface.output import ConstantRate, Generation, Take, takes_of
from talkface.performance.config import FRAME_RATE
from talkface.performance.motion import SpeechToMotion, Style, exactly, resample_stream
from talkface.rendering.portrait import PortraitRenderer
from talkface.systems.pipeline import PerformanceParts, Pipeline, seeds_of, speech_info

logger = logging.getLogger(__name__)

SMALLEST_FACE = 48  # pixels from forehead to chin
WARN_YAW, REFUSE_YAW = math.radians(45), math.radians(70)


class ThpadPipeline(Pipeline[PerformanceParts]):
    """TH-PAD's compact preset: content encoder, motion model, prior, 3DMM and refiner.

    ``pipe = ThpadPipeline.from_pretrained()``; ``pipe(image, audio, seed=0)`` gives a
    :class:`~talkface.output.Generation`.
    """

    system, parts_type = "thpad", PerformanceParts
    tracking: ClassVar = {"threads": 2}
    default_dtype = "float32"

    def set_up(self) -> None:
        """The path from speech to motion."""
        self.speech_to_motion = SpeechToMotion(
            self.features, self.parts.motion, self.parts.prior, self.face, self.device
        )

    def __call__(
        self,
        image: str | Path,
        audio: str | Path,
        *,
        takes: int = 1,
        seed: int = 0,
        size: int | str = "source",
        fps: float | str = "source",
        pose: float = 1.0,
        blink: float = 1.0,
        gaze: float = 1.0,
        expression: float = 1.0,
        lips: float = 1.0,
        still: bool = False,
        face: int = 0,
    ) -> Generation[Take]:
        """Make the person in a portrait say the speech; the options are those of :func:`talkface.animate`."""
        rate = exact_fps(FRAME_RATE if fps == "source" else number_within("fps", fps, low=1.0, high=240.0))
        strengths = {"pose": pose, "blink": blink, "gaze": gaze, "expression": expression, "lips": lips}
        style = _style(strengths, still)
        side = None if size == "source" else int(number_within("size", size, low=64, high=4096))
        seeds = seeds_of(seed, takes)
        picture, info = load_image(image), speech_info(audio, rate)
        mesh = self._choose(picture, face, Path(image).name)
        picture, points = _resize(picture, mesh.points, side)
        renderer = PortraitRenderer(picture, points, self.face, self.parts.refiner, self.device, self.dtype)
        clock = ConstantRate(frame_count(info.duration, rate), rate)
        fingerprint = self.fingerprint([Path(image), Path(audio)], side, style, face, rate)

        def make(one: int) -> Take:
            performance = _Performance(self.speech_to_motion, Path(audio), info, style, one, clock)
            return Take(
                lambda after: performance.frames(renderer, after),
                clock,
                size=(picture.shape[1], picture.shape[0]),
                sounds=[Path(audio)],
                provenance=self.provenance(),
                fingerprint=fingerprint,
                seed=one,
                motion=performance.motion,
                perform=performance.whole,
            )

        return takes_of(make, seeds)

    def _choose(self, picture: np.ndarray, face: int, name: str) -> FaceMesh:
        """The face to animate by its rank in size; says so when there are others.

        Raises:
            NoFaceFound, UnusableFace, InvalidOption.
        """
        meshes = self.tracker.track_image(picture)
        if not meshes:
            raise NoFaceFound(f"no face found in {name}; give a picture with a clearly visible face")
        face_within(face, len(meshes), name)
        if len(meshes) > 1 and face == 0:
            logger.warning(
                "%d faces in %s: face 0, the largest, is used; face 1 is the next by size",
                len(meshes),
                name,
            )
        _check_usable(meshes[face], name)
        return meshes[face]


class _Performance:
    """The motion of one take, drawn as its frames are asked for."""

    def __init__(
        self,
        speech_to_motion: SpeechToMotion,
        audio: Path,
        info: AudioInfo,
        style: Style,
        seed: int,
        clock: ConstantRate,
    ) -> None:
        self._draw, self._audio, self._info = speech_to_motion, audio, info
        self._style, self._seed, self._clock = style, seed, clock
        self._made: list[FaceMotion] = []

    def motion(self) -> FaceMotion | None:
        """What has been drawn so far."""
        return FaceMotion.concatenate(self._made) if self._made else None

    def whole(self) -> None:
        """Draw all of it."""
        for _ in self._stretches():
            pass

    def frames(self, renderer: PortraitRenderer, after: float | None) -> Iterator[Frame]:
        """Frames that begin later than ``after`` seconds; the motion is always drawn from the start."""
        done = self._clock.done(after)
        yield from self._clock.shown(renderer.frames(self._stretches(), skip=done), first=done)

    def _stretches(self) -> Iterator[FaceMotion]:
        """The motion at the video's rate, as long as the video."""
        self._made.clear()
        blocks = stream_audio(self._audio, gain=self._info.gain())
        motions = self._draw(blocks, self._seed, self._style)
        rate, count = self._clock.fps, self._clock.frame_count
        if rate != Fraction(FRAME_RATE):
            motions = resample_stream(motions, float(rate), count)
        yield from exactly(motions, count, self._made)


def _style(strengths: dict[str, float], still: bool) -> Style:
    """The strengths of a performance, checked; ``still`` keeps head and gaze at rest."""
    checked = {name: number_within(name, value, low=0.0, high=3.0) for name, value in strengths.items()}
    return Style(**checked | ({"pose": 0.0, "gaze": 0.0} if still else {}))


def _resize(picture: np.ndarray, points: np.ndarray, side: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Picture and mesh with a longer side of ``side`` pixels; None keeps them.

    Faces are looked for before, so that what is refused does not depend on the size of the video.
    """
    if side is None:
        return picture, points
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    size = max(2, round(width * scale)), max(2, round(height * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LANCZOS4
    ratio = np.array([size[0] / width, size[1] / height, scale], np.float32)
    middle = np.array([0.5, 0.5, 0.0], np.float32)  # pixels are centred on whole numbers
    return cv2.resize(picture, size, interpolation=method), (points + middle) * ratio - middle


def yaw(points: np.ndarray) -> float:
    """How far a face is turned to the side, radians, from where the nose tip lies between the cheeks."""
    left, right, nose = points[234, :2], points[454, :2], points[tp.NOSE_TIP, :2]
    axis = right - left
    along = float((nose - left) @ axis / max(float(axis @ axis), 1e-6))
    return math.asin(min(1.0, abs(2 * along - 1)))


def _check_usable(mesh: FaceMesh, name: str) -> None:
    left, top, right, bottom = mesh.box
    size = max(right - left, bottom - top)
    if size < SMALLEST_FACE:
        raise UnusableFace(
            f"the face in {name} is {size:.0f} px tall; "
            f"give a picture where it has at least {SMALLEST_FACE} px"
        )
    turned = yaw(mesh.points)
    if turned > REFUSE_YAW:
        raise UnusableFace(
            f"the face in {name} is turned away about {math.degrees(turned):.0f} degrees; "
            "give a picture from the front"
        )
    if turned > WARN_YAW:
        logger.warning(
            "the face in %s is turned about %.0f degrees: expect a weaker result", name, math.degrees(turned)
        )
