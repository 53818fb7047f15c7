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
from talkface.systems.tccp.identity import PortraitIdentity
from talkface.systems.tccp.masks import Mask, MaskedFrame
from talkface.systems.tccp.neighbours import LIP_CONTEXT_FRAMES
from talkface.systems.tccp.placing import Landmarks, Outlines, PoseEstimator, calmed, fitted
from talkface.systems.tccp.renderer import FaceJob, FaceRenderer


@dataclass(frozen=True)
class FillInput:
    """The video that a face is filled into, the holes, and the speech.

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

    def masked_frames(self) -> Iterator[MaskedFrame]:
        """The frames with their holes."""
        return self.mask.follow(prefetched(self.timeline.frames(), depth=4))

    def blocks(self) -> Iterator[np.ndarray]:
        """The speech in blocks."""
        return stream_audio(self.audio, gain=self.info.gain())


@dataclass(frozen=True)
class FillComponents:
    """What fills: stage 1, the performance beside it, and stage 2 for a seed and an identity."""

    face: FaceModel
    pose_estimator: Callable[[PortraitIdentity], PoseEstimator]
    performer: SpeechToMotion
    renderer: Callable[[PortraitIdentity, int], FaceRenderer]


class Filling(Take):
    """A take.

    Args:
        components: what makes it.
        inputs: what it is made from.
        identity: whose face; found when it is first needed.
        seed: another one gives other blinks and gaze, and another texture.
    """

    seed: int

    def __init__(
        self,
        components: FillComponents,
        inputs: FillInput,
        identity: Callable[[], PortraitIdentity],
        seed: int,
    ) -> None:
        self.components, self.inputs, self._identify = components, inputs, identity
        super().__init__(
            self._filled,
            inputs.timeline,
            inputs.source.size,
            sounds=[inputs.audio],
            provenance=inputs.provenance,
            fingerprint=inputs.fingerprint,
            seed=seed,
            source=inputs.source,
            motion=lambda: self.landmarks.motion if "landmarks" in vars(self) else None,
        )

    @cached_property
    def identity(self) -> PortraitIdentity:
        """Whose face it is."""
        return self._identify()

    @cached_property
    def landmarks(self) -> Landmarks:
        """What stage 1 found, or was given, for every frame.

        Raises:
            InvalidOption: those given are of another number of frames.
            NoFaceFound: there is nothing to fill.
        """
        given = self.inputs.given
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
        lips = LipTrack(self.components.performer.speech_to_lips(self.inputs.blocks()))
        ahead: list[float] = []
        boxes: list[tuple[int, int, int, int] | None] = []

        def frames() -> Iterator[MaskedFrame]:
            for one in self.inputs.masked_frames():
                ahead.append(one.frame.time)
                boxes.append(one.hole.box if one.hole else None)
                yield one

        def content() -> Iterator[np.ndarray]:
            while True:
                yield lips.at(ahead.pop(0)).content[SPEECH_WINDOW - 2 : SPEECH_WINDOW + 2]

        found = list(self.components.pose_estimator(self.identity)(frames(), content()))
        if not any(pose is not None for _, pose in found):
            raise NoFaceFound("there is nothing to fill: the mask shows no hole in any frame")
        times = np.array([time for time, _ in found])
        landmarks = _landmarks(times, [pose for _, pose in found], self._performance().resample(times))
        if margin := self.inputs.mask.margin:
            holes = Outlines(boxes, self.inputs.source.size, margin)
            landmarks = fitted(landmarks, holes, self.components.face, self.identity.neutral)
        return calmed(landmarks)

    def _performance(self) -> FaceMotion:
        """Lips, blinks, brows and gaze at 25 fps, and a second of rest after them."""
        motion = FaceMotion.concatenate(list(self.components.performer(self.inputs.blocks(), self.seed)))
        rest = replace(motion[-1:], beta_mouth=np.zeros_like(motion.beta_mouth[-1:]))
        return FaceMotion.concatenate([motion, *[rest] * FRAME_RATE])

    def _filled(self, after: float | None) -> Iterator[Frame]:
        renderer = self.components.renderer(self.identity, self.seed)
        done = -1.0 if after is None else after + TOLERANCE
        for frame in renderer.fill(self._jobs(self.landmarks), done):
            if frame.time > done:
                yield frame

    def _jobs(self, landmarks: Landmarks) -> Iterator[FaceJob | Frame]:
        """What is to be drawn; frames without a hole as they are."""
        motion, neutral = landmarks.motion, self.identity.neutral
        reach = np.arange(-LIP_CONTEXT_FRAMES, LIP_CONTEXT_FRAMES + 1) / FRAME_RATE
        for number, one in enumerate(self.inputs.masked_frames()):
            k = min(number, len(landmarks) - 1)
            if one.hole is None or not landmarks.there[k]:
                yield one.frame
                continue
            near = np.abs(landmarks.times[:, None] - (landmarks.times[k] + reach)).argmin(0)
            mesh = landmarks.meshes(self.components.face, neutral, slice(k, k + 1))[0]
            yield FaceJob(one.frame, one.hole, mesh, motion.beta_mouth[near], motion[k : k + 1], one.shot)


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
