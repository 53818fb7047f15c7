"""One imagined person saying a speech: a video that is computed while it is looked at or saved."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from talkface.face import topology as tp
from talkface.face.model import FaceModel
from talkface.face.motion import FaceMotion
from talkface.media.audio import AudioInfo, stream_audio
from talkface.media.decode import Frame
from talkface.media.files import check_picture_name, replacing
from talkface.media.image import save_image
from talkface.media.rate import exact_fps, frame_count
from talkface.output import ConstantRate, Take
from talkface.performance.config import FRAME_RATE
from talkface.performance.model import DiffusionPrior, MotionModel
from talkface.performance.motion import SpeechToMotion, Style, exactly
from talkface.rendering.portrait import PortraitRenderer
from talkface.rendering.refiner import Refiner
from talkface.speech.features import FeatureStream
from talkface.systems.imagineid.config import EMOTIONS
from talkface.systems.imagineid.portrait import Imagined, PortraitImaginer, PortraitOptions
from talkface.systems.imagineid.renderer import DiffusionRenderer
from talkface.systems.imagineid.voice import Speaker, SpeechAnalyzer

_MOODS_EVERY = 5  # frames between the moods that are written down


@dataclass(frozen=True)
class ImagineModels:
    """What imagines, listens, moves and draws; ``dtype`` is that of what draws."""

    imaginer: PortraitImaginer
    analyzer: SpeechAnalyzer
    face: FaceModel
    features: FeatureStream
    motion: MotionModel
    prior: DiffusionPrior
    refiner: Refiner
    device: torch.device
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class ImagineRequest:
    """What all takes share.

    Attributes:
        audio, info: the speech.
        speaker: whose face is imagined.
        mood: (8,) probabilities of EMOTIONS over all of it.
        changing: whether moods are heard as they change, instead.
        options: what is asked for beside the voice.
        size: side of the video in pixels.
        renderer: "diffusion" or "warp".
        provenance: what makes it, for the videos' metadata.
        fingerprint: tells all of this, for resuming.
        still: whether head and gaze keep still.
    """

    audio: Path
    info: AudioInfo
    speaker: Speaker
    mood: np.ndarray
    changing: bool
    options: PortraitOptions
    size: int
    renderer: str
    provenance: Mapping[str, str]
    fingerprint: str
    still: bool = False


class Imagination(Take):
    """A take: one person from the first frame to the last.

    Args:
        models: what makes it.
        request: what it is made from.
        seed: another one gives another person.
    """

    seed: int

    def __init__(self, models: ImagineModels, request: ImagineRequest, seed: int) -> None:
        self.models, self.request = models, request
        self._made: list[FaceMotion] = []
        self._moods: list[np.ndarray] = []
        rate = exact_fps(FRAME_RATE)
        self._rate = ConstantRate(frame_count(request.info.duration, rate), rate)
        super().__init__(
            self._compute,
            self._rate,
            size=(request.size, request.size),
            sounds=[request.audio],
            provenance=request.provenance,
            fingerprint=request.fingerprint,
            seed=seed,
            motion=lambda: FaceMotion.concatenate(self._made) if self._made else None,
            perform=self._perform_all,
        )

    @cached_property
    def imagined(self) -> Imagined:
        """The portrait as the LDM drew it; imagined when it is first asked for.

        Raises:
            NoFaceFound: none came out.
        """
        request = self.request
        return self.models.imaginer(request.speaker, request.mood, self.seed, request.options)

    @property
    def portrait(self) -> np.ndarray:
        """The portrait (size, size, 3) uint8 RGB."""
        return _scaled(self.imagined.image, self.request.size)

    # -- frames ------------------------------------------------------------------------------------

    def _stretches(self) -> Iterator[FaceMotion]:
        """The motion of all frames; it and the moods are written down."""
        self._made.clear()
        self._moods.clear()
        yield from exactly(self._performance(), self.frame_count, self._made)

    def _perform_all(self) -> None:
        for _ in self._stretches():
            pass

    def _compute(self, after: float | None) -> Iterator[Frame]:
        motions, done = self._stretches(), self._rate.done(after)
        if self.request.renderer == "diffusion":
            images = self._by_diffusion(motions, done)
        else:
            images = self._portrait_renderer(self.models.refiner).frames(motions, skip=done)
        yield from self._rate.shown(images, first=done)

    def _by_diffusion(self, motions: Iterator[FaceMotion], skip: int) -> Iterator[np.ndarray]:
        imaginer = self.models.imaginer
        renderer = DiffusionRenderer(
            imaginer.base,
            imaginer.adapters,
            self.imagined,
            self.models.face,
            self.models.refiner,
            self.seed,
            without=self.request.options.without,
            dtype=self.models.dtype,
        )
        for frame in renderer.frames(motions, skip):
            yield _scaled(frame, self.request.size)

    def meshes(self) -> np.ndarray:
        """Meshes (T, 478, 3), in pixels of the video, that the frames computed so far were drawn over."""
        motion = self.motion
        if motion is None:
            return np.zeros((0, len(self.imagined.points), 3), np.float32)
        return self._portrait_renderer(None).meshes(motion)[1][:, : len(self.imagined.points)]

    def _portrait_renderer(self, refiner: Refiner | None) -> PortraitRenderer:
        """Moves the portrait, as large as the video."""
        imagined = self.imagined
        scale = self.request.size / len(imagined.image)
        middle = np.array([0.5, 0.5, 0.0])  # pixels are centred on whole numbers
        points = ((imagined.points + middle) * scale - middle).astype(np.float32)
        models = self.models
        return PortraitRenderer(self.portrait, points, models.face, refiner, models.device, models.dtype)

    def _performance(self) -> Iterator[FaceMotion]:
        """Lips by PAD, head, eyes and blinks by TH-PAD's prior, and the mood's expression over them."""
        models, request = self.models, self.request
        lips = partial(models.analyzer.lips, request.speaker)
        to_motion = SpeechToMotion(
            models.features, models.motion, models.prior, models.face, models.device, lips
        )
        moods, held = self._mood_stream(), np.zeros((0, len(EMOTIONS)))
        style = Style(pose=0.0, gaze=0.0) if request.still else Style()
        for motion in to_motion(self._blocks(), self.seed, style):
            while len(held) < len(motion):
                held = np.concatenate([held, next(moods)])
            now, held = held[: len(motion)], held[len(motion) :]
            self._moods.append(now)
            upper, mouth = models.analyzer.expression(now)
            eyes = to_motion.eyes
            # A product: however wide a mood opens the eyes, a blink closes them.
            lids = eyes.openness(motion.beta_upper) * eyes.openness(upper)
            yield replace(
                motion,
                beta_upper=eyes.with_openness(motion.beta_upper + upper, lids),
                beta_mouth=motion.beta_mouth + mouth,
            )

    def _mood_stream(self) -> Iterator[np.ndarray]:
        """Probabilities (T, 8) of EMOTIONS at the video's rate, in stretches, without end."""
        if self.request.changing:
            blocks = stream_audio(self.request.audio)
            yield from self.models.analyzer.moods(blocks, self.request.speaker)
            return
        while True:
            yield np.repeat(self.request.mood[None], FRAME_RATE, 0)

    def _blocks(self) -> Iterator[np.ndarray]:
        return stream_audio(self.request.audio, gain=self.request.info.gain())

    # -- what was heard ----------------------------------------------------------------------------

    def explain(self) -> dict[str, Any]:
        """What was heard and what was made of it; emotion and content of the frames computed so far."""
        speaker, imagined = self.request.speaker, self.imagined
        moods = np.concatenate(self._moods)[: self._length()] if self._moods else np.zeros((0, len(EMOTIONS)))
        return {
            "format": "talkface.Imagination/1",
            "audio": self.request.audio.name,
            "seed": self.seed,
            "identity": {
                "seconds_of_voice": round(speaker.seconds, 2),
                "male": {"probability": round(speaker.male, 3), "spread": round(speaker.male_spread, 3)},
                "age": {"years": round(speaker.age, 1), "spread": round(speaker.age_spread, 1)},
                "shape": {"alpha": _rounded(speaker.shape), "spread": _rounded(speaker.shape_spread)},
                "semantic": _rounded(speaker.semantic),
            },
            "portrait": {
                "caption": imagined.caption,
                "ignored_words": imagined.ignored,
                "mesh_adherence": imagined.adherence,
                "tries": imagined.tries,
            },
            "emotion": {
                "names": list(EMOTIONS),
                "fps": self.fps / _MOODS_EVERY,
                "probabilities": _rounded(moods[::_MOODS_EVERY], 3),
            },
            "content": {"fps": self.fps, "opening": _rounded(self._opening(), 4)},
        }

    def save_portrait(self, path: str | Path) -> Path:
        """Write the portrait as a picture.

        Raises:
            OutputError: it cannot be written.
        """
        path = Path(path)
        check_picture_name(path)
        save_image(path, self.portrait)
        return path

    def save_explanation(self, path: str | Path) -> Path:
        """Write :meth:`explain` as JSON, of all frames.

        Raises:
            OutputError: it cannot be written.
        """
        self.perform()
        with replacing(path) as partial:
            partial.write_text(json.dumps(self.explain(), indent=1) + "\n")
        return Path(path)

    def _length(self) -> int:
        return sum(map(len, self._made))

    def _opening(self) -> np.ndarray:
        """Inner-lip opening of the mean face over inter-ocular distance, (T,)."""
        face = self.models.face
        return np.concatenate(
            [np.zeros(0), *(tp.aperture(face.mean + face.expression(m)) for m in self._made)]
        )


def _scaled(image: np.ndarray, size: int) -> np.ndarray:
    """A square picture with sides of ``size`` pixels."""
    if len(image) == size:
        return image
    method = cv2.INTER_AREA if size < len(image) else cv2.INTER_LANCZOS4
    return cv2.resize(image, (size, size), interpolation=method)


def _rounded(values: np.ndarray, digits: int = 4) -> list[Any]:
    plain: list[Any] = np.round(values.astype(float), digits).tolist()
    return plain
