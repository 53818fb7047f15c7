"""``animate``: one portrait and speech to a talking person."""

import logging
import math
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from talkface._version import __version__
from talkface.errors import AudioTooShort, InvalidOption, NoFaceFound, UnusableFace
from talkface.face import topology as tp
from talkface.face.model import FaceModel
from talkface.face.motion import FaceMotion
from talkface.face.tracker import FaceMesh, FaceTracker
from talkface.media.audio import probe_audio, stream_audio
from talkface.media.image import load_image
from talkface.media.video import exact_fps, frame_count
from talkface.options import number_within, resolve_device, whole_seed
from talkface.output.generation import Generation
from talkface.performance.config import FRAME_RATE
from talkface.performance.model import DiffusionPrior, MotionModel
from talkface.performance.motion import SpeechToMotion, Style, exactly, resample_stream
from talkface.rendering.portrait import PortraitRenderer
from talkface.rendering.refiner import Refiner
from talkface.speech.features import ContentEncoder, FeatureStream

logger = logging.getLogger(__name__)

SMALLEST_FACE = 48  # pixels from forehead to chin
WARN_YAW, REFUSE_YAW = math.radians(45), math.radians(70)


class ThpadPipeline:
    """TH-PAD's compact preset: content encoder, motion model, prior, 3DMM and refiner.

    Build it with :meth:`from_pretrained`; then ``pipe(image=..., audio=..., seed=0)`` gives a
    :class:`~talkface.output.generation.Generation`.
    """

    def __init__(
        self,
        face: FaceModel,
        features: FeatureStream,
        motion: MotionModel,
        prior: DiffusionPrior,
        refiner: Refiner | None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.face, self.refiner = face, refiner
        self.speech_to_motion = SpeechToMotion(features, motion, prior, face, self.device)
        self._tracker: FaceTracker | None = None

    @classmethod
    def from_pretrained(cls, name_or_path: str = "compact", device: str = "auto") -> "ThpadPipeline":
        """Load the shipped models, or those of a directory with the same folders.

        Args:
            name_or_path: "compact", or a directory holding face/, speech/, thpad-motion/, thpad-prior/ and
                thpad-refiner/.
            device: "auto" takes a GPU when there is one.
        """
        target = resolve_device(device)
        place = (
            (lambda part: part)
            if name_or_path == "compact"
            else (lambda part: str(Path(name_or_path) / part))
        )

        return cls(
            face=FaceModel.from_pretrained(place("face")),
            features=FeatureStream(ContentEncoder.from_pretrained(place("speech")), device=target),
            motion=MotionModel.from_pretrained(place("thpad-motion")),
            prior=DiffusionPrior.from_pretrained(place("thpad-prior")),
            refiner=Refiner.from_pretrained(place("thpad-refiner")),
            device=target,
        )

    @property
    def tracker(self) -> FaceTracker:
        """The face tracker, made when it is first needed."""
        if self._tracker is None:
            self._tracker = FaceTracker(threads=2)
        return self._tracker

    def __call__(
        self,
        image: str | Path,
        audio: str | Path,
        *,
        seed: int = 0,
        size: int | str = "source",
        fps: float | str = "source",
        pose: float = 1.0,
        blink: float = 1.0,
        gaze: float = 1.0,
        expression: float = 1.0,
        lips: float = 1.0,
        still: bool = False,
        face: int | None = None,
    ) -> Generation:
        """Make the person in a portrait say the speech; the options are those of :func:`talkface.animate`."""
        rate = exact_fps(FRAME_RATE if fps == "source" else number_within("fps", fps, low=1.0, high=240.0))
        seed = whole_seed(seed)
        strengths = {"pose": pose, "blink": blink, "gaze": gaze, "expression": expression, "lips": lips}
        style = Style(
            **{name: number_within(name, value, low=0.0, high=3.0) for name, value in strengths.items()}
        )
        if still:
            style = Style(pose=0.0, blink=style.blink, gaze=0.0, expression=style.expression, lips=style.lips)
        side = None if size == "source" else int(number_within("size", size, low=64, high=4096))
        picture = load_image(image)
        info = probe_audio(audio)
        count = frame_count(info.duration, rate)
        if count < 1:
            raise AudioTooShort(
                f"{Path(audio).name} lasts {info.duration:.3f} s, less than one frame; give longer speech"
            )
        mesh = self._choose(picture, face, Path(image).name)
        picture, points = _resize(picture, mesh.points, side)
        renderer = PortraitRenderer(picture, points, self.face, self.refiner, self.device)
        made: list[FaceMotion] = []

        def frames() -> Iterator[np.ndarray]:
            made.clear()
            blocks = stream_audio(audio, gain=info.gain())
            motions = self.speech_to_motion(blocks, seed, style)
            if rate != FRAME_RATE:
                motions = resample_stream(motions, float(rate), count)
            yield from renderer.frames(exactly(motions, count, made))

        height, width = picture.shape[:2]
        return Generation(
            frames,
            frame_count=count,
            fps=rate,
            size=(width, height),
            audio=Path(audio),
            seed=seed,
            provenance={
                "synthetic": "true",
                "software": f"talkface {__version__}",
                "model": "thpad-compact",
            },
            motion=lambda: FaceMotion.concatenate(made) if made else None,
        )

    def _choose(self, picture: np.ndarray, face: int | None, name: str) -> FaceMesh:
        """The face to animate; says so when it had to choose.

        Raises:
            NoFaceFound, UnusableFace, InvalidOption.
        """
        meshes = self.tracker.track_image(picture)
        if not meshes:
            raise NoFaceFound(f"no face found in {name}; give a picture with a clearly visible face")
        from_left = sorted(meshes, key=lambda mesh: mesh.box[0])
        if face is None:
            if len(meshes) > 1:
                number = from_left.index(meshes[0])
                logger.warning(
                    "%d faces in %s: the largest is used (--face %d, counted from the left)",
                    len(meshes),
                    name,
                    number,
                )
            mesh = meshes[0]
        elif 0 <= face < len(meshes):
            mesh = from_left[face]
        else:
            raise InvalidOption(
                f"face is {face}, but {name} shows {len(meshes)}; choose 0 to {len(meshes) - 1}"
            )
        _check_usable(mesh, name)
        return mesh


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
