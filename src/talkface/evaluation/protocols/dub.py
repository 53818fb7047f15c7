"""Evaluates ``talkface dub``: each clip dubbed with its own sound, and with another clip's."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from talkface.data.manifest import Item, Manifest
from talkface.errors import InvalidOption, NoFaceFound
from talkface.evaluation.judges import sync_judges
from talkface.evaluation.protocols.clips import Clip, Library, talking_items
from talkface.evaluation.protocols.pair import PairScorer
from talkface.evaluation.protocols.request import Request, counted, leaving_out
from talkface.evaluation.protocols.scores import write_tests
from talkface.face.model import FaceModel, estimate_pose
from talkface.face.people.scanning import head_angles
from talkface.media.source import SourceVideo
from talkface.media.video import VideoWriter
from talkface.systems.g4g.editing import TURNED
from talkface.systems.g4g.pipeline import G4GPipeline

PAIRING_SEED = 0  # of the pairing of clips and sounds
Test = Literal["real", "self", "cross"]


@dataclass(frozen=True)
class DubJob:
    """A video to make.

    Attributes:
        test: ``"real"``: the clip itself, encoded once more, with which the others are compared; ``"self"``:
            dubbed with its own sound; ``"cross"``: with another clip's.
        video, speech: The clips of picture and sound.
        video_file, speech_file: Their files.
        target: The file to write.
        weights: Folder of the models to dub with, or "compact" for those shipped.
    """

    test: Test
    video: Item
    speech: Item
    video_file: Path
    speech_file: Path
    target: Path
    weights: str = "compact"

    @property
    def name(self) -> str:
        """Test and clip."""
        return f"{self.test}/{self.video.key}"

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
        _dubber(self.weights)(self.video_file, self.speech_file).save(self.target)
        return self.target


def jobs(
    data: Path,
    output: Path,
    *,
    split: str = "val",
    limit: int | None = None,
    models: Path | None = None,
) -> list[DubJob]:
    """The videos of an evaluation, in a fixed order: several processes can share the work.

    Args:
        data: What ``talkface prepare`` wrote, or a folder of talking-face videos.
        output: Folder of the report; videos lie in ``videos/real``, ``videos/self``, ``videos/cross``.
        split: "val" or "train".
        limit: At most so many clips, spread over the list.
        models: Folder of the models to dub with, by default those shipped.

    Raises:
        UnreadableMedia: There is nothing to evaluate on.
        InvalidOption: ``output`` holds videos of another generator.
    """
    request = Request(data=Path(data), output=Path(output), split=split, limit=limit, models=models)
    _claim(request)
    return _jobs(*talking_items(request.data, split, limit), request)


def _jobs(manifest: Manifest, items: list[Item], request: Request) -> list[DubJob]:
    own = [(item, item) for item in items]
    # First the real ones: the others are compared with them.
    pairs: dict[Test, list[tuple[Item, Item]]] = {"real": own, "self": own, "cross": other_speech(items)}
    return [
        DubJob(
            test,
            video,
            speech,
            video_file=manifest.file(video),
            speech_file=manifest.file(speech),
            target=request.videos / test / f"{video.key}.mp4",
            weights=request.weights,
        )
        for test in pairs
        for video, speech in pairs[test]
    ]


def other_speech(items: Iterable[Item], seed: int = PAIRING_SEED) -> list[tuple[Item, Item]]:
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
        # Clips are ordered by speaker: shifted by the largest number of clips of one speaker, each clip gets
        # the sound of somebody else.
        members.sort(key=lambda item: (-counts[item.speaker], item.speaker))
        shift = max(counts.values())
        shift = shift if shift < len(members) else len(members) // 2
        if len(members) > 1:
            partner |= {item.key: members[(k + shift) % len(members)] for k, item in enumerate(members)}
    return [(item, partner[item.key]) for item in items if item.key in partner]


def evaluate_dub(request: Request) -> dict[str, Any]:
    """Dub every clip of a split with its own and with another clip's sound, score the videos, write a report.

    Raises:
        UnreadableMedia: There is nothing to evaluate on.
        ModelUnavailable: ``syncnet`` does not hold these weights, or a model is missing in ``models``.
        InvalidOption: ``output`` holds videos of another generator, or parts are to be left out, of which
            ``dub`` has none.
    """
    request.check_without(())
    manifest, items = talking_items(request.data, request.split, request.limit)
    _claim(request)
    scorer = PairScorer(sync_judges(request.syncnet))
    library, left_out = Library(manifest, scorer.tracker), list[str]()
    todo = _jobs(manifest, items, request)
    encoded = {job.video.key: job.target for job in todo if job.test == "real"}

    def clip(item: Item) -> Clip:
        return replace(library.clip(item), encoded=encoded[item.key])

    for job in counted(todo, lambda job: job.name):
        with leaving_out(job.name, left_out):
            video, speech = clip(job.video), clip(job.speech)
            if _turned_away(video, scorer.face) > 0.5:
                raise NoFaceFound("the face is turned away in most frames, which dub leaves as they are")
            scorer(job.test, video, job.make(), speech if job.test == "cross" else None)
    settings = {"system": "dub", "split": request.split, "pairing": PAIRING_SEED} | scorer.protocol()
    strangers = scorer.tests["real"].csim_of_strangers() if "real" in scorer.tests else {}
    return write_tests(request.output, settings, scorer.tests, left_out, strangers)


@cache
def _dubber(weights: str) -> G4GPipeline:
    """The pipeline that dubs; loaded once for all clips."""
    return G4GPipeline.from_pretrained(weights)


def _claim(request: Request) -> None:
    """See to it that the videos of a folder are all made with the same generator.

    Raises:
        InvalidOption: Those that lie there were made with another one.
        ModelUnavailable: A model is missing in ``models``.
    """
    folder, digest = request.videos, hashlib.sha256()
    mark = folder / "generator.sha256"
    for tensor in _dubber(request.weights).parts.generator.state_dict().values():
        digest.update(tensor.cpu().numpy().tobytes())
    if mark.exists() and mark.read_text().strip() != digest.hexdigest():
        raise InvalidOption(f"{folder} holds videos of another generator; choose another output folder")
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(digest.hexdigest() + "\n")


def _turned_away(clip: Clip, face: FaceModel) -> float:
    """Share of the frames in which the face is turned too far for ``dub``, which leaves them as they are."""
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
