"""Trains PAD's third stage: the mood of speech, and the expressions of moods."""

import csv
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkface.face.model import FaceModel, estimate_pose
from talkface.systems.imagineid.config import EMOTIONS
from talkface.systems.imagineid.pad import Speech
from talkface.training.datasets.pad_inputs import pad_input_of
from talkface.training.tasks.imagineid_pad import LabelledVoice, PadTask, looped

_STRENGTH = 0.5  # of the mean expression of a mood: about half of a mean over two people is their own


class EmotionTask(PadTask):
    """Stage 3 on acted speech, and on tracked faces of the same people in each mood."""

    stage = "emotion"
    metric, mode = "val_emotion_accuracy", "max"

    def read_data(self, generator: np.random.Generator) -> None:
        """Acted voices, with what the stages before say of them, and the moods' expressions."""
        voices = [voice for voice in self._acted() if voice.mood >= 0]
        self.voices = [voice for voice in voices if voice.split == "train"]
        self.held_out = [voice for voice in voices if voice.split == "val"]
        self._learn_expressions(*self._expressions("train"))
        self.held_moods, self.held_expressions = self._expressions("val")

    @torch.no_grad()
    def _learn_expressions(self, moods: Tensor, expressions: Tensor) -> None:
        """Solve for the mean expression of each mood: there are too few people to train on."""
        stage = self.pad.emotion
        goal = torch.zeros(len(EMOTIONS), expressions.shape[1])
        for mood in sorted(set(moods.tolist())):
            goal[mood] = _STRENGTH * expressions[moods == mood].mean(0)
        apart = (stage.embedding.weight - stage.embedding.weight[:1]).cpu()
        solved = torch.linalg.lstsq(apart, goal, driver="gelsd").solution
        stage.expression.weight.copy_(solved.T)

    def trained(self) -> dict[str, nn.Module]:
        """The networks of the mood; expressions are solved for."""
        stage = self.pad.emotion
        return {
            f"emotion_{name}": getattr(stage, name)
            for name in ("inlet", "before", "mouth", "body", "norm", "mood")
        }

    def _acted(self) -> Iterator[LabelledVoice]:
        path = self.manifest.root / "emotion.tsv"
        with path.open(newline="") as file:
            mood = {row["file"]: row["emotion"] for row in csv.DictReader(file, delimiter="\t")}
        for item in self.manifest.items:
            if item.file in mood:
                number = EMOTIONS.index(mood[item.file]) if mood[item.file] in EMOTIONS else -1
                whole = pad_input_of(self.manifest, item, self.stream)
                yield LabelledVoice(whole, item.speaker, item.split, mood=number)

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
        code = self.code(speech)
        with torch.set_grad_enabled(self.joint and torch.is_grad_enabled()):
            mouth = self.pad.content.mean(speech, code)
        return self.pad.emotion.logits(speech, code, mouth)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Share of held-out actors' sentences whose mood is heard, and how similar expressions are."""
        right = []
        for voice in self.held_out:
            whole = looped(voice.features, 0, len(voice.features) // 4 * 4)
            logits = self._mood(self.speech([whole]))[0].mean(0)
            right.append(int(logits.argmax()) == voice.mood)
        predicted = torch.cat(self.pad.emotion.express(F.one_hot(self.held_moods, len(EMOTIONS)).float()), -1)
        similar = F.cosine_similarity(predicted, self.held_expressions, dim=1)
        return {
            "val_emotion_accuracy": float(np.mean(right)),
            "val_expression_cosine": float(similar.mean()),
        }


def _mean_face(face: FaceModel, points: np.ndarray) -> np.ndarray:
    """The canonical mesh (478, 3) that a silent face has most of the time."""
    median: np.ndarray = np.median(estimate_pose(points, face.mean).invert(points), axis=0)
    return median
