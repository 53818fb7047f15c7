"""What PAD hears of held-out voices, and the portraits that are imagined for them."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from talkface.data.attributes import FaceDescription, FaceRes, portrait_descriptions
from talkface.data.faces import Portrait, held_out, portraits
from talkface.data.manifest import Manifest
from talkface.data.voice_faces import VoiceAndFace, strangers, voices_with_faces
from talkface.diffusion.captions import age_group
from talkface.evaluation import report
from talkface.evaluation.figures import picture
from talkface.evaluation.figures.distributions import kernel_distance
from talkface.evaluation.judges.recognisers import dlib_recogniser, recognisers
from talkface.evaluation.protocols.request import counted, leaving_out
from talkface.systems.imagineid.config import EMOTIONS
from talkface.systems.imagineid.pipeline import ImagineIdPipeline
from talkface.systems.imagineid.portrait import Imagined, PortraitOptions
from talkface.systems.imagineid.voice import Speaker, SpeechAnalyzer, one_mood

_PORTRAITS = 2  # imagined for each voice
_LEAST_PICTURES = 30  # of each kind for a kernel distance


@dataclass
class Voices:
    """Figures and pictures of held-out voices.

    Attributes:
        rows: Figures of each voice.
        whole: Figures of all voices together.
        strips: Portraits of each voice.
        nearest: Portraits, each beside the most similar training picture.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    whole: dict[str, Any] = field(default_factory=dict)
    strips: list[np.ndarray] = field(default_factory=list)
    nearest: list[np.ndarray] = field(default_factory=list)


@dataclass(frozen=True)
class _Subject:
    """A held-out person.

    Attributes:
        pair: A recording and a picture.
        speaker: What the voice tells.
        look: What FaceRes sees in the picture.
        imagined: Portraits imagined for the voice.
        imagined_looks: What FaceRes sees in them.
    """

    pair: VoiceAndFace
    speaker: Speaker
    look: FaceDescription
    imagined: list[Imagined]
    imagined_looks: list[FaceDescription]


def judge_voices(
    pipeline: ImagineIdPipeline, manifest: Manifest, limit: int | None, seed: int, options: PortraitOptions
) -> Voices:
    """Imagine portraits for voices of held-out people, one recording each; compare them with the people."""
    album = portraits(manifest)
    known = portrait_descriptions(manifest, album)
    pairs = list({pair.person: pair for pair in strangers(list(voices_with_faces(manifest)))}.values())
    pairs = pairs if not limit else pairs[:: max(1, len(pairs) // limit)][:limit]
    describe, subjects = FaceRes(), []
    for number, pair in enumerate(counted(pairs, lambda pair: f"voice of {pair.item.key}")):
        with leaving_out(pair.item.key):
            speaker = pipeline.analyzer.speaker(manifest.file(pair.item))
            first = seed + _PORTRAITS * number
            imagined = [
                pipeline.models.imaginer(speaker, one_mood("neutral"), first + take, options)
                for take in range(_PORTRAITS)
            ]
            seen = [describe(one.image, one.points) for one in imagined]
            subjects.append(_Subject(pair, speaker, known[pair.portrait.key], imagined, seen))
    if not subjects:
        return Voices()
    rows = [_row(subject) for subject in subjects]
    for row, ranks in zip(rows, _ranks(pipeline.analyzer, subjects), strict=True):
        row |= {f"r{reach}": float(ranks < reach) for reach in (1, 5, 10)}
    whole = _chances(subjects) | _likeness(subjects, rows) | _kernel_distances(subjects, album)
    nearest = _NearestTraining([portrait for portrait in album if portrait.split == "train"], known)
    whole |= nearest.figures(subjects)
    strips = [
        report.strip([subject.pair.portrait.image(), *(one.image for one in subject.imagined)])
        for subject in subjects
    ]
    return Voices(rows, whole, strips, nearest.strips(subjects))


def _row(subject: _Subject) -> dict[str, Any]:
    """What one voice told and what its portraits show, compared with what FaceRes sees in the picture."""
    man, years = subject.look.male > 0.5, subject.look.age
    shown = subject.imagined_looks
    row: dict[str, Any] = {"name": subject.pair.item.key, "group": "man" if man else "woman"}
    row["sex_heard"] = float((subject.speaker.male > 0.5) == man)
    row["sex_shown"] = float(np.mean([(look.male > 0.5) == man for look in shown]))
    row["age_group_heard"] = float(age_group(subject.speaker.age) == age_group(years))
    row["age_group_shown"] = float(np.mean([age_group(look.age) == age_group(years) for look in shown]))
    row["age_error_heard"] = abs(subject.speaker.age - years)
    adherence = [one.adherence for one in subject.imagined if one.adherence is not None]
    row["portrait_adherence"] = float(np.mean(adherence))
    row["tries"] = float(np.mean([one.tries for one in subject.imagined]))
    return row


def _ranks(analyzer: SpeechAnalyzer, subjects: list[_Subject]) -> np.ndarray:
    """How many other people's faces fit each voice better than its own speaker's, (N,)."""
    features = torch.from_numpy(np.stack([s.look.features for s in subjects])).float().to(analyzer.device)
    with torch.inference_mode():
        faces = analyzer.pad.faces(features).cpu().numpy()
    likeness = np.stack([s.speaker.semantic for s in subjects]) @ faces.T
    better: np.ndarray = (likeness > likeness.diagonal()[:, None]).sum(1)
    return better


def _chances(subjects: list[_Subject]) -> dict[str, Any]:
    """What guessing would give, and the number of voices."""
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


def _likeness(subjects: list[_Subject], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Cosines between portraits of one voice, between those of different voices, and between real people.

    ``centred`` figures are computed after the mean descriptor of the faces of one kind is subtracted: without
    it, the cosines of dlib's descriptors are high for all pairs of people.

    Args:
        subjects: The people.
        rows: Take the figures of each voice.

    Returns:
        Figures of all voices.
    """
    found: dict[str, Any] = {}
    for suffix, describe in recognisers().items():
        real = np.stack([describe(s.pair.portrait.image(), s.pair.portrait.points) for s in subjects])
        made = np.stack([[describe(one.image, one.points) for one in s.imagined] for s in subjects])
        middle = made.reshape(-1, made.shape[-1]).mean(0)
        for row, (a, b) in zip(rows, made[:, :2], strict=True):
            row[f"csim_between_seeds{suffix}"] = picture.cosine(a, b)
            row[f"csim_between_seeds_centred{suffix}"] = picture.cosine(a - middle, b - middle)
        both = _between("people", real) | _between("voices", made[:, 0])
        found |= {f"{name}{suffix}": value for name, value in both.items()}
    return found


def _between(name: str, faces: np.ndarray) -> dict[str, float]:
    """Mean cosine of each descriptor (N, D) and the next one, plain and centred."""
    pairs = list(pairwise([*faces, faces[0]]))
    middle = faces.mean(0)
    return {
        f"csim_between_{name}": float(np.mean([picture.cosine(a, b) for a, b in pairs])),
        f"csim_between_{name}_centred": float(
            np.mean([picture.cosine(a - middle, b - middle) for a, b in pairs])
        ),
    }


def _kernel_distances(subjects: list[_Subject], album: list[Portrait]) -> dict[str, float]:
    """``kd_dlib128``: kernel distance, times 1000, between portraits' descriptors and those of strangers.

    It stands in for FID, for which there are too few pictures. dlib describes the faces because the restorer
    was trained with FaceRes. ``kd_dlib128_of_real`` is the distance between two halves of the strangers.
    """
    describe, people = dlib_recogniser(), held_out(album, len(album))
    if not describe or min(len(people) // 2, len(subjects)) < _LEAST_PICTURES:
        return {}
    names = list(dict.fromkeys(portrait.person for portrait in people))
    halves = [
        np.array([describe(p.image(), p.points) for p in people if names.index(p.person) % 2 == half])
        for half in (0, 1)
    ]
    made = np.array([describe(one.image, one.points) for subject in subjects for one in subject.imagined])
    return {
        "kd_dlib128": 1000 * kernel_distance(made, np.concatenate(halves)),
        "kd_dlib128_of_real": 1000 * kernel_distance(halves[0], halves[1]),
    }


class _NearestTraining:
    """The training picture most similar to a face, by the cosine of FaceRes's centred features.

    Args:
        train: Training pictures.
        known: What FaceRes sees in each, by its key.
    """

    def __init__(self, train: list[Portrait], known: dict[str, FaceDescription]) -> None:
        features = np.stack([known[portrait.key].features for portrait in train]).astype(np.float32)
        self.train, self._middle = train, features.mean(0)
        self._candidates = self._unit(features)

    def _unit(self, features: np.ndarray) -> np.ndarray:
        centred = features - self._middle
        unit: np.ndarray = centred / np.linalg.norm(centred, axis=-1, keepdims=True)
        return unit

    def cosines(self, look: FaceDescription) -> np.ndarray:
        """Cosine with every training picture, (N,)."""
        alike: np.ndarray = self._unit(look.features.astype(np.float32)) @ self._candidates.T
        return alike

    def figures(self, subjects: list[_Subject]) -> dict[str, float]:
        """Mean and highest cosine, of portraits and, for comparison, of the real people."""
        made = [self.cosines(look).max() for subject in subjects for look in subject.imagined_looks]
        real = [self.cosines(subject.look).max() for subject in subjects]
        return {
            "nearest_training_picture": float(np.mean(made)),
            "nearest_training_picture_at_most": float(np.max(made)),
            "nearest_training_picture_of_real": float(np.mean(real)),
            "nearest_training_picture_of_real_at_most": float(np.max(real)),
        }

    def strips(self, subjects: list[_Subject]) -> list[np.ndarray]:
        """Portraits beside their nearest training pictures, five pairs a strip."""
        beside = [
            [one.image, self.train[int(self.cosines(look).argmax())].image()]
            for subject in subjects
            for one, look in zip(subject.imagined, subject.imagined_looks, strict=True)
        ]
        return [
            report.strip([image for pair in beside[k : k + 5] for image in pair])
            for k in range(0, min(65, len(beside)), 5)
        ]
