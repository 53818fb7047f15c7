"""Evaluates ``talkface animate``: each clip's own person, from its first frame, says the clip's own words."""

import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from talkface.evaluation import report
from talkface.evaluation.figures import motion, picture, sync
from talkface.evaluation.judges.recognisers import dlib_recogniser
from talkface.evaluation.protocols.clips import Clip, Library, frames_at, spread, talking_items, voice
from talkface.evaluation.protocols.request import Request, counted, leaving_out
from talkface.evaluation.protocols.scores import Scores, write_single
from talkface.evaluation.tracking import TrackedFace, of_equal_length, resample_track, track_file
from talkface.face.model import FaceModel
from talkface.face.tracker import FaceTracker
from talkface.systems.thpad.pipeline import ThpadPipeline

ANIMATE_REVISION = 2  # of the figures' definitions: part of the protocol, raised when one changes
_TAKES_EVERY = 8  # every so many clips are generated a second time, with another seed
_SHOWN = 6  # frames of each clip in the contact sheets


class PortraitScorer:
    """Scores videos made from the first frame and the sound of a real one, one after the other."""

    def __init__(self) -> None:
        self.tracker, self.face = FaceTracker(threads=2), FaceModel.from_pretrained()
        self.scores = Scores()

    def __call__(self, clip: Clip, generated: Path) -> TrackedFace:
        """Add a video; gives its tracked face."""
        made, true = of_equal_length([self.tracked(clip, generated), self._real(clip)])
        speaks, sounds = voice(generated, clip.span[0], len(made))
        row = clip.row(len(made))
        row["face_found"] = float(made.found.mean())
        row |= sync.lip_sync(made, true, sounds) | sync.silence(made, true, speaks)
        row |= motion.head_and_eyes_beside(made, true)
        figures, strip, own = self._pictures(clip, generated)
        # Of the real person there is only the portrait's descriptor; frames are not collected.
        faces = None if own is None else (own[None], np.zeros((0, len(own))))
        self.scores.add(row | figures, made, true, strip, faces)
        return made

    def tracked(self, clip: Clip, generated: Path) -> TrackedFace:
        """The face of a video made from a clip, over the time in which the clip's own is tracked."""
        return resample_track(track_file(generated, self.tracker), self.face, *clip.span)

    def _real(self, clip: Clip) -> TrackedFace:
        return resample_track(clip.track, self.face, *clip.span)

    def _pictures(
        self, clip: Clip, generated: Path
    ) -> tuple[dict[str, float], np.ndarray, np.ndarray | None]:
        """Likeness and sharpness of some generated frames, compared with the first real one.

        Returns:
            The figures, a strip for the contact sheets, and the person's descriptor if there is a recogniser.
        """
        made = list(frames_at(generated, spread(generated, _SHOWN)))
        portrait, points = _first_frame(clip), clip.track.points[0]
        shown = frames_at(clip.path, spread(clip.path, _SHOWN // 2))
        strip = report.strip([portrait, *made, *shown])
        reference = picture.mouth_sharpness(portrait, points)
        sharp, pairs = [], []
        describe = dlib_recogniser()
        own = describe(portrait, points) if describe else None
        for frame in made:
            meshes = self.tracker.track_image(frame)
            if not meshes:
                continue
            sharp.append(picture.mouth_sharpness(frame, meshes[0].points) / max(reference, 1e-6))
            if describe and own is not None:
                pairs.append((own, describe(frame, meshes[0].points)))
        figures = {"mouth_sharpness": float(np.median(sharp))} if sharp else {}
        return figures | picture.mean_likeness(pairs), strip, own


def evaluate_animate(request: Request) -> dict[str, Any]:
    """Animate every clip of a split from its first frame and sound, score the videos, write a report.

    Raises:
        UnreadableMedia: There is nothing to evaluate on.
        InvalidOption: Parts are to be left out, of which ``animate`` has none.
    """
    request.check_without(())
    manifest, items = talking_items(request.data, request.split, request.limit)
    scorer, takes, seed = PortraitScorer(), [], request.seed
    library, pipeline = Library(manifest, scorer.tracker), ThpadPipeline.from_pretrained(request.weights)
    request.videos.mkdir(parents=True, exist_ok=True)
    for index, item in enumerate(counted(items, lambda item: item.key)):
        with leaving_out(item.key):
            clip = library.clip(item)
            made = scorer(clip, _animate(pipeline, clip, request.videos / f"{clip.name}.mp4", seed))
            if index % _TAKES_EVERY == 0:
                second = _animate(pipeline, clip, request.videos / f"{clip.name}_take2.mp4", seed + 1)
                takes.append(motion.diversity([made, scorer.tracked(clip, second)]))
    settings = {"system": "animate", "split": request.split, "seed": seed, "revision": ANIMATE_REVISION}
    return write_single(request.output, settings, scorer.scores, {"takes": report.summarise(takes)})


def _animate(pipeline: ThpadPipeline, clip: Clip, target: Path, seed: int) -> Path:
    """The clip's person, from its first frame, saying the clip's own words."""
    if target.exists():
        return target
    with tempfile.TemporaryDirectory() as folder:
        portrait = Path(folder) / "portrait.png"
        cv2.imwrite(str(portrait), _first_frame(clip)[:, :, ::-1])
        pipeline(portrait, clip.path, seed=seed).save(target)
    return target


def _first_frame(clip: Clip) -> np.ndarray:
    """The first frame (H, W, 3) uint8 in which the face is tracked."""
    return next(frames_at(clip.path, [int(clip.track.frames[0])]))
