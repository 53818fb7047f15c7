"""How well ``talkface fill`` puts a hidden face back: each clip with its own sound and another frame's face.

Beside it, by the same code: the clip itself encoded again, windows chained as in the paper, frames drawn
each for itself, the same as the LDM and its control branch alone leave them, and ``animate`` pasted into the
hole.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from talkface.data.manifest import Item
from talkface.errors import TalkfaceError
from talkface.evaluation import report
from talkface.evaluation.figures import picture
from talkface.evaluation.figures.fidelity import border_jumps, psnr
from talkface.evaluation.figures.performance import track_file
from talkface.evaluation.figures.steadiness import unexplained_change
from talkface.evaluation.judges.expert import experts
from talkface.evaluation.protocols.clips import Clip, Library, aligned_frames, frames_at, talking_items
from talkface.evaluation.protocols.dub import encode_again
from talkface.evaluation.protocols.pair import PairScorer
from talkface.face import topology as tp
from talkface.face.crop import face_unit
from talkface.face.model import FaceModel, estimate_pose
from talkface.face.tracker import FaceTrack
from talkface.media.source import SourceVideo
from talkface.media.video import Frame, VideoWriter
from talkface.systems.tccp.border import joined
from talkface.systems.tccp.filling import Filling
from talkface.systems.tccp.holes import face_hole, hole_outline
from talkface.systems.tccp.identity import Identity
from talkface.systems.tccp.pipeline import TccpPipeline
from talkface.systems.tccp.placing import Landmarks
from talkface.systems.thpad.pipeline import ThpadPipeline

logger = logging.getLogger(__name__)

REVISION = 2  # of what the figures mean: part of the protocol, raised when one is defined otherwise
TESTS = ("real", "fill", "chained", "framewise", "controlnet", "pasted")
_LEFT_OUT = {"framewise": {"over_time"}, "controlnet": {"over_time", "detail", "matte"}}
_MARGIN = 0.25
_LOOKED_AT = 12  # frames of each video whose likeness to the identity is told
_STEP = 0.02  # inter-ocular distances from one side of the border to the other, half of it
_FLAT = 1.0  # levels: jumps below are counted as this much


@dataclass
class HoleFidelity:
    """Takes frames one after the other, gives figures of the hole."""

    _squared: list[float] = field(default_factory=list)
    _outside: list[float] = field(default_factory=list)
    _jumps: list[np.ndarray] = field(default_factory=list)

    def add(self, real: np.ndarray, made: np.ndarray, points: np.ndarray) -> None:
        """Take pictures (H, W, 3) uint8 of one size and the real face's mesh (478, 3)."""
        hole = face_hole(points, (real.shape[1], real.shape[0]), _MARGIN) > 0
        apart = real.astype(np.float32) - made
        if hole.any():
            self._squared.append(float(np.square(apart[hole]).mean()))
        if not hole.all():
            self._outside.append(float(np.abs(apart[~hole]).mean()))
        outline = hole_outline(points, _MARGIN)
        outward = outline - outline.mean(0)
        outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-6)
        step = max(1.0, _STEP * face_unit(points))
        self._jumps.append(np.stack([border_jumps(one, outline, outward, step) for one in (made, real)]))

    def figures(self) -> dict[str, float]:
        """``hole_psnr`` (dB), ``outside_difference`` (levels) and ``border`` (generated over real jumps)."""
        if not self._squared:
            return {}
        made, real = np.maximum(np.stack(self._jumps).mean(0), _FLAT)
        found = {"hole_psnr": psnr(float(np.mean(self._squared))), "border": float((made / real).mean())}
        return found | ({"outside_difference": float(np.mean(self._outside))} if self._outside else {})


@dataclass
class Maker:
    """Makes the videos of a clip's tests.

    Attributes:
        pipeline: what is evaluated.
        folder: where videos go; those that are there are taken as they are.
        seed: of all of them.
        without: parts of the pipeline to leave out.
    """

    pipeline: TccpPipeline
    folder: Path
    seed: int = 0
    without: tuple[str, ...] = ()
    _animate: ThpadPipeline | None = None

    def portrait(self, clip: Clip) -> Path:
        """The clip's last frame as a picture: whose face is to be put back."""
        path = self.folder / "identity" / f"{clip.name}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            seen = clip.track.frames[clip.track.found]
            image = next(iter(frames_at(clip.path, [int(seen[-1])])))
            Image.fromarray(image).save(path)
        return path

    def __call__(self, test: str, clip: Clip) -> Path:
        """A test's video; the landmarks of "fill" lie beside it."""
        target = self.folder / test / f"{clip.name}.mp4"
        if target.exists():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        if test == "real":
            return encode_again(clip.path, target)
        if test == "pasted":
            return self._pasted(clip, target)
        take = self.fill(clip, {*self.without, *_LEFT_OUT.get(test, ())}, chained=test == "chained")
        take.save(target)
        take.save_landmarks(target.with_suffix(".json"))
        return target

    def fill(self, clip: Clip, without: set[str], chained: bool = False) -> Filling:
        """The clip's own face, filled into a hole where it was."""
        options: dict[str, Any] = {"margin": _MARGIN, "seed": self.seed, "without": without}
        return self.pipeline(clip.path, clip.path, identity=self.portrait(clip), chained=chained, **options)[
            0
        ]

    def _pasted(self, clip: Clip, target: Path) -> Path:
        """The portrait talks by ``animate`` and is moved over the hole as the first face was."""
        self._animate = self._animate or ThpadPipeline.from_pretrained()
        source = SourceVideo(clip.path)
        talking = self._animate(self.portrait(clip), clip.path, seed=self.seed, fps=float(source.fps))[0]
        portrait = clip.track.points[clip.track.found][-1]
        with VideoWriter(target, source.size, source.fps, clip.path, like=source) as writer:
            for frame, image in zip(source, talking, strict=False):
                writer.write(_over(frame, image, portrait, _nearest(clip, frame.time)).image, frame.time)
        return target


def _over(frame: Frame, image: np.ndarray, portrait: np.ndarray, points: np.ndarray) -> Frame:
    """A talking portrait in a frame's hole, by the similarity of eyes and nose at rest."""
    size = (frame.image.shape[1], frame.image.shape[0])
    rigid = tp.RIGID
    matrix, _ = cv2.estimateAffinePartial2D(
        portrait[rigid, :2].astype(np.float32), points[rigid, :2].astype(np.float32)
    )
    moved = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    hole = face_hole(points, size, _MARGIN)
    filled = joined(frame.image.astype(np.float32), moved.astype(np.float32), hole)
    return replace(frame, image=filled.clip(0, 255).round().astype(np.uint8))


def _nearest(clip: Clip, time: float) -> np.ndarray:
    """The real mesh (478, 3) at a time."""
    return clip.track.points[int(np.abs(clip.track.times - time).argmin())]


def against_truth(landmarks: Landmarks, clip: Clip, face: FaceModel, neutral: np.ndarray) -> dict[str, float]:
    """How far stage 1's landmarks and poses are from those that were hidden."""
    made = landmarks.meshes(face, neutral)
    real = np.stack([_nearest(clip, time) for time in landmarks.times])
    there = landmarks.there
    away = np.linalg.norm((made - real)[:, : tp.FACE_VERTICES, :2], axis=-1).mean(1) / tp.inter_ocular(real)
    rotations = [estimate_pose(points, neutral).rotation for points in (made, real)]
    between = np.einsum("tij,tij->t", *rotations)
    angle = np.degrees(np.arccos(np.clip((between - 1) / 2, -1, 1)))
    return {"landmark_error": float(away[there].mean()), "pose_error": float(angle[there].mean())}


def evaluate_fill(
    data: Path,
    output: Path,
    *,
    split: str = "val",
    limit: int | None = None,
    seed: int = 0,
    models: Path | None = None,
    without: Sequence[str] = (),
    tests: Sequence[str] = TESTS,
) -> dict[str, Any]:
    """Hide and fill the face of every clip of a split, score the videos beside its baselines, write a report.

    Args:
        data: what ``talkface prepare`` wrote, or a folder of talking-face videos (tracked on the way).
        output: report, contact sheets and videos go here; videos already there are scored as they are.
        split: "val" or "train".
        limit: at most so many clips, spread over the list.
        seed: of the videos.
        models: folder of the models to use, by default those shipped.
        without: parts of the pipeline to leave out, to see what they are worth.
        tests: which of TESTS to do.

    Raises:
        UnreadableMedia: there is nothing to evaluate on.
        ModelUnavailable: a model is missing in ``models``.
    """
    manifest, items = talking_items(data, split, limit)
    scorer = PairScorer(experts(None))
    library = Library(manifest, items, scorer.tracker)
    pipeline = TccpPipeline.from_pretrained(str(models) if models else "compact")
    maker, left_out = Maker(pipeline, Path(output) / "videos", seed, tuple(without)), []
    for test, item in _ordered(items, tests):
        logger.info("%s %s", test, item.key)
        try:
            clip = library.clip(item)
            encoded = maker.folder / "real" / f"{clip.name}.mp4"
            made = maker(test, clip)
            scorer(test, replace(clip, encoded=encoded if encoded.exists() else None), made)
            scorer.tests[test].rows[-1] |= _more(clip, made, maker, scorer.face)
        except TalkfaceError as error:
            logger.warning("%s, %s: left out: %s", item.key, test, error)
            left_out.append(f"{test}/{item.key}")
    settings = {"system": "fill", "split": split, "seed": seed, "without": sorted(without)}
    settings |= {"fill_revision": REVISION} | scorer.protocol()
    settings["second_recogniser"] = "mobileface" if picture.second_recogniser() else None
    rows = [{"test": test, **row} for test, scores in scorer.tests.items() for row in scores.rows]
    result = report.headed(settings, [f"{row['test']}/{row['name']}" for row in rows])
    result["left_out"] = left_out
    result["tests"] = {test: {"groups": scores.groups()} for test, scores in scorer.tests.items()}
    report.write(Path(output), result, rows, {test: scores.strips for test, scores in scorer.tests.items()})
    return result


def _ordered(items: Sequence[Item], tests: Sequence[str]) -> Iterator[tuple[str, Item]]:
    """First the real ones: the others are measured by them."""
    for test in TESTS:
        if test in tests:
            yield from ((test, item) for item in items)


def _more(clip: Clip, made: Path, maker: Maker, face: FaceModel) -> dict[str, float]:
    """What is measured of filled videos alone."""
    hole = HoleFidelity()
    first = int(clip.track.frames[0])
    for real_number, real, _, image in aligned_frames(clip.path, made):
        place = real_number - first
        if 0 <= place < len(clip.track.points) and real.shape == image.shape:
            hole.add(real, image, clip.track.points[place])
    found = hole.figures()
    change = unexplained_change(clip.path, clip.track)
    own = track_file(made, maker.pipeline.tracker)
    found["consistency"] = unexplained_change(made, own) / max(change, 1e-6)
    portrait = maker.portrait(clip)
    identity = maker.pipeline.identify([portrait])
    found |= _likeness(made, own, identity)
    landmarks = made.with_suffix(".json")
    if landmarks.exists():
        found |= against_truth(Landmarks.from_json(landmarks), clip, face, identity.neutral)
    return found


def _likeness(made: Path, track: FaceTrack, identity: Identity) -> dict[str, float]:
    """Cosine of MobileFace's descriptors of the identity's picture and of frames spread over a video."""
    describe, seen = picture.second_recogniser(), np.flatnonzero(track.found)
    if describe is None or not len(seen):
        return {}
    wanted = describe(identity.images[0], identity.points[0])
    places = np.unique(np.linspace(0, len(seen) - 1, _LOOKED_AT).round().astype(int))
    shown = frames_at(made, [int(track.frames[seen[k]]) for k in places])
    faces = [describe(image, track.points[seen[k]]) for image, k in zip(shown, places, strict=True)]
    return {"csim_mobileface": float(np.mean([picture.likeness(wanted, one)["csim"] for one in faces]))}
