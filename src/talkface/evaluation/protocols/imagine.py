"""How well ``talkface imagine`` makes people of voices: what is heard, who is shown, and how they speak."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from talkface.data.arrays import keep_arrays
from talkface.data.attributes import FaceRes
from talkface.errors import InvalidOption, TalkfaceError
from talkface.evaluation import report
from talkface.evaluation.figures import motion as motion_figures
from talkface.evaluation.figures import picture, sync
from talkface.evaluation.figures.performance import RATE, perform, track_file
from talkface.evaluation.figures.steadiness import drift, unexplained_change
from talkface.evaluation.protocols.clips import Clip, Library, frames_at, spread, talking_items, voice
from talkface.evaluation.protocols.voices import Voices, judge_moods, judge_swaps, judge_voices
from talkface.face.model import FaceModel
from talkface.face.tracker import FaceTrack, FaceTracker
from talkface.systems.imagineid.pipeline import ImagineIdPipeline
from talkface.systems.imagineid.portrait import Wish, adherence

logger = logging.getLogger(__name__)

REVISION = 2  # of what the figures mean: part of the protocol, raised when one is defined otherwise
_SHOWN = 6  # frames of each clip in the contact sheets
_STILL_EVERY = 8  # every so many clips are made a second time with a still head


@dataclass(frozen=True)
class Made:
    """A generated video, and the meshes (T, 478, 2) that its frames were asked to show, in its pixels."""

    path: Path
    meshes: np.ndarray


class VideoScorer:
    """Makes and scores videos of imagined people who say what real ones said.

    Args:
        pipeline: what is evaluated.
        folder: the videos lie here; those that are there already are scored as they are.
        seed: of the first video; each clip has the next one.
        options: of the pipeline.
    """

    def __init__(self, pipeline: ImagineIdPipeline, folder: Path, seed: int, **options: Any) -> None:
        self.pipeline, self.folder, self.seed, self.options = pipeline, folder, seed, options
        self.tracker, self.face = FaceTracker(threads=2), FaceModel.from_pretrained()
        self.rows: list[dict[str, Any]] = []
        self.strips: list[np.ndarray] = []

    def __call__(self, clip: Clip, number: int) -> None:
        """Add a clip's speech."""
        made = self._make(clip, number, still=False)
        track = track_file(made.path, self.tracker)
        start, stop = (float(clip.track.times[k]) for k in (0, -1))
        mine, true = perform(track, self.face, start, stop), perform(clip.track, self.face, start, stop)
        length = min(len(mine), len(true))
        mine, true = mine.first(length), true.first(length)
        speaks, sounds = voice(clip.path, start, length)
        row: dict[str, Any] = {"name": clip.name, "group": clip.group, "seconds": length / RATE}
        row["face_found"] = float(track.found.sum() / len(made.meshes))
        row |= sync.lip_sync(mine, true, sounds)
        row.pop("mouth_lmd", None)  # two people's mouths are not at the same place, nor closed alike
        for prefix, who in (("", mine), ("real_", true)):
            quiet = sync.silence(who, who, speaks)
            row |= {f"{prefix}silent_opening": quiet["silent_opening"]} if quiet else {}
        row |= motion_figures.head_and_eyes(mine)
        row |= {f"real_{name}": value for name, value in motion_figures.head_and_eyes(true).items()}
        row |= self._against_mesh(track, made) | self._looks(made, track)
        row["flicker"] = unexplained_change(made.path, track) / max(
            unexplained_change(clip.path, clip.track), 1e-6
        )
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
                raise InvalidOption(f"{self.folder} holds videos made otherwise; choose another --output")
            return Made(path, arrays["points"].astype(np.float32))

    @staticmethod
    def _against_mesh(track: FaceTrack, made: Made) -> dict[str, float]:
        """How far the tracked face lies from the mesh that the frame was drawn over."""
        numbers = np.minimum(track.frames, len(made.meshes) - 1)
        apart = [
            adherence(found, made.meshes[number])
            for found, number, seen in zip(track.points, numbers, track.found, strict=True)
            if seen
        ]
        return {"mesh_adherence": float(np.mean(apart))} if apart else {}

    def _looks(self, made: Made, track: FaceTrack) -> dict[str, float]:
        """Whether it stays one person, from frames spread over the video."""
        numbers = spread(made.path, _SHOWN)
        shown = list(frames_at(made.path, [0, *numbers]))
        self.strips.append(report.strip(shown))
        places = [int(np.clip(n - track.frames[0], 0, len(track.points) - 1)) for n in [0, *numbers]]
        found: dict[str, float] = {}
        for judge, describe in (("", picture.recogniser()), ("_mobileface", picture.second_recogniser())):
            if describe is None:
                continue
            faces = [describe(image, track.points[place]) for image, place in zip(shown, places, strict=True)]
            alike = [picture.likeness(faces[0], other)["csim"] for other in faces[1:]]
            found[f"csim_within{judge}"] = float(np.mean(alike))
        return found


def evaluate_imagine(
    data: Path,
    output: Path,
    *,
    split: str = "val",
    limit: int | None = None,
    seed: int = 0,
    renderer: str = "auto",
    models: Path | None = None,
    without: Sequence[str] = (),
) -> dict[str, Any]:
    """Imagine people for held-out voices, score what is heard and shown, write a report.

    Args:
        data: what ``talkface prepare`` wrote.
        output: report, contact sheets and videos go here; videos already there are scored as they are.
        split: "val" or "train", of the clips; voices and moods are always held-out people's.
        limit: at most so many clips and voices, spread over the lists.
        seed: seed of the first person.
        renderer: "auto", "warp" or "diffusion".
        models: folder of the models to use; by default those shipped.
        without: parts to leave out: "tia", "texture", "restorer", "reference", "mba", "before".

    Raises:
        UnreadableMedia: there is nothing to evaluate on.
    """
    manifest, items = talking_items(data, split, limit)
    pipeline, wish = _pipeline(models), Wish(without=frozenset(without))
    options = {"renderer": pipeline.choose_renderer(renderer, wish), "without": sorted(without)}
    prepared = (manifest.directory / "manifest.jsonl").is_file()
    if prepared:
        FaceRes()  # if it is missing, better now than in an hour
    else:
        logger.warning("videos are scored, voices and moods are not: they need a prepared folder")
    folder = Path(output) / "videos"
    folder.mkdir(parents=True, exist_ok=True)
    scorer = VideoScorer(pipeline, folder, seed, **options)
    library = Library(manifest, items, scorer.tracker)
    for number, item in enumerate(items):
        logger.info("%d/%d %s", number + 1, len(items), item.key)
        try:
            scorer(library.clip(item), number)
        except InvalidOption:
            raise
        except TalkfaceError as error:
            logger.warning("%s: left out: %s", item.key, error)
    tests, voices = {"videos": scorer.rows}, Voices()
    if prepared:
        voices = judge_voices(pipeline, manifest, limit, seed, wish)
        tests |= {
            "voices": voices.rows,
            "moods": judge_moods(pipeline.listener, manifest, limit),
            "swaps": judge_swaps(pipeline, manifest, items, seed, **options),
        }
    settings = {"system": "imagine", "split": split, "seed": seed, "revision": REVISION, **options}
    settings["second_recogniser"] = "mobileface" if picture.second_recogniser() else None
    settings["face_recogniser"] = "dlib_face_recognition_resnet_model_v1" if picture.recogniser() else None
    rows = [{"test": test, **row} for test, part in tests.items() for row in part]
    result = report.headed(settings, [f"{row['test']}/{row['name']}" for row in rows])
    result["tests"] = {
        test: {"groups": _groups(part, together=test != "swaps")} for test, part in tests.items() if part
    }
    result |= voices.whole
    strips = {"videos": scorer.strips, "portraits": voices.strips, "nearest": voices.nearest}
    report.write(Path(output), result, rows, strips)
    return result


def _pipeline(models: Path | None) -> ImagineIdPipeline:
    if models is None:
        return ImagineIdPipeline.from_pretrained()
    return ImagineIdPipeline.from_pretrained(str(models), base=str(models))


def _groups(rows: list[dict[str, Any]], together: bool) -> dict[str, Any]:
    """Summaries of all rows, if they belong together, and of each group."""
    names = sorted({row["group"] for row in rows})
    parts = {name: [row for row in rows if row["group"] == name] for name in names}
    parts = {"all": rows, **parts} if together else parts
    return {name: report.summarise(part) for name, part in parts.items()}
