"""How well ``talkface dub`` redraws lips: of each clip with its own sound, and with another clip's."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from talkface.data.manifest import Item, Manifest
from talkface.errors import InvalidOption, NoFaceFound, TalkfaceError
from talkface.evaluation import report
from talkface.evaluation.judges.expert import experts
from talkface.evaluation.protocols.clips import Clip, Library, talking_items
from talkface.evaluation.protocols.pair import PairScorer
from talkface.face.model import FaceModel, estimate_pose
from talkface.face.people.cast import head_angles
from talkface.media.source import SourceVideo
from talkface.media.video import VideoWriter
from talkface.systems.g4g.actors import TURNED
from talkface.systems.g4g.pipeline import G4GPipeline

logger = logging.getLogger(__name__)

SEED = 0  # of the pairing of clips and sounds
Test = Literal["real", "self", "cross"]


@dataclass(frozen=True)
class Job:
    """A video to make.

    Attributes:
        test: ``"real"``: the clip itself, encoded once more, the measure of all others; ``"self"``: dubbed
            with its own sound; ``"cross"``: with another clip's.
        video, speech: The clips of picture and sound.
        video_file, speech_file: Their files.
        target: The file to write.
        models: Folder of the models to dub with, None for those shipped.
    """

    test: Test
    video: Item
    speech: Item
    video_file: Path
    speech_file: Path
    target: Path
    models: Path | None = None

    def make(self) -> Path:
        """Write the file, unless it is there already.

        Raises:
            TalkfaceError: The system refuses the clip.
        """
        if self.target.exists():
            return self.target
        self.target.parent.mkdir(parents=True, exist_ok=True)
        if self.test == "real":
            return encode_again(self.video_file, self.target)
        _dubber(self.models)(self.video_file, self.speech_file).save(self.target)
        return self.target


def jobs(
    data: Path,
    output: Path,
    *,
    split: str = "val",
    limit: int | None = None,
    models: Path | None = None,
) -> list[Job]:
    """The videos of an evaluation, in a fixed order: several processes can share the work.

    Args:
        data: what ``talkface prepare`` wrote, or a folder of talking-face videos.
        output: folder of the report; videos lie in ``videos/real``, ``videos/self``, ``videos/cross``.
        split: "val" or "train".
        limit: at most so many clips, spread over the list.
        models: folder of the models to dub with, by default those shipped.

    Raises:
        UnreadableMedia: there is nothing to evaluate on.
        InvalidOption: ``output`` holds videos of another generator.
    """
    folder = Path(output) / "videos"
    _claim(folder, models)
    return _jobs(*talking_items(data, split, limit), folder, models)


def _jobs(manifest: Manifest, items: list[Item], folder: Path, models: Path | None = None) -> list[Job]:
    own = [(item, item) for item in items]
    # First the real ones: the others are measured by them.
    pairs: dict[Test, list[tuple[Item, Item]]] = {"real": own, "self": own, "cross": other_speech(items)}
    return [
        Job(
            test,
            video,
            speech,
            video_file=manifest.file(video),
            speech_file=manifest.file(speech),
            target=folder / test / f"{video.key}.mp4",
            models=models,
        )
        for test in pairs
        for video, speech in pairs[test]
    ]


def other_speech(items: Iterable[Item], seed: int = SEED) -> list[tuple[Item, Item]]:
    """Give each clip the sound of another one of its group, of another speaker where possible.

    Args:
        items: The clips.
        seed: Draws the pairing.

    Returns:
        (video, sound) in the order of the clips; each sound is used once. Clips that are alone in their group
        are left out.
    """
    items, partner = list(items), dict[str, Item]()
    for group in sorted({item.group for item in items}):
        members = sorted((item for item in items if item.group == group), key=lambda item: item.key)
        members = [members[k] for k in np.random.default_rng(seed).permutation(len(members))]
        counts = Counter(item.speaker for item in members)
        # With clips ordered by speaker, as many places on as anybody has clips there is somebody else.
        members.sort(key=lambda item: (-counts[item.speaker], item.speaker))
        shift = max(counts.values())
        shift = shift if shift < len(members) else len(members) // 2
        if len(members) > 1:
            partner |= {item.key: members[(k + shift) % len(members)] for k, item in enumerate(members)}
    return [(item, partner[item.key]) for item in items if item.key in partner]


def evaluate_dub(
    data: Path,
    output: Path,
    *,
    split: str = "val",
    limit: int | None = None,
    syncnet: Path | None = None,
    models: Path | None = None,
) -> dict[str, Any]:
    """Dub every clip of a split with its own and with another clip's sound, score the videos, write a report.

    Args:
        data: what ``talkface prepare`` wrote, or a folder of talking-face videos (tracked on the way).
        output: report, contact sheets and videos go here; videos already there are scored as they are.
        split: "val" or "train".
        limit: at most so many clips, spread over the list.
        syncnet: file with SyncNet's original weights, for its figures beside those of the own expert.
        models: folder of the models to dub with, by default those shipped.

    Raises:
        UnreadableMedia: there is nothing to evaluate on.
        ModelUnavailable: ``syncnet`` does not hold these weights, or a model is missing in ``models``.
        InvalidOption: ``output`` holds videos of another generator.
    """
    manifest, items = talking_items(data, split, limit)
    _claim(Path(output) / "videos", models)
    scorer = PairScorer(experts(syncnet))
    library = Library(manifest, items, scorer.tracker)
    todo, left_out = _jobs(manifest, items, Path(output) / "videos", models), []
    encoded = {job.video.key: job.target for job in todo if job.test == "real"}
    for index, job in enumerate(todo):
        logger.info("%d/%d %s %s", index + 1, len(todo), job.test, job.video.key)
        try:
            video, speech = (
                replace(library.clip(item), encoded=encoded[item.key]) for item in (job.video, job.speech)
            )
            if _turned_away(video, scorer.face) > 0.5:
                raise NoFaceFound("the face is turned away in most frames, which dub leaves as they are")
            made = job.make()
            scorer(job.test, video, made, speech if job.test == "cross" else None)
        except TalkfaceError as error:
            logger.warning("%s, %s: left out: %s", job.video.key, job.test, error)
            left_out.append(f"{job.test}/{job.video.key}")
    settings = {"system": "dub", "split": split, "pairing": SEED} | scorer.protocol()
    rows = [{"test": test, **row} for test, scores in scorer.tests.items() for row in scores.rows]
    result = report.headed(settings, [f"{row['test']}/{row['name']}" for row in rows])
    result["left_out"] = left_out
    result["tests"] = {test: {"groups": scores.groups()} for test, scores in scorer.tests.items()}
    result |= scorer.tests["real"].strangers() if "real" in scorer.tests else {}
    report.write(Path(output), result, rows, {test: scores.strips for test, scores in scorer.tests.items()})
    return result


@cache
def _dubber(models: Path | None) -> G4GPipeline:
    """What dubs a video with a speech."""
    return G4GPipeline.from_pretrained(str(models) if models else "compact")


def _claim(folder: Path, models: Path | None) -> None:
    """See to it that the videos of a folder are all made with the same generator.

    Raises:
        InvalidOption: those that lie there were made with another one.
        ModelUnavailable: a model is missing in ``models``.
    """
    mark, digest = folder / "generator.sha256", hashlib.sha256()
    for tensor in _dubber(models).parts.generator.state_dict().values():
        digest.update(tensor.cpu().numpy().tobytes())
    if mark.exists() and mark.read_text().strip() != digest.hexdigest():
        raise InvalidOption(f"{folder} holds videos of another generator; choose another --output")
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(digest.hexdigest() + "\n")


def _turned_away(clip: Clip, face: FaceModel) -> float:
    """Share of the frames in which the face is turned further than dub draws."""
    points = clip.track.points
    yaw = head_angles(estimate_pose(points, face.fit(points).neutral).rotation)[:, 0]
    return float((np.abs(np.radians(yaw)) > TURNED).mean())


def encode_again(path: Path, target: Path) -> Path:
    """The clip encoded as a dubbed one is."""
    source = SourceVideo(path)
    sound = path if source.has_audio else None
    with VideoWriter(target, source.size, source.fps, sound, variable=source.variable, like=source) as writer:
        for frame in source:
            writer.write(frame.image, frame.time)
    return target
