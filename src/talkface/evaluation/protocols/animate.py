"""How well ``talkface animate`` gives a clip's own person saying the clip's own words."""

import logging
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import talkface
from talkface.errors import TalkfaceError
from talkface.evaluation import report
from talkface.evaluation.figures import motion as motion_figures
from talkface.evaluation.figures import picture, sync
from talkface.evaluation.figures.performance import RATE, Performance, perform, track_file
from talkface.evaluation.protocols.clips import Clip, Library, frames_at, spread, talking_items, voice
from talkface.evaluation.protocols.scores import Scores
from talkface.face.model import FaceModel
from talkface.face.tracker import FaceTrack, FaceTracker

logger = logging.getLogger(__name__)

REVISION = 2  # of what the figures mean: part of the protocol, raised when one is defined otherwise
TAKES_EVERY = 8  # every so many clips are generated a second time, with another seed
_SHOWN = 6  # frames of each clip in the contact sheets


class PortraitScorer:
    """Scores videos made from the first frame and the sound of a real one, one after the other."""

    def __init__(self) -> None:
        self.tracker, self.face = FaceTracker(threads=2), FaceModel.from_pretrained()
        self.scores = Scores()

    def __call__(self, clip: Clip, generated: Path) -> Performance:
        """Add a video; gives the generated performance."""
        made = perform(track_file(generated, self.tracker), self.face, *_span(clip.track))
        true = perform(clip.track, self.face, *_span(clip.track))
        length = min(len(made), len(true))
        made, true = made.first(length), true.first(length)
        speaks, sounds = voice(generated, float(clip.track.times[0]), length)
        row: dict[str, Any] = {"name": clip.name, "group": clip.group, "seconds": length / RATE}
        row["face_found"] = float(made.found.mean())
        row |= sync.lip_sync(made, true, sounds) | sync.silence(made, true, speaks)
        row |= motion_figures.head_and_eyes(made)
        row |= {f"real_{k}": v for k, v in motion_figures.head_and_eyes(true).items()}
        figures, strip, own = self._picture(clip, generated)
        # Only the real person's descriptor is kept: the portrait's.
        faces = None if own is None else (own[None], np.zeros((0, len(own))))
        self.scores.add(row | figures, made, true, strip, faces)
        return made

    def _picture(self, clip: Clip, generated: Path) -> tuple[dict[str, float], np.ndarray, np.ndarray | None]:
        """Likeness and sharpness of some generated frames against the first real one.

        Returns:
            The figures, a strip for the contact sheets, and the person's descriptor if there is a recogniser.
        """
        made = list(frames_at(generated, spread(generated, _SHOWN)))
        portrait = next(frames_at(clip.path, [int(clip.track.frames[0])]))
        shown = frames_at(clip.path, spread(clip.path, _SHOWN // 2))
        strip = report.strip([portrait, *made, *shown])
        reference = picture.mouth_sharpness(portrait, clip.track.points[0])
        sharp, alike = [], []
        describe = picture.recogniser()
        own = describe(portrait, clip.track.points[0]) if describe else None
        for frame in made:
            meshes = self.tracker.track_image(frame)
            if not meshes:
                continue
            sharp.append(picture.mouth_sharpness(frame, meshes[0].points) / max(reference, 1e-6))
            if describe and own is not None:
                alike.append(picture.likeness(own, describe(frame, meshes[0].points)))
        figures = {"mouth_sharpness": float(np.median(sharp))} if sharp else {}
        figures |= {k: float(np.mean([a[k] for a in alike])) for k in (alike[0] if alike else {})}
        return figures, strip, own


def evaluate_animate(
    data: Path, output: Path, *, split: str = "val", limit: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Animate every clip of a split from its first frame and sound, score the videos, write a report.

    Args:
        data: what ``talkface prepare`` wrote, or a folder of talking-face videos (tracked on the way).
        output: report, contact sheets and videos go here; videos already there are scored as they are.
        split: "val" or "train".
        limit: at most so many clips, spread over the list.
        seed: seed of the generated videos.

    Raises:
        UnreadableMedia: there is nothing to evaluate on.
    """
    manifest, items = talking_items(data, split, limit)
    scorer, takes = PortraitScorer(), []
    library = Library(manifest, items, scorer.tracker)
    (output / "videos").mkdir(parents=True, exist_ok=True)
    for index, item in enumerate(items):
        logger.info("%d/%d %s", index + 1, len(items), item.key)
        try:
            takes += _evaluate(
                scorer, library.clip(item), output / "videos", seed, again=index % TAKES_EVERY == 0
            )
        except TalkfaceError as error:
            logger.warning("%s: left out: %s", item.key, error)
    settings = {"system": "animate", "split": split, "seed": seed, "revision": REVISION}
    result = report.headed(settings, [row["name"] for row in scorer.scores.rows])
    result["groups"] = scorer.scores.groups()
    result["takes"] = report.summarise(takes)
    result |= scorer.scores.strangers()
    report.write(output, result, scorer.scores.rows, {"sheet": scorer.scores.strips})
    return result


def _evaluate(
    scorer: PortraitScorer, clip: Clip, folder: Path, seed: int, again: bool
) -> list[dict[str, float]]:
    made = scorer(clip, _animate(clip, folder / f"{clip.name}.mp4", seed))
    if not again:
        return []
    second = _animate(clip, folder / f"{clip.name}_take2.mp4", seed + 1)
    other = perform(track_file(second, scorer.tracker), scorer.face, *_span(clip.track))
    return [motion_figures.diversity([made, other])]


def _animate(clip: Clip, target: Path, seed: int) -> Path:
    """The clip's person, from its first frame, saying the clip's own words."""
    if target.exists():
        return target
    with tempfile.TemporaryDirectory() as folder:
        portrait = Path(folder) / "portrait.png"
        frame = next(frames_at(clip.path, [int(clip.track.frames[0])]))
        cv2.imwrite(str(portrait), frame[:, :, ::-1])
        talkface.animate(portrait, clip.path, seed=seed).save(target)
    return target


def _span(track: FaceTrack) -> tuple[float, float]:
    return float(track.times[0]), float(track.times[-1])
