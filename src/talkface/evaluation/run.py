"""``talkface evaluate``: generate and score a validation list, or score pairs of files."""

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import talkface
from talkface.data.prepare import Item, Manifest, list_items
from talkface.errors import InvalidOption, TalkfaceError, UnreadableMedia
from talkface.evaluation import motion as motion_figures
from talkface.evaluation import picture, report, sync
from talkface.evaluation.performance import RATE, Performance, perform, track_file
from talkface.face.model import FaceModel
from talkface.face.tracker import FaceTrack, FaceTracker
from talkface.media.audio import read_audio
from talkface.media.video import VideoReader
from talkface.speech.activity import voice_activity

logger = logging.getLogger(__name__)

REVISION = 2  # of what the figures mean: part of the protocol, raised when one is defined otherwise
TAKES_EVERY = 8  # every so many clips are generated a second time, with another seed
_SHOWN = 6  # frames of each clip in the contact sheets
_VIDEOS = {".mp4", ".mov", ".mkv", ".webm", ".avi"}


@dataclass
class Scores:
    """A row of figures per clip, and what can only be compared over all clips."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    strips: list[np.ndarray] = field(default_factory=list)
    generated: list[Performance] = field(default_factory=list)
    real: list[Performance] = field(default_factory=list)
    descriptors: list[np.ndarray] = field(default_factory=list)


class Scorer:
    """Scores one generated video after the other against the real one."""

    def __init__(self) -> None:
        self.tracker, self.face = FaceTracker(threads=2), FaceModel.from_pretrained()
        self.scores = Scores()

    def __call__(
        self, name: str, group: str, real_file: Path, real: FaceTrack, generated_file: Path
    ) -> Performance:
        """Add a pair; gives the generated performance."""
        made = perform(track_file(generated_file, self.tracker), self.face, *_span(real))
        true = perform(real, self.face, *_span(real))
        length = min(len(made), len(true))
        made, true = _first(made, length), _first(true, length)
        voice, sounds = _voice(generated_file, real, length)
        row: dict[str, Any] = {"name": name, "group": group, "seconds": length / RATE}
        row["face_found"] = float(made.found.mean())
        row |= sync.lip_sync(made, true, sounds) | sync.silence(made, true, voice)
        row |= motion_figures.head_and_eyes(made)
        row |= {f"real_{k}": v for k, v in motion_figures.head_and_eyes(true).items()}
        row |= self._picture(real_file, real, generated_file)
        self.scores.rows.append(row)
        self.scores.generated.append(made)
        self.scores.real.append(true)
        return made

    def _picture(self, real_file: Path, real: FaceTrack, generated_file: Path) -> dict[str, float]:
        """Likeness and sharpness of some generated frames against the first real one."""
        made = list(_frames(generated_file, _spread(generated_file, _SHOWN)))
        portrait = next(_frames(real_file, [int(real.frames[0])]))
        shown = _frames(real_file, _spread(real_file, _SHOWN // 2))
        self.scores.strips.append(report.strip([portrait, *made, *shown]))
        reference = picture.mouth_sharpness(portrait, real.points[0])
        sharp, alike = [], []
        describe = picture.recogniser()
        own = describe(portrait, real.points[0]) if describe else None
        if own is not None:
            self.scores.descriptors.append(own)
        for frame in made:
            meshes = self.tracker.track_image(frame)
            if not meshes:
                continue
            sharp.append(picture.mouth_sharpness(frame, meshes[0].points) / max(reference, 1e-6))
            if describe and own is not None:
                alike.append(picture.likeness(own, describe(frame, meshes[0].points)))
        figures = {"mouth_sharpness": float(np.median(sharp))} if sharp else {}
        return figures | {k: float(np.mean([a[k] for a in alike])) for k in (alike[0] if alike else {})}

    def report(self, **settings: Any) -> dict[str, Any]:
        """Figures over all clips and by group."""
        scores, groups = self.scores, sorted({row["group"] for row in self.scores.rows})
        members = {g: [k for k, row in enumerate(scores.rows) if row["group"] == g] for g in groups}
        whole = {"all": list(range(len(scores.rows))), **members}
        settings |= {"clips": sorted(row["name"] for row in scores.rows)}
        settings |= {"talkface": talkface.__version__, "revision": REVISION}
        return {
            "protocol": report.protocol_hash(settings),
            "settings": {k: v for k, v in settings.items() if k != "clips"},
            "groups": {name: self._group(indices) for name, indices in whole.items()},
        }

    def _group(self, indices: list[int]) -> dict[str, Any]:
        rows = [self.scores.rows[k] for k in indices]
        made, real = ([which[k] for k in indices] for which in (self.scores.generated, self.scores.real))
        figures: dict[str, Any] = dict(report.summarise(rows))
        tells = [k for k, row in enumerate(rows) if "aperture_r" in row]
        figures["offset_frames"] = _common_offset([made[k] for k in tells], [real[k] for k in tells])
        figures["aperture_r_chance"] = _chance([made[k] for k in tells], [real[k] for k in tells])
        ratios = {
            name: _ratio(rows, name) for name in ("pose_variance", "gaze_std", "jitter", "blinks_per_minute")
        }
        figures["ratio_to_real"] = ratios
        if sum(map(len, made)) > 500:
            figures |= motion_figures.similarity_of_natural_dynamics(made, real)
        return figures


def evaluate_system(
    system: str, data: Path, output: Path, *, split: str = "val", limit: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Generate every clip of a split from its first frame and sound; score them; write a report.

    Args:
        system: "animate".
        data: what ``talkface prepare`` wrote, or a folder of talking-face videos (tracked on the way).
        output: report.json, clips.csv, sheets/, videos/ go here; videos already there are scored as they are.
        split: "val" or "train".
        limit: at most so many clips, spread over the list.
        seed: seed of the generated videos.

    Raises:
        InvalidOption, UnreadableMedia.
    """
    if system != "animate":
        raise InvalidOption(f"system is {system!r}; choose animate")
    manifest = _manifest(Path(data))
    items = [i for i in manifest.items if i.has_video and i.has_speech and i.usable and i.split == split]
    if not items:
        raise UnreadableMedia(f"{data} has no talking-face clips in its split {split!r}")
    if limit and limit < len(items):
        items = [items[k] for k in np.linspace(0, len(items) - 1, limit).round().astype(int)]
    output, scorer = Path(output), Scorer()
    (output / "videos").mkdir(parents=True, exist_ok=True)
    takes: list[dict[str, float]] = []
    for index, item in enumerate(items):
        logger.info("%d/%d %s", index + 1, len(items), item.key)
        try:
            takes += _evaluate(
                scorer, manifest, item, output / "videos", seed, again=index % TAKES_EVERY == 0
            )
        except TalkfaceError as error:
            logger.warning("%s: left out: %s", item.key, error)
    result = scorer.report(system=system, split=split, seed=seed)
    result["takes"] = report.summarise(takes)
    return _finish(output, result, scorer)


def _evaluate(
    scorer: Scorer, manifest: Manifest, item: Item, folder: Path, seed: int, again: bool
) -> list[dict[str, float]]:
    source = manifest.file(item)
    track = _real_track(manifest, item, scorer.tracker)
    group = _group_of(item)
    first = _animate(source, track, folder / f"{item.key}.mp4", seed)
    made = scorer(item.key, group, source, track, first)
    if not again:
        return []
    second = _animate(source, track, folder / f"{item.key}_take2.mp4", seed + 1)
    other = perform(track_file(second, scorer.tracker), scorer.face, *_span(track))
    return [motion_figures.diversity([made, other])]


def _animate(source: Path, track: FaceTrack, target: Path, seed: int) -> Path:
    """The clip's person, from its first frame, saying the clip's own words."""
    if target.exists():
        return target
    with tempfile.TemporaryDirectory() as folder:
        portrait = Path(folder) / "portrait.png"
        frame = next(_frames(source, [int(track.frames[0])]))
        cv2.imwrite(str(portrait), frame[:, :, ::-1])
        talkface.animate(portrait, source, seed=seed).save(target)
    return target


def evaluate_pairs(real: Path, generated: Path, output: Path) -> dict[str, Any]:
    """Score generated videos beside real ones: two files, or two folders of files of the same names.

    Raises:
        UnreadableMedia: nothing to compare.
    """
    pairs, scorer = _pairs(Path(real), Path(generated)), Scorer()
    for true, made in pairs:
        logger.info("%s", made.name)
        scorer(made.stem, "pairs", true, track_file(true, scorer.tracker), made)
    return _finish(Path(output), scorer.report(system="pairs"), scorer)


def _pairs(real: Path, generated: Path) -> list[tuple[Path, Path]]:
    if real.is_file() and generated.is_file():
        return [(real, generated)]
    made = {p.stem: p for p in generated.glob("*") if p.suffix.lower() in _VIDEOS}
    true = {p.stem: p for p in real.glob("*") if p.suffix.lower() in _VIDEOS}
    if not made.keys() & true.keys():
        raise UnreadableMedia(f"no video in {generated} has the name of one in {real}")
    return [(true[name], made[name]) for name in sorted(made.keys() & true.keys())]


def _finish(output: Path, result: dict[str, Any], scorer: Scorer) -> dict[str, Any]:
    descriptors = scorer.scores.descriptors
    if len(descriptors) > 2:
        strangers = [
            picture.likeness(a, b)["csim"]
            for a, b in zip(descriptors, descriptors[1:] + descriptors[:1], strict=True)
        ]
        result["csim_neighbours_in_list"] = float(np.mean(strangers))
    report.write_report(output, result, scorer.scores.rows)
    report.write_sheets(output / "sheets", scorer.scores.strips)
    return result


# -- small parts -----------------------------------------------------------------------------------


def _manifest(data: Path) -> Manifest:
    if (data / "manifest.jsonl").is_file():
        return Manifest.load(data)
    if not data.is_dir():
        raise UnreadableMedia(f"{data} is not a folder of videos, nor one that `talkface prepare` wrote")
    return Manifest(data / "prepared", data, list_items(data))


def _real_track(manifest: Manifest, item: Item, tracker: FaceTracker) -> FaceTrack:
    if manifest.track_path(item).is_file():
        track = manifest.track(item)
        return FaceTrack(0, track.times, track.points, track.found, track.frames)
    return track_file(manifest.file(item), tracker)


def _group_of(item: Item) -> str:
    """GRID's many-sentence speaker, its other speakers, and everybody else."""
    if item.corpus != "GRID":
        return "wild"
    return "grid_s1" if item.speaker == "s1" else "grid_other"


def _span(track: FaceTrack) -> tuple[float, float]:
    return float(track.times[0]), float(track.times[-1])


def _first(performance: Performance, length: int) -> Performance:
    return Performance(performance.points[:length], performance.motion[:length], performance.found[:length])


def _voice(path: Path, track: FaceTrack, length: int) -> tuple[np.ndarray, bool]:
    """Whether somebody speaks in each frame of a performance, (length,) bool; whether there is any sound."""
    samples = read_audio(path)
    active = voice_activity(samples)
    start = round(float(track.times[0]) * 2 * RATE)
    index = np.minimum(start + 2 * np.arange(length), max(0, len(active) - 1))
    return active[index], bool(np.abs(samples).max(initial=0.0) > sync.SOUNDS)


def _frames(path: Path, numbers: list[int]) -> Iterator[np.ndarray]:
    """Frames (H, W, 3) uint8 of a video by ascending number; the last one for numbers beyond it."""
    wanted, held = list(numbers), None
    with VideoReader(path) as reader:
        for index, frame in enumerate(reader):
            held = frame.image
            while wanted and index >= wanted[0]:
                wanted.pop(0)
                yield held
            if not wanted:
                return
    for _ in wanted:
        if held is not None:
            yield held


def _spread(path: Path, count: int) -> list[int]:
    """``count`` frame numbers spread over a video, without its beginning."""
    with VideoReader(path) as reader:
        last = max(0, round(reader.duration * reader.fps) - 1)
    return [round(last * (k + 1) / count) for k in range(count)]


def _common_offset(made: list[Performance], real: list[Performance]) -> float:
    """Lag in frames of the highest mean correlation over clips; positive: the generated lips are late."""
    curves = [
        sync.correlation_curve(a.opening, b.opening, sync.SEARCH) for a, b in zip(made, real, strict=True)
    ]
    return float(np.argmax(np.mean(curves, 0)) - sync.SEARCH) if curves else float("nan")


def _chance(made: list[Performance], real: list[Performance]) -> float:
    """aperture_r over mismatched clips: each generated one against the next real one."""
    scores = []
    for a, b in zip(made, real[1:] + real[:1], strict=True):
        length = min(len(a), len(b))
        if len(made) > 1 and length > 10:
            scores.append(sync.best_correlation(a.opening[:length], b.opening[:length]))
    return round(float(np.mean(scores)), 4) if scores else float("nan")


def _ratio(rows: list[dict[str, Any]], name: str) -> float:
    """Mean over clips of a generated figure over the mean of the real one."""
    real = float(np.nanmean([row[f"real_{name}"] for row in rows]))
    return round(float(np.nanmean([row[name] for row in rows])) / real, 4) if real else float("nan")
