"""Evaluates ``talkface fill``: each clip's face is hidden and filled in, with its own sound and last frame.

Beside it, by the same code, the baselines: the clip itself encoded once more, windows chained as in the
paper, frames drawn independently, the same as the LDM and its control branch alone draw them, and ``animate``
pasted into the hole.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from talkface.evaluation.figures import picture
from talkface.evaluation.figures.hole import HOLE_MARGIN, HoleFidelity
from talkface.evaluation.figures.steadiness import unexplained_change
from talkface.evaluation.judges import sync_judges
from talkface.evaluation.judges.recognisers import mobileface_recogniser, recognisers_used
from talkface.evaluation.protocols.clips import Clip, Library, aligned_frames, frames_at, talking_items
from talkface.evaluation.protocols.dub import encode_again
from talkface.evaluation.protocols.pair import PairScorer
from talkface.evaluation.protocols.request import Request, counted, leaving_out
from talkface.evaluation.protocols.scores import write_tests
from talkface.evaluation.tracking import track_file
from talkface.face import topology as tp
from talkface.face.model import FaceModel, estimate_pose
from talkface.face.tracker import FaceTrack
from talkface.media.source import SourceVideo
from talkface.media.video import VideoWriter
from talkface.systems.tccp.border import joined
from talkface.systems.tccp.filling import Filling
from talkface.systems.tccp.holes import face_hole
from talkface.systems.tccp.identity import PortraitIdentity
from talkface.systems.tccp.pipeline import ABLATIONS, TccpPipeline
from talkface.systems.tccp.placing import Landmarks
from talkface.systems.thpad.pipeline import ThpadPipeline

FILL_REVISION = 2  # of the figures' definitions: part of the protocol, raised when one changes
TESTS = ("real", "fill", "chained", "framewise", "controlnet", "pasted")
"""What is scored; first the real clips, with which the others are compared."""
_LEFT_OUT = {"framewise": {"over_time"}, "controlnet": {"over_time", "detail", "matte"}}
COMPARED_FRAMES = 12  # frames of each video whose likeness to the identity is measured


@dataclass
class Maker:
    """Makes the videos of a clip's tests.

    Attributes:
        pipeline: What is evaluated.
        folder: Where videos go; those that are there are taken as they are.
        seed: Of all of them.
        without: Parts of the pipeline to leave out.
    """

    pipeline: TccpPipeline
    folder: Path
    seed: int = 0
    without: tuple[str, ...] = ()
    _animate: ThpadPipeline | None = None

    def portrait(self, clip: Clip) -> Path:
        """The clip's last frame as a picture: the identity to fill in."""
        path = self.folder / "identity" / f"{clip.name}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            seen = clip.track.frames[clip.track.found]
            image = next(iter(frames_at(clip.path, [int(seen[-1])])))
            Image.fromarray(image).save(path)
        return path

    def __call__(self, test: str, clip: Clip) -> Path:
        """The video of a test; stage 1's landmarks lie beside those that ``fill`` makes."""
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
        """The clip with its own face filled into a hole where it was."""
        options: dict[str, Any] = {"margin": HOLE_MARGIN, "seed": self.seed, "without": without}
        takes = self.pipeline(clip.path, clip.path, identity=self.portrait(clip), chained=chained, **options)
        return takes[0]

    def _pasted(self, clip: Clip, target: Path) -> Path:
        """The portrait talks by ``animate``; each of its frames is moved onto the hidden face's real mesh."""
        self._animate = self._animate or ThpadPipeline.from_pretrained()
        source = SourceVideo(clip.path)
        talking = self._animate(self.portrait(clip), clip.path, seed=self.seed, fps=float(source.fps))[0]
        portrait = clip.track.points[clip.track.found][-1]
        with VideoWriter(target, source.size, source.fps, clip.path, like=source) as writer:
            for frame, image in zip(source, talking, strict=False):
                writer.write(
                    _pasted_over(frame.image, image, portrait, _nearest(clip, frame.time)), frame.time
                )
        return target


def _pasted_over(
    hidden: np.ndarray, image: np.ndarray, portrait: np.ndarray, points: np.ndarray
) -> np.ndarray:
    """A frame of a talking portrait, pasted into the hole of a frame.

    Args:
        hidden: (H, W, 3) uint8, the frame.
        image: (h, w, 3) uint8, the portrait's frame.
        portrait: (478, 3) the portrait's mesh at rest.
        points: (478, 3) the real mesh in the frame: the similarity that moves the portrait's rigid points
            (eyes and nose) onto it moves the picture.

    Returns:
        (H, W, 3) uint8.
    """
    size = (hidden.shape[1], hidden.shape[0])
    rigid = tp.RIGID
    matrix, _ = cv2.estimateAffinePartial2D(
        portrait[rigid, :2].astype(np.float32), points[rigid, :2].astype(np.float32)
    )
    moved = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    hole = face_hole(points, size, HOLE_MARGIN)
    filled = joined(hidden.astype(np.float32), moved.astype(np.float32), hole)
    return filled.clip(0, 255).round().astype(np.uint8)


def _nearest(clip: Clip, time: float) -> np.ndarray:
    """The clip's mesh (478, 3) at a time in seconds."""
    mesh: np.ndarray = clip.track.points[int(np.abs(clip.track.times - time).argmin())]
    return mesh


def against_truth(landmarks: Landmarks, clip: Clip, face: FaceModel, neutral: np.ndarray) -> dict[str, float]:
    """How far stage 1's landmarks and poses are from those of the hidden face.

    Args:
        landmarks: Stage 1's.
        clip: The clip before its face was hidden.
        face: The 3DMM.
        neutral: (478, 3) the identity's face at rest.

    Returns:
        ``landmark_error`` in inter-ocular distances, ``pose_error`` in degrees.
    """
    made = landmarks.meshes(face, neutral)
    real = np.stack([_nearest(clip, time) for time in landmarks.times])
    there = landmarks.there
    away = np.linalg.norm((made - real)[:, : tp.FACE_VERTICES, :2], axis=-1).mean(1) / tp.inter_ocular(real)
    rotations = [estimate_pose(points, neutral).rotation for points in (made, real)]
    between = np.einsum("tij,tij->t", *rotations)
    angle = np.degrees(np.arccos(np.clip((between - 1) / 2, -1, 1)))
    return {"landmark_error": float(away[there].mean()), "pose_error": float(angle[there].mean())}


def evaluate_fill(request: Request, tests: Sequence[str] = TESTS) -> dict[str, Any]:
    """Hide and fill the face of every clip of a split, score it beside its baselines, write a report.

    Args:
        request: What to evaluate on.
        tests: Which of :data:`TESTS` to do.

    Raises:
        UnreadableMedia: There is nothing to evaluate on.
        ModelUnavailable: A model is missing in ``models``.
        InvalidOption: Something is to be left out that is not in
            :data:`~talkface.systems.tccp.pipeline.ABLATIONS`.
    """
    request.check_without(ABLATIONS)
    manifest, items = talking_items(request.data, request.split, request.limit)
    scorer = PairScorer(sync_judges())
    library = Library(manifest, scorer.tracker)
    pipeline, left_out = TccpPipeline.from_pretrained(request.weights), list[str]()
    maker = Maker(pipeline, request.videos, request.seed, request.without)
    todo = [(test, item) for test in TESTS if test in tests for item in items]
    for test, item in counted(todo, lambda pair: f"{pair[0]}/{pair[1].key}"):
        with leaving_out(f"{test}/{item.key}", left_out):
            clip = library.clip(item)
            encoded = maker.folder / "real" / f"{clip.name}.mp4"
            made = maker(test, clip)
            row = scorer(test, replace(clip, encoded=encoded if encoded.exists() else None), made)
            row |= _figures_of_filling(clip, made, maker, scorer.face)
    settings = {"system": "fill", "split": request.split, "seed": request.seed}
    settings |= {"without": sorted(request.without), "fill_revision": FILL_REVISION}
    settings |= scorer.protocol() | recognisers_used()
    return write_tests(request.output, settings, scorer.tests, left_out, {})


def _figures_of_filling(clip: Clip, made: Path, maker: Maker, face: FaceModel) -> dict[str, float]:
    """What is measured of filled videos only: the hole, consistency, likeness to the identity, landmarks."""
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


def _likeness(made: Path, track: FaceTrack, identity: PortraitIdentity) -> dict[str, float]:
    """``csim_mobileface``: mean cosine of the identity's picture and of frames spread over a video."""
    describe, seen = mobileface_recogniser(), np.flatnonzero(track.found)
    if describe is None or not len(seen):
        return {}
    wanted = describe(identity.images[0], identity.points[0])
    places = np.unique(np.linspace(0, len(seen) - 1, COMPARED_FRAMES).round().astype(int))
    shown = frames_at(made, [int(track.frames[seen[k]]) for k in places])
    faces = [describe(image, track.points[seen[k]]) for image, k in zip(shown, places, strict=True)]
    return {"csim_mobileface": float(np.mean([picture.cosine(wanted, one) for one in faces]))}
