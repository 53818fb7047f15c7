"""Evaluates ``talkface imagine``: videos of imagined people, portraits for held-out voices, moods, swaps."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from talkface.data.arrays import keep_arrays
from talkface.data.attributes import FaceRes
from talkface.data.manifest import Item, Manifest
from talkface.errors import InvalidOption
from talkface.evaluation import report
from talkface.evaluation.figures import motion, picture, sync
from talkface.evaluation.figures.steadiness import drift, unexplained_change
from talkface.evaluation.judges.recognisers import recognisers, recognisers_used
from talkface.evaluation.protocols.clips import Clip, Library, frames_at, spread, talking_items, voice
from talkface.evaluation.protocols.moods import judge_moods
from talkface.evaluation.protocols.request import Request, counted, leaving_out
from talkface.evaluation.protocols.swaps import judge_swaps
from talkface.evaluation.protocols.voices import Voices, judge_voices
from talkface.evaluation.tracking import TrackedFace, of_equal_length, resample_track, track_file
from talkface.face.model import FaceModel
from talkface.face.tracker import FaceTrack, FaceTracker
from talkface.systems.imagineid.pipeline import ImagineIdPipeline
from talkface.systems.imagineid.portrait import ABLATIONS, PortraitOptions, adherence

logger = logging.getLogger(__name__)

IMAGINE_REVISION = 2  # of the figures' definitions: part of the protocol, raised when one changes
_SHOWN = 6  # frames of each clip in the contact sheets
_STILL_EVERY = 8  # every so many clips are made a second time with a still head


@dataclass(frozen=True)
class Made:
    """A generated video.

    Attributes:
        path: The file.
        meshes: (T, 478, 2) the meshes that its frames were drawn over, in its pixels.
    """

    path: Path
    meshes: np.ndarray


class VideoScorer:
    """Makes and scores videos of imagined people who say what real ones said.

    Args:
        pipeline: What is evaluated.
        folder: The videos lie here; those that are there already are scored as they are.
        seed: Of the first video; each clip has the next one.
        options: Of the pipeline.
    """

    def __init__(self, pipeline: ImagineIdPipeline, folder: Path, seed: int, options: dict[str, Any]) -> None:
        self.pipeline, self.folder, self.seed, self.options = pipeline, folder, seed, options
        self.tracker, self.face = FaceTracker(threads=2), FaceModel.from_pretrained()
        self.rows: list[dict[str, Any]] = []
        self.strips: list[np.ndarray] = []

    def __call__(self, clip: Clip, number: int) -> None:
        """Make and score the video of a clip's speech.

        Args:
            clip: The clip.
            number: Its place in the list, by which seeds are given.
        """
        made = self._make(clip, number, still=False)
        track = track_file(made.path, self.tracker)
        faces = [resample_track(which, self.face, *clip.span) for which in (track, clip.track)]
        mine, true = of_equal_length(faces)
        row = clip.row(len(mine))
        row["face_found"] = float(track.found.sum() / len(made.meshes))
        row |= _lip_figures(clip, mine, true) | motion.head_and_eyes_beside(mine, true)
        row |= _adherence(track, made) | self._likeness_within(made, track)
        change = unexplained_change(clip.path, clip.track)
        row["flicker"] = unexplained_change(made.path, track) / max(change, 1e-6)
        if number % _STILL_EVERY == 0:
            still = self._make(clip, number, still=True)
            row["background_drift"] = drift(still.path, still.meshes)
        self.rows.append(row)

    def _make(self, clip: Clip, number: int, still: bool) -> Made:
        path = self.folder / f"{clip.name}{'_still' if still else ''}.mp4"
        meshes = path.with_suffix(".npz")
        given = json.dumps({"seed": self.seed + number, **self.options}, sort_keys=True, default=list)
        if not (path.exists() and meshes.exists()):
            take = self.pipeline(clip.path, seed=self.seed + number, still=still, **self.options)[0]
            take.save(path, overwrite=True)
            points = take.meshes()[..., :2].astype(np.float16)
            keep_arrays(meshes, points=points, made_with=np.array(given))
        with np.load(meshes) as arrays:
            if str(arrays["made_with"]) != given:
                raise InvalidOption(
                    f"{self.folder} holds videos made with other options; choose another output folder"
                )
            return Made(path, arrays["points"].astype(np.float32))

    def _likeness_within(self, made: Made, track: FaceTrack) -> dict[str, float]:
        """Likeness of the first frame and of frames spread over the video: whether it stays one person."""
        numbers = [0, *spread(made.path, _SHOWN)]
        shown = list(frames_at(made.path, numbers))
        self.strips.append(report.strip(shown))
        places = [int(np.clip(n - track.frames[0], 0, len(track.points) - 1)) for n in numbers]
        found: dict[str, float] = {}
        for suffix, describe in recognisers().items():
            faces = [describe(image, track.points[place]) for image, place in zip(shown, places, strict=True)]
            alike = [picture.cosine(faces[0], other) for other in faces[1:]]
            found[f"csim_within{suffix}"] = float(np.mean(alike))
        return found


def _lip_figures(clip: Clip, mine: TrackedFace, true: TrackedFace) -> dict[str, float]:
    """Lip sync with the real lips, and closed mouths in silence, each person's own as reference."""
    speaks, sounds = voice(clip.path, clip.span[0], len(mine))
    found = sync.lip_sync(mine, true, sounds)
    found.pop("mouth_lmd", None)  # two people's mouths are not at the same place, nor closed alike
    for prefix, who in (("", mine), ("real_", true)):
        quiet = sync.silence(who, who, speaks)
        found |= {f"{prefix}silent_opening": quiet["silent_opening"]} if quiet else {}
    return found


def _adherence(track: FaceTrack, made: Made) -> dict[str, float]:
    """``mesh_adherence``: how far the tracked face lies from the mesh that the frame was drawn over."""
    numbers = np.minimum(track.frames, len(made.meshes) - 1)
    apart = [
        adherence(found, made.meshes[number])
        for found, number, seen in zip(track.points, numbers, track.found, strict=True)
        if seen
    ]
    return {"mesh_adherence": float(np.mean(apart))} if apart else {}


def evaluate_imagine(request: Request) -> dict[str, Any]:
    """Imagine people for held-out voices, score what is heard and shown, write a report.

    The split is that of the clips; voices and moods are always held-out people's.

    Raises:
        UnreadableMedia: There is nothing to evaluate on.
        InvalidOption: Something is to be left out that is not in
            :data:`~talkface.systems.imagineid.portrait.ABLATIONS`, or that the renderer does not have.
    """
    request.check_without(ABLATIONS)
    manifest, items = talking_items(request.data, request.split, request.limit)
    pipeline, drawing = _pipeline(request.models), PortraitOptions(without=frozenset(request.without))
    renderer = pipeline.choose_renderer(request.renderer, drawing)
    options: dict[str, Any] = {"renderer": renderer, "without": sorted(request.without)}
    prepared = (manifest.directory / "manifest.jsonl").is_file()
    if prepared:
        FaceRes()  # if it is missing, better now than in an hour
    else:
        logger.warning("only videos are scored: voices, moods and swaps need a prepared folder")
    request.videos.mkdir(parents=True, exist_ok=True)
    scorer = _score_videos(pipeline, manifest, items, request, options)
    tests, voices = {"videos": scorer.rows}, Voices()
    if prepared:
        voices = judge_voices(pipeline, manifest, request.limit, request.seed, drawing)
        tests |= {
            "voices": voices.rows,
            "moods": judge_moods(pipeline.analyzer, manifest, request.limit),
            "swaps": judge_swaps(pipeline, manifest, items, request.seed, options),
        }
    settings = {"system": "imagine", "split": request.split, "seed": request.seed}
    settings |= {"revision": IMAGINE_REVISION, **options, **recognisers_used()}
    result, rows = report.headed_tests(settings, tests)
    result["tests"] = {
        test: {"groups": _groups(part, together=test != "swaps")} for test, part in tests.items() if part
    }
    result |= voices.whole
    strips = {"videos": scorer.strips, "portraits": voices.strips, "nearest": voices.nearest}
    report.write(request.output, result, rows, strips)
    return result


def _score_videos(
    pipeline: ImagineIdPipeline,
    manifest: Manifest,
    items: Sequence[Item],
    request: Request,
    options: dict[str, Any],
) -> VideoScorer:
    """Make and score the videos of all clips."""
    scorer = VideoScorer(pipeline, request.videos, request.seed, options)
    library = Library(manifest, scorer.tracker)
    for number, item in enumerate(counted(items, lambda item: item.key)):
        with leaving_out(item.key, but=(InvalidOption,)):
            scorer(library.clip(item), number)
    return scorer


def _pipeline(models: Path | None) -> ImagineIdPipeline:
    if models is None:
        return ImagineIdPipeline.from_pretrained()
    return ImagineIdPipeline.from_pretrained(str(models), base=str(models))


def _groups(rows: list[dict[str, Any]], together: bool) -> dict[str, Any]:
    """Summaries of all rows, if they belong together, and of each group."""
    parts = {name: [rows[k] for k in indices] for name, indices in report.members(rows).items()}
    parts = {"all": rows, **parts} if together else parts
    return {name: report.summarise(part) for name, part in parts.items()}
