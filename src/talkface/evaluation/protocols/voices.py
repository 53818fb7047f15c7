"""What PAD hears of held-out voices, whom the LDM shows for them, and which recording decides what."""

import csv
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from talkface.data.attributes import FaceDescription, FaceRes, portrait_descriptions
from talkface.data.faces import Portrait, held_out, portraits
from talkface.data.manifest import Item, Manifest
from talkface.data.pairs import VoiceAndFace, strangers, voices_with_faces
from talkface.diffusion.captions import age_group
from talkface.errors import TalkfaceError
from talkface.evaluation import report
from talkface.evaluation.figures import picture, sync
from talkface.evaluation.figures.motion import kernel_distance
from talkface.evaluation.figures.performance import RATE, Performance, perform, track_file
from talkface.evaluation.protocols.clips import frames_at
from talkface.face.model import FaceModel, estimate_pose
from talkface.face.tracker import FaceTrack
from talkface.systems.imagineid.config import EMOTIONS
from talkface.systems.imagineid.imagination import Imagination
from talkface.systems.imagineid.pipeline import ImagineIdPipeline
from talkface.systems.imagineid.portrait import Imagined, Wish
from talkface.systems.imagineid.voice import Listener, Speaker, one_mood

logger = logging.getLogger(__name__)

_SEEDS = 2  # portraits of each voice
_ACTORS = 160  # recordings of acted moods
_TRIPLES = 8  # of recordings that are exchanged
_IN_THE_WILD = "wild"  # the group of clips that they are from, where there is one
_LEAST_LOOKS = 30  # pictures of each kind for a kernel distance


@dataclass
class Voices:
    """Figures and pictures of held-out voices.

    Attributes:
        rows: figures of each voice.
        whole: figures of all voices together.
        strips: portraits of each voice.
        nearest: portraits, each beside the training picture that is most alike.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    whole: dict[str, Any] = field(default_factory=dict)
    strips: list[np.ndarray] = field(default_factory=list)
    nearest: list[np.ndarray] = field(default_factory=list)


@dataclass(frozen=True)
class _Subject:
    """A held-out person: what the voice tells, how the person looks, and who was imagined."""

    pair: VoiceAndFace
    speaker: Speaker
    look: FaceDescription
    imagined: list[Imagined]
    looks: list[FaceDescription]


def judge_voices(
    pipeline: ImagineIdPipeline, manifest: Manifest, limit: int | None, seed: int, wish: Wish
) -> Voices:
    """Imagine portraits for voices of held-out people, one recording each; compare them with the people."""
    album, look = portraits(manifest), FaceRes()
    known = portrait_descriptions(manifest, album)
    pairs = list({pair.person: pair for pair in strangers(list(voices_with_faces(manifest)))}.values())
    pairs = pairs if not limit else pairs[:: max(1, len(pairs) // limit)][:limit]
    subjects = []
    for number, pair in enumerate(pairs):
        logger.info("voice %d/%d", number + 1, len(pairs))
        try:
            subjects.append(_imagine(pipeline, manifest, pair, known, look, seed + _SEEDS * number, wish))
        except TalkfaceError as error:
            logger.warning("%s: left out: %s", pair.item.key, error)
    if not subjects:
        return Voices()
    rows = [_row(subject) for subject in subjects]
    for row, ranks in zip(rows, _ranks(pipeline.listener, subjects), strict=True):
        row |= {f"r{reach}": float(ranks < reach) for reach in (1, 5, 10)}
    voices = Voices(rows, _chances(subjects))
    voices.whole |= _faces(subjects, rows) | _fidelity(subjects, album)
    train = [portrait for portrait in album if portrait.split == "train"]
    voices.whole |= _copies(subjects, train, known, voices)
    voices.strips = [
        report.strip([subject.pair.portrait.image(), *(i.image for i in subject.imagined)])
        for subject in subjects
    ]
    return voices


def _imagine(
    pipeline: ImagineIdPipeline,
    manifest: Manifest,
    pair: VoiceAndFace,
    known: dict[str, FaceDescription],
    look: FaceRes,
    seed: int,
    wish: Wish,
) -> _Subject:
    speaker = pipeline.listener.speaker(manifest.file(pair.item))
    imagined = [
        pipeline.models.imaginer(speaker, one_mood("neutral"), seed + take, wish) for take in range(_SEEDS)
    ]
    seen = [look(one.image, one.points) for one in imagined]
    return _Subject(pair, speaker, known[pair.portrait.key], imagined, seen)


def _row(subject: _Subject) -> dict[str, Any]:
    """What one voice told and what was shown, beside what FaceRes sees in the person's picture."""
    man, years = subject.look.male > 0.5, subject.look.age
    row: dict[str, Any] = {"name": subject.pair.item.key, "group": "man" if man else "woman"}
    row["sex_heard"] = float((subject.speaker.male > 0.5) == man)
    row["sex_shown"] = float(np.mean([(look.male > 0.5) == man for look in subject.looks]))
    row["age_group_heard"] = float(age_group(subject.speaker.age) == age_group(years))
    row["age_group_shown"] = float(
        np.mean([age_group(look.age) == age_group(years) for look in subject.looks])
    )
    row["age_error_heard"] = abs(subject.speaker.age - years)
    row["portrait_adherence"] = float(
        np.mean([one.adherence for one in subject.imagined if one.adherence is not None])
    )
    row["tries"] = float(np.mean([one.tries for one in subject.imagined]))
    return row


def _ranks(listener: Listener, subjects: list[_Subject]) -> np.ndarray:
    """How many other people's faces suit each voice better than its own person's, (N,)."""
    features = torch.from_numpy(np.stack([s.look.features for s in subjects])).float().to(listener.device)
    with torch.inference_mode():
        faces = listener.pad.faces(features).cpu().numpy()
    likeness = np.stack([s.speaker.semantic for s in subjects]) @ faces.T
    return (likeness > likeness.diagonal()[:, None]).sum(1)


def _chances(subjects: list[_Subject]) -> dict[str, Any]:
    """What guessing would give."""
    count = len(subjects)
    sexes = Counter(subject.look.male > 0.5 for subject in subjects)
    ages = Counter(age_group(subject.look.age) for subject in subjects)
    return {
        "voices": count,
        "sex_chance": max(sexes.values()) / count,
        "age_group_chance": max(ages.values()) / count,
        "r1_chance": 1 / count,
        "r10_chance": min(1.0, 10 / count),
        "emotion_chance": 1 / len(EMOTIONS),
    }


def _faces(subjects: list[_Subject], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Likeness between seeds, voices and real people.

    Cosines of these descriptors lie near one another for all people; ``centred`` is taken from the mean of
    the faces of one kind.
    """
    found: dict[str, Any] = {}
    for judge, describe in (("", picture.recogniser()), ("_mobileface", picture.second_recogniser())):
        if describe is None:
            continue
        real = np.stack([describe(s.pair.portrait.image(), s.pair.portrait.points) for s in subjects])
        made = np.stack([[describe(one.image, one.points) for one in s.imagined] for s in subjects])
        flat = made.reshape(-1, made.shape[-1])
        for row, (a, b) in zip(rows, made[:, :2], strict=True):
            row[f"csim_between_seeds{judge}"] = picture.likeness(a, b)["csim"]
            middle = flat.mean(0)
            row[f"csim_between_seeds_centred{judge}"] = picture.likeness(a - middle, b - middle)["csim"]
        both = _between("people", real) | _between("voices", made[:, 0])
        found |= {f"{name}{judge}": value for name, value in both.items()}
    return found


def _fidelity(subjects: list[_Subject], album: list[Portrait]) -> dict[str, float]:
    """``kd_dlib128``: kernel distance of portraits' descriptors from those of strangers, times a thousand.

    The part of FID, for few pictures and with dlib as extractor (the restorer was trained with FaceRes);
    ``_of_real`` is that of two halves of the strangers.
    """
    describe, strangers = picture.recogniser(), held_out(album, len(album))
    if not describe or min(len(strangers) // 2, len(subjects)) < _LEAST_LOOKS:
        return {}
    people = list(dict.fromkeys(portrait.person for portrait in strangers))
    halves = [
        np.array([describe(p.image(), p.points) for p in strangers if people.index(p.person) % 2 == half])
        for half in (0, 1)
    ]
    made = np.array([describe(one.image, one.points) for subject in subjects for one in subject.imagined])
    return {
        "kd_dlib128": 1000 * kernel_distance(made, np.concatenate(halves)),
        "kd_dlib128_of_real": 1000 * kernel_distance(*halves),
    }


def _between(name: str, faces: np.ndarray) -> dict[str, float]:
    """Mean likeness of each face (N, D) with the next one's, plain and from their mean."""
    pairs = list(pairwise([*faces, faces[0]]))
    middle = faces.mean(0)
    return {
        f"csim_between_{name}": float(np.mean([picture.likeness(a, b)["csim"] for a, b in pairs])),
        f"csim_between_{name}_centred": float(
            np.mean([picture.likeness(a - middle, b - middle)["csim"] for a, b in pairs])
        ),
    }


def _copies(
    subjects: list[_Subject], train: list[Portrait], known: dict[str, FaceDescription], voices: Voices
) -> dict[str, Any]:
    """How like the most similar training picture is, by FaceRes's features; for real strangers likewise."""
    features = np.stack([known[portrait.key].features for portrait in train]).astype(np.float32)
    middle = features.mean(0)
    unit = lambda x: (x - middle) / np.linalg.norm(x - middle, axis=-1, keepdims=True)  # noqa: E731
    candidates = unit(features)
    alike = [unit(look.features.astype(np.float32)) @ candidates.T for s in subjects for look in s.looks]
    real = [unit(s.look.features.astype(np.float32)) @ candidates.T for s in subjects]
    images = [one.image for s in subjects for one in s.imagined]
    beside = [[image, train[int(row.argmax())].image()] for image, row in zip(images, alike, strict=True)]
    voices.nearest = [
        report.strip([image for pair in beside[k : k + 5] for image in pair])
        for k in range(0, min(65, len(beside)), 5)
    ]
    return {
        "nearest_training_picture": float(np.mean([row.max() for row in alike])),
        "nearest_training_picture_at_most": float(np.max([row.max() for row in alike])),
        "nearest_training_picture_of_real": float(np.mean([row.max() for row in real])),
        "nearest_training_picture_of_real_at_most": float(np.max([row.max() for row in real])),
    }


# -- moods -----------------------------------------------------------------------------------------


def judge_moods(listener: Listener, manifest: Manifest, limit: int | None) -> list[dict[str, Any]]:
    """Whether the mood of acted sentences of held-out actors is heard; empty where the data have none."""
    acted = _acted(manifest)
    items = [item for item in acted if item.split == "val"]
    count = min(len(items), limit or _ACTORS)
    rows = []
    for item in (items[k] for k in np.linspace(0, len(items) - 1, count).round().astype(int)):
        try:
            speaker = listener.speaker(manifest.file(item))
        except TalkfaceError as error:
            logger.warning("%s: left out: %s", item.key, error)
            continue
        mood = listener.overall_mood(manifest.file(item), speaker)
        right = EMOTIONS[int(mood.argmax())] == acted[item]
        rows.append({"name": item.key, "group": acted[item], "emotion_heard": float(right)})
    return rows


def _acted(manifest: Manifest) -> dict[Item, str]:
    """Recordings of acted moods; none where the data have no list of them."""
    path = manifest.root / "emotion.tsv"
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        acted = {row["file"]: row["emotion"] for row in csv.DictReader(file, delimiter="\t")}
    return {item: acted[item.file] for item in manifest.items if acted.get(item.file) in EMOTIONS}


# -- which recording decides what ------------------------------------------------------------------


@dataclass(frozen=True)
class _Shown:
    """A video's person, told by two recognisers, lips and mean expression, all as its frames show them."""

    face: np.ndarray | None
    second: np.ndarray | None
    lips: Performance
    expression: np.ndarray


def judge_swaps(
    pipeline: ImagineIdPipeline, manifest: Manifest, items: list[Item], seed: int, **options: Any
) -> list[dict[str, Any]]:
    """Exchange one of three recordings after the other: what changes, and what does not?

    Every row compares frames of a video with those before the exchange: CSIM, correlation of the mouth's
    opening, and how far the mean expression has moved.

    Args:
        pipeline: what is evaluated.
        manifest: a prepared folder.
        items: talking clips, in whose place others are put.
        seed: of the first person.
        options: of the pipeline.
    """
    wild = [item for item in items if item.group == _IN_THE_WILD] or items
    moods = [manifest.file(item) for item in _acted(manifest) if item.split == "val"]
    rows = []
    for number, own in enumerate(wild[:: max(1, len(wild) // _TRIPLES)][:_TRIPLES]):
        others = [item for item in wild if item.person != own.person]
        if not others:
            continue
        other = manifest.file(others[(7 * number) % len(others)])
        mood = moods[(13 * number) % len(moods)] if moods else other
        try:
            rows += list(_swaps(pipeline, manifest, own, other, mood, seed + number, options))
        except TalkfaceError as error:
            logger.warning("%s: left out: %s", own.key, error)
    return rows


def _swaps(
    pipeline: ImagineIdPipeline,
    manifest: Manifest,
    own: Item,
    other: Path,
    mood: Path,
    seed: int,
    options: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    mine, real = manifest.file(own), manifest.track(own)
    before = _show(pipeline, mine, mine, mine, seed, options)
    track = FaceTrack(0, real.times, real.points, real.found, real.frames)
    true, span = perform(track, pipeline.models.face), (float(track.times[0]), float(track.times[-1]))
    for swapped, given in (
        ("identity", (mine, other, mine)),
        ("content", (other, mine, mine)),
        ("emotion", (mine, mine, mood)),
    ):
        after = _show(pipeline, *given, seed, options)
        row: dict[str, Any] = {"name": f"{own.key}/{Path(given[1]).stem}", "group": f"{swapped} swapped"}
        if before.face is not None and after.face is not None:
            row["csim_kept"] = picture.likeness(before.face, after.face)["csim"]
        if before.second is not None and after.second is not None:
            row["csim_kept_mobileface"] = picture.likeness(before.second, after.second)["csim"]
        row["opening_kept"] = _alike(before.lips, after.lips)
        row["expression_moved"] = float(np.sqrt(np.square(after.expression - before.expression).mean()))
        if swapped != "content":
            row["aperture_r_before"], row["aperture_r_after"] = (
                _alike(_within(shown.lips, *span), true) for shown in (before, after)
            )
        yield row


def _show(
    pipeline: ImagineIdPipeline,
    content: Path,
    identity: Path,
    emotion: Path,
    seed: int,
    options: dict[str, Any],
) -> _Shown:
    take: Imagination = pipeline(content, seed=seed, identity_from=identity, emotion_from=emotion, **options)[
        0
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = take.save(Path(folder) / "take.mp4")
        track = track_file(path, pipeline.models.imaginer.tracker)
        middle = len(track.points) // 2
        frame = next(frames_at(path, [int(track.frames[middle])]))
    face, second = (
        describe(frame, track.points[middle]) if describe else None
        for describe in (picture.recogniser(), picture.second_recogniser())
    )
    return _Shown(
        face, second, perform(track, pipeline.models.face), _expression(pipeline.models.face, take, track)
    )


def _expression(face: FaceModel, take: Imagination, track: FaceTrack) -> np.ndarray:
    """Mean coefficients (U + M,) by which the tracked face differs from the portrait's at rest."""
    neutral = face.fit(take.imagined.points[None]).neutral
    apart = (estimate_pose(track.points, neutral).invert(track.points).mean(0) - neutral)[None]
    return np.concatenate([face.project_upper(apart), face.project_mouth(apart)], 1)[0]


def _within(performance: Performance, start: float, stop: float) -> Performance:
    """The part of a performance that begins with its file, from ``start`` to ``stop`` seconds."""
    first, last = int(np.ceil(start * RATE - 1e-6)), int(np.floor(stop * RATE + 1e-6)) + 1
    part = slice(first, last)
    return Performance(performance.points[part], performance.motion[part], performance.found[part])


def _alike(a: Performance, b: Performance) -> float:
    length = min(len(a), len(b))
    return sync.best_correlation(a.opening[:length], b.opening[:length])
