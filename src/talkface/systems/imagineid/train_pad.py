"""Trains PAD's stages one after the other; each starts from the export of the one before, which is frozen."""

import csv
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkface.data.faces import portraits
from talkface.data.prepare import Item, Manifest
from talkface.face.attributes import Look, looks
from talkface.face.model import FaceModel
from talkface.speech.features import ContentEncoder as SpeechEncoder
from talkface.speech.features import FeatureStream
from talkface.systems.imagineid.config import EMOTIONS, PadConfig
from talkface.systems.imagineid.hearing import Heard, heard
from talkface.systems.imagineid.losses import gaussian, voice_to_face
from talkface.systems.imagineid.pad import Pad, Speech
from talkface.systems.imagineid.pairs import VoiceAndFace, strangers, voices_with_faces
from talkface.systems.thpad.losses import LipLoss
from talkface.systems.thpad.train import ClipReader, Example, best_lag_correlation
from talkface.training import Task

logger = logging.getLogger(__name__)

_RATE = 50  # features a second
_FACE_TEMPERATURE = 12.0
_STRENGTH = 0.5  # of the expressions of a mood: of two people's mean, half is theirs alone
_NOBODY = 0.3  # share of windows in which the second stage is not told who speaks


@dataclass(frozen=True, kw_only=True)
class PadTrainConfig:
    """Settings of a stage's training.

    Attributes:
        model: sizes.
        start: name or directory of the export of the stage before; empty for the first.
        speech: name or directory of the content encoder.
        face_model: name or directory of the 3DMM.
        batch: voices, or windows.
        seconds: shortest and longest stretch of a voice.
        noise: standard deviation of the noise on content features.
        dropout: while training, if other than the model's; nothing for 0.
        variants: of each clip's sound, for the second stage.
    """

    model: PadConfig = field(default_factory=PadConfig)
    start: str = ""
    speech: str = "speech"
    face_model: str = "face"
    batch: int = 48
    seconds: tuple[float, float] = (2.0, 5.0)
    noise: float = 0.15
    dropout: float = 0.0
    variants: int = 3


@dataclass(frozen=True)
class _Voice:
    """A voice; ``face`` (F,), ``alpha`` (K,), ``male`` and ``age`` of whose it is, ``mood`` of EMOTIONS."""

    heard: Heard
    person: str
    split: str
    face: np.ndarray | None = None
    alpha: np.ndarray | None = None
    male: float = 0.5
    age: float = 0.0
    mood: int = -1


class PadTask(Task):
    """What the stages' trainings share."""

    Config = PadTrainConfig
    stage: str

    def __init__(self, config: PadTrainConfig, data: Path, seed: int = 0, device: str = "cpu") -> None:
        self.config, self.device = config, torch.device(device)
        self.manifest = Manifest.load(data)
        self.face = FaceModel.from_pretrained(config.face_model)
        self.stream = FeatureStream(SpeechEncoder.from_pretrained(config.speech))
        torch.manual_seed(seed)
        self.pad = Pad.from_pretrained(config.start) if config.start else Pad(config.model)
        self.pad.to(self.device).requires_grad_(False)
        self.prepare(np.random.default_rng(seed))
        self.modules = {name: module.requires_grad_(True) for name, module in self.trained().items()}
        for layer in (layer for module in self.modules.values() for layer in module.modules()):
            if config.dropout and isinstance(layer, nn.Dropout | nn.Dropout1d):
                layer.p = config.dropout

    def prepare(self, generator: np.random.Generator) -> None:
        """Load what is trained and validated on."""
        raise NotImplementedError

    def trained(self) -> dict[str, nn.Module]:
        """The stage's modules."""
        return {self.stage: getattr(self.pad, self.stage)}

    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Write all stages as the hub reads them, with this one's metrics beside those before."""
        from talkface.hub import load_pretrained, save_pretrained

        known = load_pretrained(self.config.start)[0]["metrics"] if self.config.start else {}
        config = {"class": "Pad", "model": asdict(self.pad.config), "metrics": known | metrics}
        save_pretrained(directory, config, self.pad.state_dict(), card=None)

    def speech(self, parts: list[Heard], noise: float = 0.0) -> Speech:
        """Stretches of equal length as a batch."""
        content, level, prosody = (
            torch.from_numpy(np.stack([getattr(part, name) for part in parts])).float().to(self.device)
            for name in ("content", "level", "prosody")
        )
        return Speech(content + noise * torch.randn_like(content), level, prosody)

    def stretches(self, voices: list[_Voice], generator: np.random.Generator) -> list[Heard]:
        """A stretch of each voice, all as long, in another room and through another microphone."""
        low, high = self.config.seconds
        length = round(_RATE * generator.uniform(low, high)) // 4 * 4
        parts = []
        for voice in voices:
            start = int(generator.integers(0, max(1, len(voice.heard) - length)))
            part = _looped(voice.heard, start, length)
            shape = np.interp(np.arange(80), np.linspace(0, 79, 6), generator.normal(0, 0.06, 6))
            prosody = part.prosody.astype(np.float32)
            prosody[:, 2:] += shape + generator.normal(0, 0.08)
            parts.append(Heard(part.content, part.level, prosody))
        return parts


def _looped(whole: Heard, start: int, length: int) -> Heard:
    """``length`` features from ``start`` on, from the beginning again at the end."""
    places = (start + np.arange(length)) % len(whole)
    return Heard(whole.content[places], whole.level[places], whole.prosody[places])


class IdentityTask(PadTask):
    """Stage 1 on voices with faces: shape, semantic embedding, sex and age."""

    stage = "identity"
    metric, mode = "val_identity", "max"

    def trained(self) -> dict[str, nn.Module]:
        """The voice's encoder and the face's projection."""
        return {"identity": self.pad.identity, "faces": self.pad.faces}

    def prepare(self, generator: np.random.Generator) -> None:
        """Voices whose speaker's face is known."""
        album = portraits(self.manifest)
        known, pairs = looks(self.manifest, album), list(voices_with_faces(self.manifest))
        train = [pair for pair in pairs if pair.item.split == "train"]
        self.voices = [self._voice(pair, known) for pair in train]
        self.held_out = [self._voice(pair, known) for pair in strangers(pairs)]
        trained = {voice.person for voice in self.voices}
        faces = np.stack([voice.face for voice in self.voices if voice.face is not None])
        self.pad.faces.mean.copy_(torch.from_numpy(faces.mean(0)))
        self.pad.faces.scale.copy_(torch.from_numpy(faces.std(0) + 1e-2))
        counts = {person: sum(v.person == person for v in self.voices) for person in trained}
        weight = np.array([1 / counts[voice.person] for voice in self.voices])
        self.weights = weight / weight.sum()

    def _voice(self, pair: VoiceAndFace, known: dict[str, Look]) -> _Voice:
        look = known[pair.portrait.key]
        return _Voice(
            heard(self.manifest, pair.item, self.stream),
            pair.person,
            pair.item.split,
            look.features.astype(np.float32),
            self.face.fit(pair.portrait.points[None]).alpha.astype(np.float32),
            look.male,
            look.age / 10,
        )

    def batches(self, generator: np.random.Generator) -> Iterator[tuple[list[_Voice], list[Heard]]]:
        """Endless batches of voices and stretches of them."""
        while True:
            chosen = generator.choice(len(self.voices), self.config.batch, p=self.weights, replace=False)
            voices = [self.voices[index] for index in chosen]
            yield voices, self.stretches(voices, generator)

    def training_step(
        self, batch: tuple[list[_Voice], list[Heard]], optimizer_index: int, step: int
    ) -> dict[str, Tensor]:
        """Contrast of voices and faces, likelihood of shape and age, cross-entropy of sex."""
        voices, parts = batch
        told = self.pad.identity(self.speech(parts, self.config.noise))
        face = self._column(voices, "face")
        face = self.pad.faces(face + 0.3 * torch.randn_like(face))
        people = np.array([voice.person for voice in voices])
        same = torch.from_numpy(people[:, None] == people[None])
        out = {
            "contrast": voice_to_face(told.semantic, face, torch.tensor(_FACE_TEMPERATURE), same),
            "shape": gaussian(self._column(voices, "alpha"), told.shape, told.shape_spread),
            "male": F.binary_cross_entropy_with_logits(told.male, self._column(voices, "male")),
            "age": gaussian(self._column(voices, "age"), told.age, told.age_spread),
        }
        loss = out["contrast"] + 0.2 * out["shape"] + 0.5 * out["male"] + 0.3 * out["age"]
        return {"loss": loss} | {name: value.detach() for name, value in out.items()}

    def _column(self, voices: list[_Voice], name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(v, name) for v in voices])).float().to(self.device)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Retrieval among held-out people, sex, age and shape."""
        told = [self.pad.identity(self.speech([voice.heard])) for voice in self.held_out]
        voices = torch.cat([one.semantic for one in told])
        faces = self.pad.faces(self._column(self.held_out, "face"))
        likeness = (voices @ faces.T).cpu().numpy()
        people = np.array([voice.person for voice in self.held_out])
        first = np.unique(people, return_index=True)[1]  # a face for each person
        rank = np.array(
            [
                (row[first] > row[first][people[first] == p].max()).sum()
                for row, p in zip(likeness, people, strict=True)
            ]
        )
        male = np.array([voice.male for voice in self.held_out])
        heard_male = torch.cat([one.male for one in told]).cpu().numpy() > 0
        age = np.array([voice.age for voice in self.held_out])
        heard_age = torch.cat([one.age for one in told]).cpu().numpy()
        alpha, expected = self._column(self.held_out, "alpha"), torch.cat([one.shape for one in told])
        scores = {
            "val_r1": float((rank < 1).mean()),
            "val_r10": float((rank < 10).mean()),
            "val_people": float(len(first)),
            "val_sex": float((heard_male == (male > 0.5)).mean()),
            "val_age_r": float(np.corrcoef(age, heard_age)[0, 1]),
            "val_age_error_years": float(10 * np.abs(age - heard_age).mean()),
            "val_shape_explained": float(1 - (alpha - expected).square().sum() / alpha.square().sum()),
        }
        return {"val_identity": scores["val_r10"] + scores["val_sex"] + 0.5 * scores["val_age_r"], **scores}


class ContentTask(PadTask):
    """Stage 2 on talking clips: mouth coefficients."""

    stage = "content"
    metric, mode = "val_aperture_r", "max"

    def prepare(self, generator: np.random.Generator) -> None:
        """Clips, some of them faster or slower and with other sound."""
        reader = ClipReader(self.manifest, self.face, encoder=self.config.speech)
        window = round(25 * self.config.seconds[1]) // 2 * 2
        self.window = window
        self.clips: list[Example] = []
        for variant in range(self.config.variants):
            for item in reader.items("train"):
                speed = 1.0 if variant == 0 else float(generator.uniform(0.88, 1.13))
                clip = reader.read(item, speed, generator if variant else None)
                if len(clip.motion) >= window:
                    self.clips.append(clip)
        self.held_out = [reader.read(item) for item in reader.items("val")]
        self.codes = {item.key: self._code(item) for item in [*reader.items("train"), *reader.items("val")]}
        self.clips_of: dict[str, list[str]] = {}
        for item in reader.items("train"):
            self.clips_of.setdefault(item.corpus + item.speaker, []).append(item.key)
        counts: dict[str, int] = {}
        for clip in self.clips:
            counts[clip.item.speaker] = counts.get(clip.item.speaker, 0) + len(clip.motion)
        weight = np.array([len(clip.motion) / counts[clip.item.speaker] ** 0.5 for clip in self.clips])
        self.weights = weight / weight.sum()
        self.lip_loss = LipLoss(self.face).to(self.device)

    @torch.no_grad()
    def _code(self, item: Item) -> Tensor:
        self.pad.eval()
        return self.pad.identity(self.speech([heard(self.manifest, item, self.stream)])).code()[0]

    def batches(self, generator: np.random.Generator) -> Iterator[tuple[Speech, Tensor, Tensor]]:
        """Endless batches: speech, identity codes (B, K + S), beta_mouth (B, T, M)."""
        while True:
            parts, codes, mouths = [], [], []
            for index in generator.choice(len(self.clips), self.config.batch, p=self.weights):
                clip = self.clips[index]
                start = int(generator.integers(0, len(clip.motion) - self.window + 1))
                parts.append(_clip_part(clip, start, start + self.window, self.pad.config.prosody))
                codes.append(self._someones_code(clip, generator))
                mouths.append(clip.beta_mouth[start : start + self.window])
            mouth = torch.from_numpy(np.stack(mouths)).float().to(self.device)
            yield self.speech(parts, self.config.noise), torch.stack(codes), mouth

    def _someones_code(self, clip: Example, generator: np.random.Generator) -> Tensor:
        """The identity of a clip's speaker, from another of the speaker's clips, or of nobody.

        With its own code, a clip could be learnt by heart.
        """
        keys = self.clips_of[clip.item.corpus + clip.item.speaker]
        code = self.codes[keys[generator.integers(len(keys))]]
        if generator.random() < _NOBODY:
            return torch.zeros_like(code)
        return code + 0.15 * torch.randn_like(code)

    def training_step(
        self, batch: tuple[Speech, Tensor, Tensor], optimizer_index: int, step: int
    ) -> dict[str, Tensor]:
        """Distance from the tracked lips and correlation with them; each member has its own."""
        speech, code, real = batch
        distance, correlation = torch.zeros(()), torch.zeros(())
        for lips in self.pad.content(speech, code):
            far, apart = self.lip_loss(lips, real)
            distance, correlation = distance + far, correlation + apart
        return {"loss": distance + 0.5 * correlation, "lips": distance.detach()}

    @torch.no_grad()
    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Write the stages; mouths open as far as people's, on the training clips as they are."""
        readout = self.lip_loss.readout[:, 0]
        plain = self.clips[: len(self.clips) // self.config.variants]
        real = np.mean([(torch.from_numpy(c.beta_mouth).float() @ readout.cpu()).std() for c in plain])
        told = np.mean([float((self._lips(clip) @ readout).std()) for clip in plain])
        self.pad.content.gain.mul_(float(real / told))
        logger.info("gain of the lips %.2f", float(self.pad.content.gain))
        super().export(directory, metrics)

    def _lips(self, clip: Example) -> Tensor:
        part = _clip_part(clip, 0, len(clip.motion), self.pad.config.prosody)
        return self.pad.content.mean(self.speech([part]), self.codes[clip.item.key][None])[0]

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Correlation of the opening with the real one, by group of speakers."""
        scores: dict[str, list[float]] = {}
        readout = self.lip_loss.readout.cpu().numpy()[:, 0]
        for clip in self.held_out:
            real = clip.beta_mouth @ readout
            if real.std() < 0.01:
                continue
            lips = self._lips(clip).cpu().numpy()
            group = (
                "wild"
                if clip.item.corpus != "GRID"
                else "grid_s1"
                if clip.item.speaker == "s1"
                else "grid_other"
            )
            scores.setdefault(group, []).append(best_lag_correlation(lips @ readout, real[: len(lips)])[0])
        metrics = {f"val_aperture_r_{group}": float(np.mean(values)) for group, values in scores.items()}
        return {"val_aperture_r": float(np.mean(list(metrics.values()))), **metrics}


def _clip_part(clip: Example, start: int, stop: int, prosody: int) -> Heard:
    """A clip's speech from one frame to another; the content stage does not listen to prosody."""
    part = slice(2 * start, 2 * stop)
    return Heard(clip.content[part], clip.level[part], np.zeros((2 * (stop - start), prosody), np.float16))


class EmotionTask(PadTask):
    """Stage 3 on acted speech, and on what the same faces look like in each mood."""

    stage = "emotion"
    metric, mode = "val_emotion_accuracy", "max"

    def prepare(self, generator: np.random.Generator) -> None:
        """Acted voices, with what the stages before say of them, and the moods' expressions."""
        voices = [voice for voice in self._acted() if voice.mood >= 0]
        self.voices = [voice for voice in voices if voice.split == "train"]
        self.held_out = [voice for voice in voices if voice.split == "val"]
        self._learn_expressions(*self._expressions("train"))
        self.held_moods, self.held_expressions = self._expressions("val")

    @torch.no_grad()
    def _learn_expressions(self, moods: Tensor, expressions: Tensor) -> None:
        """The mean change of face of each mood, exactly: so few people leave nothing to a training."""
        stage = self.pad.emotion
        goal = torch.zeros(len(EMOTIONS), expressions.shape[1])
        for mood in moods.unique():
            goal[mood] = _STRENGTH * expressions[moods == mood].mean(0)
        apart = (stage.embedding.weight - stage.embedding.weight[:1]).cpu()
        solved = torch.linalg.lstsq(apart, goal, driver="gelsd").solution
        stage.expression.weight.copy_(solved.T)

    def trained(self) -> dict[str, nn.Module]:
        """What is heard; expressions are solved for."""
        stage = self.pad.emotion
        return {
            f"emotion_{name}": getattr(stage, name)
            for name in ("inlet", "before", "mouth", "body", "norm", "mood")
        }

    def _acted(self) -> Iterator[_Voice]:
        path = self.manifest.root / "emotion.tsv"
        with path.open(newline="") as file:
            mood = {row["file"]: row["emotion"] for row in csv.DictReader(file, delimiter="\t")}
        for item in self.manifest.items:
            if item.file in mood:
                number = EMOTIONS.index(mood[item.file]) if mood[item.file] in EMOTIONS else -1
                whole = heard(self.manifest, item, self.stream)
                yield _Voice(whole, item.speaker, item.split, mood=number)

    def _expressions(self, split: str) -> tuple[Tensor, Tensor]:
        """Moods (N,) and beta_upper and beta_mouth (N, U + M) by which each changes the same resting face."""
        with (self.manifest.root / "clips.tsv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file, delimiter="\t") if row["emotion"] in EMOTIONS]
        shapes: dict[tuple[str, str], np.ndarray] = {}
        for row in rows:
            path = self.manifest.directory / "tracks" / f"clip_{row['id']}.npz"
            if row["split"] == split and path.is_file():
                with np.load(path) as arrays:
                    shapes[row["speaker"], row["emotion"]] = _mean_face(self.face, arrays["points"])
        moods, offsets = [], []
        for (speaker, mood), shape in shapes.items():
            neutral = shapes.get((speaker, "neutral"))
            if neutral is not None and mood != "neutral":
                moved = (shape - neutral)[None]
                offsets.append(
                    np.concatenate([self.face.project_upper(moved), self.face.project_mouth(moved)], 1)[0]
                )
                moods.append(EMOTIONS.index(mood))
        return torch.tensor(moods), torch.from_numpy(np.array(offsets, np.float32).reshape(len(moods), -1))

    def batches(self, generator: np.random.Generator) -> Iterator[tuple[Speech, Tensor]]:
        """Endless batches of speech and moods (B,)."""
        while True:
            voices = [self.voices[k] for k in generator.integers(0, len(self.voices), self.config.batch)]
            speech = self.speech(self.stretches(voices, generator), self.config.noise)
            yield speech, torch.tensor([voice.mood for voice in voices], device=self.device)

    def training_step(
        self, batch: tuple[Speech, Tensor], optimizer_index: int, step: int
    ) -> dict[str, Tensor]:
        """Cross-entropy of the mood."""
        speech, mood = batch
        logits = self._mood(speech)
        target = mood[:, None].expand(-1, logits.shape[1])
        return {"loss": F.cross_entropy(logits.transpose(1, 2), target, label_smoothing=0.1)}

    def _mood(self, speech: Speech) -> Tensor:
        with torch.no_grad():
            code = self.pad.identity(speech).code()
            mouth = self.pad.content.mean(speech, code)
        return self.pad.emotion.logits(speech, code, mouth)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Share of held-out actors' sentences whose mood is heard, and how alike expressions are."""
        right = []
        for voice in self.held_out:
            whole = _looped(voice.heard, 0, len(voice.heard) // 4 * 4)
            logits = self._mood(self.speech([whole]))[0].mean(0)
            right.append(int(logits.argmax()) == voice.mood)
        told = torch.cat(self.pad.emotion.express(F.one_hot(self.held_moods, len(EMOTIONS)).float()), -1)
        alike = F.cosine_similarity(told, self.held_expressions, dim=1)
        return {
            "val_emotion_accuracy": float(np.mean(right)),
            "val_expression_cosine": float(alike.mean()),
        }


def _mean_face(face: FaceModel, points: np.ndarray) -> np.ndarray:
    """The canonical mesh (478, 3) that a silent face has most of the time."""
    from talkface.face.model import estimate_pose

    return np.median(estimate_pose(points, face.mean).invert(points), axis=0)
