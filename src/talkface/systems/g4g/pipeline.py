"""``dub``: a video and new speech to the same video with the lips in sync."""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from talkface.errors import InvalidOption, NoFaceFound
from talkface.face.coefficients import GAZE, ROTATION, SCALE, TRANSLATION
from talkface.face.model import FaceModel, estimate_pose
from talkface.face.motion import FaceMotion
from talkface.face.occlusion import OcclusionFinder, OcclusionNet
from talkface.face.people import Follower, Person, Sighting, VideoPeople, scan, speaking
from talkface.media.audio import AudioInfo, stream_audio
from talkface.media.decode import TOLERANCE, Frame
from talkface.media.prefetch import prefetched
from talkface.media.source import SourceVideo
from talkface.media.timeline import Timeline
from talkface.options import face_within, number_within
from talkface.output import Generation
from talkface.performance.lip_track import LipTrack
from talkface.performance.lips import SpeechToLips
from talkface.systems.g4g.bank import FaceCrops, gather
from talkface.systems.g4g.dubbing import Dubbing, Plan, PlannedFace
from talkface.systems.g4g.editing import TURNED, FaceEditor
from talkface.systems.g4g.geometry import MouthRange, Retargeter, mouth_shape
from talkface.systems.g4g.model import Generator
from talkface.systems.g4g.renderer import Bank, MouthRenderer, PreparedEdit
from talkface.systems.pipeline import Parts, Pipeline, open_source, part, speech_infos, stretch_of

logger = logging.getLogger(__name__)

_LOOKED_AT = 64  # frames of the fast look
_AUTO_SECONDS = 20.0  # of a video from which it is told who speaks
_BATCH = 4  # frames drawn at once
_REWIND = 3.0  # seconds before the place to go on at
_SMALLEST = 40  # pixels from forehead to chin


@dataclass
class _Batch:
    """Frames that are drawn together, and the prepared edits in them of each person."""

    frames: list[Frame] = field(default_factory=list)
    cuts: dict[int, list[PreparedEdit]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class G4GParts(Parts):
    """Networks of G4G: the generator, and the one that finds what covers a mouth, such as a hand."""

    generator: Generator = part("g4g", Generator)
    occlusion: OcclusionNet = part("occlusion", OcclusionNet)


class G4GPipeline(Pipeline[G4GParts]):
    """G4G's compact preset: content encoder, TH-PAD's lip path, 3DMM and generator.

    ``pipe = G4GPipeline.from_pretrained()``; ``pipe(video, audio)`` gives a
    :class:`~talkface.output.Generation` of one :class:`~talkface.systems.g4g.dubbing.Dubbing`.
    """

    system, parts_type = "g4g", G4GParts
    tracking: ClassVar = {"threads": 1, "eyes": False}
    default_dtype = "float32"
    dtypes = ("float32",)

    def set_up(self) -> None:
        """The lip path."""
        self.speech_to_lips = SpeechToLips(self.features, self.parts.motion, self.device)

    def __call__(
        self,
        video: str | Path,
        audio: str | Path | None = None,
        *,
        sync_mode: str = "cut_off",
        face: int | str = 0,
        audio_tracks: Mapping[int, str | Path] | None = None,
        lips: float = 1.0,
        keep_silence: bool = False,
        start: float | str = 0.0,
        stop: float | str | None = None,
        audio_stream: int = 0,
    ) -> Generation[Dubbing]:
        """Make the people of a video say other words; the options are those of :func:`talkface.dub`."""
        strength = number_within("lips", lips, 0.0, 3.0)
        speeches = _speeches(audio, audio_tracks)
        source = open_source(video, start, stop, audio_stream)
        infos = speech_infos(speeches.values(), source.fps)
        timeline = Timeline(source, max(info.duration for info in infos.values()), sync_mode)
        return Generation([self._dub(source, timeline, speeches, infos, face, strength, keep_silence)])

    def _dub(
        self,
        source: SourceVideo,
        timeline: Timeline,
        speeches: dict[int | None, Path],
        infos: dict[Path, AudioInfo],
        face: int | str,
        strength: float,
        keep_silence: bool,
    ) -> Dubbing:
        """Look at the video, choose who is dubbed, and promise the frames."""

        def listen() -> dict[Path, LipTrack]:
            return {
                path: LipTrack(prefetched(self.speech_to_lips(stream_audio(path, gain=info.gain()))))
                for path, info in infos.items()
            }

        heard = [listen()]  # beside the first look
        crops = FaceCrops()
        persons = scan(source.sparse(_LOOKED_AT), self.tracker, self.face, crops.keep)
        chosen = self._choose(source, persons, face, speeches)
        who = sorted((number, str(path)) for number, path in chosen.items())
        pixels = self.parts.generator.config.pixels
        banks = {
            number: gather(crops, persons[number], self.face, self.parts.occlusion, pixels)
            for number in chosen
        }

        def frames(after: float | None) -> Iterator[Frame]:
            # Smoothing and the choice of references remember: begin earlier, so that they are as in one run.
            done = -math.inf if after is None else after
            begin = None if done < _REWIND else done - _REWIND
            tracks = heard.pop() if heard else listen()
            editors = {
                number: self._editor(
                    persons[number], banks[number], tracks[path], source, strength, keep_silence
                )
                for number, path in chosen.items()
            }
            follower = Follower(self.tracker, persons, chosen, turned=TURNED)
            followed = follower.follow(prefetched(timeline.frames(begin), depth=4))
            yield from (frame for frame in _drawn(followed, editors) if frame.time > done + TOLERANCE)

        return Dubbing(
            frames,
            timeline=timeline,
            source=source,
            speeches=list(infos),
            plan=_plan(source, timeline, persons, chosen),
            fingerprint=self.fingerprint(
                [source.path, *infos], stretch_of(source), who, timeline.mode, strength, keep_silence
            ),
            provenance=self.provenance(),
        )

    # -- who -------------------------------------------------------------------------------------

    def _choose(
        self, source: SourceVideo, persons: VideoPeople, face: int | str, speeches: dict[int | None, Path]
    ) -> dict[int, Path]:
        """Which person says what.

        Raises:
            InvalidOption, NoFaceFound.
        """
        large = [person.number for person in persons.people if person.size[1] >= _SMALLEST]
        if not large:
            size = max(person.size[1] for person in persons.people)
            raise NoFaceFound(
                f"the largest face in {source.path.name} is {size:.0f} px tall; "
                f"give a video where it has at least {_SMALLEST} px"
            )
        named = {number: path for number, path in speeches.items() if number is not None}
        if not named:
            named = dict.fromkeys(self._numbers(source, persons, face, large), speeches[None])
        for number in named:
            face_within(number, len(persons), source.path.name)
        return named

    def _numbers(
        self, source: SourceVideo, persons: VideoPeople, face: int | str, large: list[int]
    ) -> list[int]:
        if face == "all":
            return large
        if face == "auto":
            return [self._speaker(source, persons)]
        try:
            return [int(face)]
        except ValueError:
            raise InvalidOption(f"face is {face!r}; choose a number, auto or all") from None

    def _speaker(self, source: SourceVideo, persons: VideoPeople) -> int:
        """Whose lips moved with the original sound."""
        if len(persons) == 1:
            return 0
        speech = None
        if source.has_audio:
            blocks = _first_seconds(source.speech(), _AUTO_SECONDS)
            spoken = list(self.speech_to_lips(blocks))
            if spoken:
                speech = np.concatenate([s.beta_mouth for s in spoken])
        frames = _until(source.frames(), _AUTO_SECONDS)
        followed = Follower(self.tracker, persons).follow(frames)
        found = speaking(followed, self.face, _lips_only(speech, self.face))
        logger.info("the lips of face %d moved with the sound: %s", found.number, found.scores)
        return found.number

    def _editor(
        self,
        person: Person,
        bank: Bank,
        lips: LipTrack,
        source: SourceVideo,
        strength: float,
        keep_silence: bool,
    ) -> FaceEditor:
        """A person who is about to be dubbed."""
        warp = self.face.mesh_warp()
        return FaceEditor(
            face=self.face,
            retarget=Retargeter(self.face, person.neutral, float(source.fps)),
            renderer=MouthRenderer(self.face, self.parts.generator, bank, self.device),
            lips=lips,
            range=self._mouth_range(person, strength),
            finder=OcclusionFinder(self.parts.occlusion, warp, bank.references, self.device),
            keep_silence=keep_silence,
        )

    def _mouth_range(self, person: Person, lips: float) -> MouthRange:
        pose = estimate_pose(person.points, person.neutral)
        beta_mouth = self.face.project_mouth(pose.invert(person.points) - person.neutral)
        return MouthRange.seen(mouth_shape(self.face, beta_mouth)[:, 0], lips)


def _drawn(
    followed: Iterable[tuple[Frame, dict[int, Sighting]]], editors: Mapping[int, FaceEditor]
) -> Iterator[Frame]:
    """Frames with new lips; at the end it is said how many have stayed as they were."""
    for batch in prefetched(_cut(prefetched(followed, depth=4), editors)):
        for number, cuts in batch.cuts.items():
            editors[number].renderer.draw(cuts)
        yield from batch.frames
    for number, editor in editors.items():
        editor.report(number)


def _cut(
    followed: Iterable[tuple[Frame, dict[int, Sighting]]], editors: Mapping[int, FaceEditor]
) -> Iterator[_Batch]:
    """Frames with what is to be drawn into them, some at a time."""
    batch = _Batch()
    for frame, sightings in followed:
        batch.frames.append(frame)
        for number, editor in editors.items():
            if edit := editor.edit(frame, sightings.get(number)):
                batch.cuts.setdefault(number, []).append(editor.renderer.prepare(edit))
        if len(batch.frames) == _BATCH:
            yield batch
            batch = _Batch()
    yield batch


def _lips_only(beta_mouth: np.ndarray | None, face: FaceModel) -> FaceMotion | None:
    """Mouth coefficients (T, M) as a motion in which nothing else moves."""
    if beta_mouth is None:
        return None
    count = len(beta_mouth)
    widths = len(face.upper), ROTATION, TRANSLATION, GAZE
    zeros = [np.zeros((count, width), np.float32) for width in widths]
    return FaceMotion(beta_mouth, zeros[0], zeros[1], zeros[2], np.ones((count, SCALE), np.float32), zeros[3])


def _speeches(audio: str | Path | None, tracks: Mapping[int, str | Path] | None) -> dict[int | None, Path]:
    """Speech by face; the key None stands for the faces that are chosen otherwise."""
    if tracks:
        if audio is not None:
            raise InvalidOption("give either one speech, or an audio track for each face, not both")
        return {number: Path(path) for number, path in tracks.items()}
    if audio is None:
        raise InvalidOption("there is no speech: give a sound file, or audio_tracks for the faces")
    return {None: Path(audio)}


def _first_seconds(blocks: Iterable[np.ndarray], seconds: float) -> Iterator[np.ndarray]:
    left = round(seconds * 16_000)
    for block in blocks:
        yield block[:left]
        left -= len(block)
        if left <= 0:
            return


def _until(frames: Iterable[Frame], seconds: float) -> Iterator[Frame]:
    for frame in frames:
        if frame.time > seconds:
            return
        yield frame


def _plan(source: SourceVideo, timeline: Timeline, persons: VideoPeople, chosen: dict[int, Path]) -> Plan:
    faces = [_planned(person, chosen.get(person.number)) for person in persons.people]
    return Plan(source, timeline, faces, persons.frames)


def _planned(person: Person, speech: Path | None) -> PlannedFace:
    return PlannedFace(
        number=person.number,
        share=person.share,
        box=person.box,
        size=person.size,
        yaw=person.yaw,
        openings=(float(person.openings.min()), float(person.openings.max())),
        speech=speech,
    )
