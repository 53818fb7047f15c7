"""Trains PAD's first stage: the speaker's shape, semantic embedding, sex and age."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkface.data.attributes import FaceDescription, portrait_descriptions
from talkface.data.faces import portraits
from talkface.data.voice_faces import VoiceAndFace, strangers, voices_with_faces
from talkface.systems.imagineid.losses import gaussian, voice_to_face
from talkface.systems.imagineid.pad_input import PadInput
from talkface.training.datasets.pad_inputs import pad_input_of
from talkface.training.tasks.imagineid_pad import LabelledVoice, PadTask

_FACE_TEMPERATURE = 12.0


class IdentityTask(PadTask):
    """Stage 1 on voices of people whose face is known."""

    stage = "identity"
    metric, mode = "val_identity", "max"

    def trained(self) -> dict[str, nn.Module]:
        """The voice's encoder and the face's projection."""
        return {"identity": self.pad.identity, "faces": self.pad.faces}

    def read_data(self, generator: np.random.Generator) -> None:
        """Voices whose speaker's face is known."""
        album = portraits(self.manifest)
        known, pairs = portrait_descriptions(self.manifest, album), list(voices_with_faces(self.manifest))
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

    def _voice(self, pair: VoiceAndFace, known: dict[str, FaceDescription]) -> LabelledVoice:
        look = known[pair.portrait.key]
        return LabelledVoice(
            pad_input_of(self.manifest, pair.item, self.stream),
            pair.person,
            pair.item.split,
            look.features.astype(np.float32),
            self.face.fit(pair.portrait.points[None]).alpha.astype(np.float32),
            look.male,
            look.age / 10,
        )

    def batches(self, generator: np.random.Generator) -> Iterator[tuple[list[LabelledVoice], list[PadInput]]]:
        """Endless batches of voices and stretches of them."""
        while True:
            chosen = generator.choice(len(self.voices), self.config.batch, p=self.weights, replace=False)
            voices = [self.voices[index] for index in chosen]
            yield voices, self.stretches(voices, generator)

    def training_step(
        self, batch: tuple[list[LabelledVoice], list[PadInput]], optimizer_index: int, step: int
    ) -> dict[str, Tensor]:
        """Contrast of voices and faces, likelihood of shape and age, cross-entropy of sex."""
        voices, parts = batch
        predicted = self.pad.identity(self.speech(parts, self.config.noise))
        face = self._column(voices, "face")
        face = self.pad.faces(face + 0.3 * torch.randn_like(face))
        people = np.array([voice.person for voice in voices])
        same = torch.from_numpy(people[:, None] == people[None])
        out = {
            "contrast": voice_to_face(predicted.semantic, face, torch.tensor(_FACE_TEMPERATURE), same),
            "shape": gaussian(self._column(voices, "alpha"), predicted.shape, predicted.shape_spread),
            "male": F.binary_cross_entropy_with_logits(predicted.male, self._column(voices, "male")),
            "age": gaussian(self._column(voices, "age"), predicted.age, predicted.age_spread),
        }
        loss = out["contrast"] + 0.2 * out["shape"] + 0.5 * out["male"] + 0.3 * out["age"]
        return {"loss": loss} | {name: value.detach() for name, value in out.items()}

    def _column(self, voices: list[LabelledVoice], name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(v, name) for v in voices])).float().to(self.device)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Retrieval among held-out people, sex, age and shape."""
        predicted = [self.pad.identity(self.speech([voice.features])) for voice in self.held_out]
        voices = torch.cat([one.semantic for one in predicted])
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
        heard_male = torch.cat([one.male for one in predicted]).cpu().numpy() > 0
        age = np.array([voice.age for voice in self.held_out])
        heard_age = torch.cat([one.age for one in predicted]).cpu().numpy()
        alpha, expected = self._column(self.held_out, "alpha"), torch.cat([one.shape for one in predicted])
        scores = {
            "val_r1": float((rank < 1).mean()),
            "val_r10": float((rank < 10).mean()),
            "val_people": float(len(first)),
            "val_sex": float((heard_male == (male > 0.5)).mean()),
            "val_age_r": float(np.corrcoef(age, heard_age)[0, 1]) if heard_age.std() > 1e-4 else 0.0,
            "val_age_error_years": float(10 * np.abs(age - heard_age).mean()),
            "val_shape_explained": float(1 - (alpha - expected).square().sum() / alpha.square().sum()),
        }
        return {"val_identity": scores["val_r10"] + scores["val_sex"] + 0.5 * scores["val_age_r"], **scores}
