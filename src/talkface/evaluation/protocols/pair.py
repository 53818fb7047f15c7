"""Scores a generated video beside the real one it shares its person, and mostly its head motion, with."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from talkface.errors import NoFaceFound
from talkface.evaluation.figures import fidelity, motion, picture, sync
from talkface.evaluation.figures.fidelity import FrameFidelity
from talkface.evaluation.figures.performance import RATE, Performance, head_distance, perform, track_file
from talkface.evaluation.judges.expert import REACH, SyncExpert, Verdict, judge
from talkface.evaluation.protocols.clips import Clip, aligned_frames, frames_at, voice
from talkface.evaluation.protocols.scores import Scores
from talkface.face.crop import MOUTH, cut, face_unit, part_matrix
from talkface.face.model import FaceModel
from talkface.face.tracker import FaceTrack, FaceTracker
from talkface.media.video import VideoReader

logger = logging.getLogger(__name__)

REVISION = 1  # of what the figures mean: part of the protocol, raised when one is defined otherwise
_SHORTEST = 0.4  # seconds that can be scored
_LOOKED_AT = 8  # frames of each clip whose likeness and sharpness are measured
_SHOWN = 4  # of these in the contact sheets
_SAME_HEAD = 0.15  # inter-ocular distances: heads further apart do not move alike
_CELL = 160  # pixels of a picture in the contact sheets


class PairScorer:
    """Scores one generated video after the other.

    Args:
        experts: Judges of sync.

    Attributes:
        tests: Scores by the name of the test that they are of.
    """

    def __init__(self, experts: Sequence[SyncExpert] = ()) -> None:
        self.experts, self.tests = list(experts), dict[str, Scores]()
        self.tracker, self.face = FaceTracker(threads=2), FaceModel.from_pretrained()
        self._of_real: dict[tuple[str, Path], Verdict | None] = {}

    def protocol(self) -> dict[str, Any]:
        """What the figures depend on beside the clips."""
        return {
            "revision": REVISION,
            "fps": RATE,
            "mouth_box": fidelity.MOUTH_BOX,
            "sync_reach": REACH,
            "frames_looked_at": _LOOKED_AT,
            "face_recogniser": "dlib_face_recognition_resnet_model_v1" if picture.recogniser() else None,
            "experts": [expert.identity for expert in self.experts],
        }

    def __call__(self, test: str, source: Clip, generated: Path, speech: Clip | None = None) -> None:
        """Score a video.

        Args:
            test: The name of what it is scored for.
            source: The real video: of the same person, and of the same head motion if the tool keeps it.
            generated: The video to score.
            speech: The real video that the sound is from, if not the source: its lips are the reference.

        Raises:
            TalkfaceError: A file cannot be read, or has no face.
        """
        track = track_file(generated, self.tracker, source.track)
        spoken = speech or source
        sound = generated if _has_sound(generated) else spoken.path
        tracks = track, source.track, spoken.track
        made, own, lips = self._perform(tracks)
        row: dict[str, Any] = {"name": source.name, "group": source.group, "seconds": len(made) / RATE}
        row |= {"speech": spoken.name} if speech else {}
        row["face_found"] = float(made.found.mean())
        row |= _lips(made, own, lips if speech else None, *voice(sound, _common(tracks)[0], len(made)))
        row |= motion.head_and_eyes(made)
        row |= {f"real_{name}": value for name, value in motion.head_and_eyes(own).items()}
        frames, looks = _watch(source, generated, track, same_words=speech is None)
        row |= frames | looks.figures()
        verdicts = [self._verdicts(expert, generated, track, sound, spoken) for expert in self.experts]
        curves = {}
        for expert, pair in zip(self.experts, verdicts, strict=True):
            if pair:
                row |= pair[0].figures(expert.name) | pair[1].figures(f"real_{expert.name}")
                curves[expert.name] = pair[0].score.curve, pair[1].score.curve
        self.tests.setdefault(test, Scores()).add(
            row, made, lips, looks.strip(speech), faces=looks.faces(), curves=curves
        )

    def _perform(self, tracks: Sequence[FaceTrack]) -> list[Performance]:
        """Performances of the time that all tracks have in common."""
        start, stop = _common(tracks)
        if stop - start < _SHORTEST:
            raise NoFaceFound(f"the face is in all videos for less than {_SHORTEST} s: nothing to compare")
        performances = [perform(track, self.face, start, stop) for track in tracks]
        length = min(map(len, performances))
        return [performance.first(length) for performance in performances]

    def _verdicts(
        self, expert: SyncExpert, generated: Path, track: FaceTrack, sound: Path, spoken: Clip
    ) -> tuple[Verdict, Verdict] | None:
        """On the generated video, and on the one that its sound is from."""
        made = judge(expert, generated, track, sound)
        key = expert.name, spoken.path
        if key not in self._of_real:
            self._of_real[key] = judge(expert, spoken.encoded or spoken.path, spoken.track, spoken.path)
        real = self._of_real[key]
        return (made, real) if made and real else None


def _common(tracks: Sequence[FaceTrack]) -> tuple[float, float]:
    """First and last second that all tracks have."""
    return max(float(t.times[0]) for t in tracks), min(float(t.times[-1]) for t in tracks)


def _has_sound(path: Path) -> bool:
    with VideoReader(path) as reader:
        return reader.has_audio


def _lips(
    made: Performance, own: Performance, spoken: Performance | None, speaks: np.ndarray, sounds: bool
) -> dict[str, float]:
    """Sync and silence.

    Lips that say something else than in the source are compared with ``spoken``, the lips of who said it:
    when they open, not where they are.
    """
    quiet = sync.silence(made, own, speaks)
    if spoken is None:
        return sync.lip_sync(made, own, sounds) | quiet
    figures = sync.lip_sync(made, spoken, sounds) | quiet
    if "aperture_r" in figures:
        figures["source_r"] = sync.best_correlation(made.opening, own.opening)
    return {k: v for k, v in figures.items() if k not in ("mouth_lmd", "real_silent_opening")}


def _watch(
    source: Clip, generated: Path, track: FaceTrack, same_words: bool
) -> tuple[dict[str, float], "_Looks"]:
    """Go through both videos once: fidelity, where the heads move alike, and looks."""
    alike = _alike(source, generated, track)
    frames, looks = FrameFidelity(same_words), _Looks(alike)
    looked_at = np.linspace(track.frames[0], track.frames[-1], _LOOKED_AT).round().astype(int)
    for real_number, real, number, image in aligned_frames(source.path, generated):
        true, made = _mesh(source.track, real_number), _mesh(track, number)
        if true is None or made is None:
            continue
        if alike:
            width, height = min(real.shape[1], image.shape[1]), min(real.shape[0], image.shape[0])
            frames.add(real[:height, :width], image[:height, :width], true)
        if number in looked_at:
            looks.add(number, (real, true), (image, made))
    return frames.figures(), looks


def _alike(source: Clip, generated: Path, track: FaceTrack) -> bool:
    """Whether two videos have the same pictures but for what was redrawn; the log says why if not."""
    with VideoReader(source.path) as real, VideoReader(generated) as made:
        # An odd side may have got a pixel more in encoding.
        same_size = max(abs(a - b) for a, b in zip(real.size, made.size, strict=True)) <= 1
        sizes = f"{real.size[0]}x{real.size[1]} and {made.size[0]}x{made.size[1]} pixels"
    apart = head_distance(track, source.track)
    if same_size and apart < _SAME_HEAD:
        return True
    reason = f"the head moves otherwise ({apart:.2f} eye distances off)" if same_size else sizes
    logger.warning("%s: no PSNR, SSIM, seam: %s", source.name, reason)
    return False


def _mesh(track: FaceTrack, number: int) -> np.ndarray | None:
    """The mesh (478, 3) of a frame, None outside the track."""
    place = number - int(track.frames[0])
    return track.points[place] if 0 <= place < len(track.points) else None


@dataclass
class _Looks:
    """Likeness, sharpness and pictures of some frames.

    Args:
        alike: Whether the faces are at the same places: then both are cut where the real one is.
    """

    alike: bool
    _described: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    _sharp: list[tuple[float, float]] = field(default_factory=list)
    _cells: list[tuple[int, np.ndarray]] = field(default_factory=list)

    def add(
        self, number: int, real: tuple[np.ndarray, np.ndarray], made: tuple[np.ndarray, np.ndarray]
    ) -> None:
        """Take a real and a generated frame: pictures (H, W, 3) uint8 with their meshes (478, 3)."""
        self._sharp.append((picture.mouth_sharpness(*real), picture.mouth_sharpness(*made)))
        if describe := picture.recogniser():
            self._described.append((describe(*real), describe(*made)))
        pair = _cell(*real), _cell(made[0], real[1] if self.alike else made[1])
        self._cells.append((number, np.concatenate(pair, 1)))

    def figures(self) -> dict[str, float]:
        """``mouth_sharpness``, generated over real; ``csim`` and ``face_distance`` of frames at one time."""
        figures = {}
        if self._sharp:
            real, made = np.mean(self._sharp, 0)
            figures["mouth_sharpness"] = float(made / max(real, 1e-6))
        alike = [picture.likeness(a, b) for a, b in self._described]
        return figures | {name: float(np.mean([a[name] for a in alike])) for name in (alike or [{}])[0]}

    def faces(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Descriptors (N, 128) of real and generated frames, None where there is no recogniser."""
        if not self._described:
            return None
        real, made = zip(*self._described, strict=True)
        return np.stack(real), np.stack(made)

    def strip(self, speech: Clip | None) -> np.ndarray:
        """Real and generated faces, below them their mouths; then the face that the words are from."""
        if not self._cells:
            return np.zeros((2 * _CELL, 2 * _CELL, 3), np.uint8)
        chosen = np.linspace(0, len(self._cells) - 1, _SHOWN + 2)[1:-1].round().astype(int)
        cells = [self._cells[k] for k in chosen]
        if speech is None:
            return np.concatenate([cell for _, cell in cells], 1)
        parts = []
        shown = frames_at(speech.path, [number for number, _ in cells])
        for (number, cell), frame in zip(cells, shown, strict=True):
            first, last = speech.track.frames[[0, -1]]
            mesh = speech.track.points[min(max(number, first), last) - first]
            parts += [cell, _cell(frame, mesh)]
        return np.concatenate(parts, 1)


def _cell(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The face, and below it the mouth, (320, 160, 3), with a dark line to the right."""
    scale = _CELL / (2.4 * face_unit(points))
    offset = _CELL / 2 - scale * points[1, :2]
    face = cut(image, np.array([[scale, 0, offset[0]], [0, scale, offset[1]]]), _CELL)
    mouth = cut(image, part_matrix(points, MOUTH) * (_CELL / MOUTH.pixels), _CELL)
    cell = np.concatenate([face, mouth])
    cell[:, -2:] = 32
    return cell
