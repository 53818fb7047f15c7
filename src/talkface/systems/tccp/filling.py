"""A video whose missing face is filled while it is looked at or saved."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from talkface.errors import InvalidOption, NoFaceFound
from talkface.face.model import FaceModel, Pose
from talkface.face.motion import FaceMotion
from talkface.media.audio import AudioInfo, stream_audio
from talkface.media.decode import TOLERANCE, Frame
from talkface.media.files import replacing
from talkface.media.prefetch import prefetched
from talkface.media.source import SourceVideo
from talkface.media.timeline import Timeline
from talkface.output import Take
from talkface.performance.config import FRAME_RATE, SPEECH_WINDOW
from talkface.performance.lip_track import LipTrack
from talkface.performance.motion import SpeechToMotion
from talkface.systems.tccp.identity import Identity
from talkface.systems.tccp.masks import Holed, Mask
from talkface.systems.tccp.placing import Landmarks, Outlines, Placer, calmed, fitted
from talkface.systems.tccp.renderer import FaceRenderer, Job
from talkface.systems.tccp.windows import AROUND


@dataclass(frozen=True)
class Scene:
    """What a face is filled into, and what it says.

    Attributes:
        source: the video.
        timeline: its frames beside the speech.
        mask: where the holes are.
        audio: the speech.
        info: what it is like.
        provenance: what fills it, for the videos' metadata.
        fingerprint: tells all of this and the options, for resuming.
        given: landmarks that are to be drawn; None to find them.
    """

    source: SourceVideo
    timeline: Timeline
    mask: Mask
    audio: Path
    info: AudioInfo
    provenance: Mapping[str, str]
    fingerprint: str
    given: Landmarks | None = None

    def holed(self) -> Iterator[Holed]:
        """The frames with their holes."""
        return self.mask.follow(prefetched(self.timeline.frames(), depth=4))

    def blocks(self) -> Iterator[np.ndarray]:
        """The speech in blocks."""
        return stream_audio(self.audio, gain=self.info.gain())


@dataclass(frozen=True)
class Hands:
    """What does the work: stage 1, the performance beside it, and stage 2 for a seed and an identity."""

    face: FaceModel
    placer: Callable[[Identity], Placer]
    performer: SpeechToMotion
    renderer: Callable[[Identity, int], FaceRenderer]


class Filling(Take):
    """A take.

    Args:
        hands: what makes it.
        scene: what it is made from.
        identity: whose face; found when it is first needed.
        seed: another one gives other blinks and gaze, and another texture.
    """

    seed: int

    def __init__(self, hands: Hands, scene: Scene, identity: Callable[[], Identity], seed: int) -> None:
        self.hands, self.scene, self._identify = hands, scene, identity
        super().__init__(
            self._filled,
            scene.timeline,
            scene.source.size,
            sounds=[scene.audio],
            provenance=scene.provenance,
            fingerprint=scene.fingerprint,
            seed=seed,
            source=scene.source,
            motion=lambda: self.landmarks.motion if "landmarks" in vars(self) else None,
        )

    @cached_property
    def identity(self) -> Identity:
        """Whose face it is."""
        return self._identify()

    @cached_property
    def landmarks(self) -> Landmarks:
        """What stage 1 found, or was given, for every frame.

        Raises:
            InvalidOption: those given are of another number of frames.
            NoFaceFound: there is nothing to fill.
        """
        given = self.scene.given
        if given is not None:
            if abs(len(given) - self.frame_count) > 1:
                raise InvalidOption(
                    f"the landmarks are of {len(given)} frames, the video will have {self.frame_count}"
                )
            return given
        return self._placed()

    def save_landmarks(self, path: str | Path) -> Path:
        """Write :attr:`landmarks` as JSON.

        Raises:
            OutputError: it cannot be written.
        """
        with replacing(path) as partial:
            self.landmarks.to_json(partial)
        return Path(path)

    def _placed(self) -> Landmarks:
        lips = LipTrack(self.hands.performer.speech_to_lips(self.scene.blocks()))
        ahead: list[float] = []
        boxes: list[tuple[int, int, int, int] | None] = []

        def holed() -> Iterator[Holed]:
            for one in self.scene.holed():
                ahead.append(one.frame.time)
                boxes.append(one.hole.box if one.hole else None)
                yield one

        def heard() -> Iterator[np.ndarray]:
            while True:
                yield lips.at(ahead.pop(0)).content[SPEECH_WINDOW - 2 : SPEECH_WINDOW + 2]

        found = list(self.hands.placer(self.identity)(holed(), heard()))
        if not any(pose is not None for _, pose in found):
            raise NoFaceFound("there is nothing to fill: the mask shows no hole in any frame")
        times = np.array([time for time, _ in found])
        landmarks = _landmarks(times, [pose for _, pose in found], self._performance().resample(times))
        if margin := self.scene.mask.margin:
            holes = Outlines(boxes, self.scene.source.size, margin)
            landmarks = fitted(landmarks, holes, self.hands.face, self.identity.neutral)
        return calmed(landmarks)

    def _performance(self) -> FaceMotion:
        """Lips, blinks, brows and gaze at 25 fps, and a second of rest after them."""
        motion = FaceMotion.concatenate(list(self.hands.performer(self.scene.blocks(), self.seed)))
        rest = replace(motion[-1:], beta_mouth=np.zeros_like(motion.beta_mouth[-1:]))
        return FaceMotion.concatenate([motion, *[rest] * FRAME_RATE])

    def _filled(self, after: float | None) -> Iterator[Frame]:
        renderer = self.hands.renderer(self.identity, self.seed)
        done = -1.0 if after is None else after + TOLERANCE
        for frame in renderer.fill(self._jobs(self.landmarks), done):
            if frame.time > done:
                yield frame

    def _jobs(self, landmarks: Landmarks) -> Iterator[Job | Frame]:
        """What is to be drawn; frames without a hole as they are."""
        motion, neutral = landmarks.motion, self.identity.neutral
        reach = np.arange(-AROUND, AROUND + 1) / FRAME_RATE
        for number, one in enumerate(self.scene.holed()):
            k = min(number, len(landmarks) - 1)
            if one.hole is None or not landmarks.there[k]:
                yield one.frame
                continue
            near = np.abs(landmarks.times[:, None] - (landmarks.times[k] + reach)).argmin(0)
            mesh = landmarks.meshes(self.hands.face, neutral, slice(k, k + 1))[0]
            yield Job(one.frame, one.hole, mesh, motion.beta_mouth[near], motion[k : k + 1], one.shot)


def _landmarks(times: np.ndarray, poses: list[Pose | None], motion: FaceMotion) -> Landmarks:
    """Join poses with a performance; where there is none, the pose before goes on."""
    there = np.array([pose is not None for pose in poses])
    known = [pose for pose in poses if pose is not None]
    held = np.maximum(np.cumsum(there) - 1, 0)
    rotation = np.stack([known[k].rotation_vectors[0] for k in held])
    return Landmarks(
        times=times,
        there=there,
        place=np.stack([known[k].translation[0, :2] for k in held]),
        size=np.array([known[k].scale[0] for k in held]),
        motion=replace(motion, rotation=rotation, reference="camera"),
    )
