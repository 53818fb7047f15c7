"""Trains the first stage of G4G: the alignment of faces with their mesh and of faces with speech.

The mouth of a training frame is hidden; the masked face, modulated by its own mesh, and the speech of the
same moment are embedded close to each other. The generator's training starts from the result.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from talkface.face.draw import mesh_maps
from talkface.face.model import FaceModel
from talkface.hub import save_pretrained
from talkface.systems.g4g.config import GeneratorConfig
from talkface.systems.g4g.drawing import hidden_region, masked
from talkface.systems.g4g.losses import diagonal_alignment, pairwise_alignment, retrieval
from talkface.systems.g4g.model import Generator
from talkface.training import Task
from talkface.training.batches import to_device
from talkface.training.datasets.augmentation import AppearanceAugmentation
from talkface.training.datasets.mouths import MouthInputs, planes, stacked
from talkface.training.datasets.talking import TalkingClip, clip_weights, read_talking

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class GeneratorTrainConfig:
    """Settings of both stages; the alignment uses the first group only.

    The weights of the generator's losses are those of the picture's gradients, of multi-scale supervision
    (``scales``), of the sync expert's distance (``sync``) and features (``perceptual``), of the alignment
    (``align``) and of the discriminator (``adversarial``, ``matching``).
    """

    model: GeneratorConfig = field(default_factory=GeneratorConfig)
    alignment: str = "diagonal"  # or "pairwise", the ablation
    smallest_unit: float = 60.0  # inter-ocular pixels; smaller faces would teach blur
    most_of_one: int = 40  # greatest number of clips of a speaker
    speaker_power: float = 0.6
    feature_noise: float = 0.1
    variants: int = 2  # encodings of each sound: as it is, then augmented
    max_clips: int = 0  # 0: all
    aligned_clips: int = 10  # of a batch of the alignment
    aligned_frames: int = 6  # of each of them

    stretches: int = 3  # of five consecutive frames in a batch, as the sync expert takes them
    bank: int = 8  # references to choose from
    expert: str = "sync-training"  # name or directory
    round_trip: float = 0.5  # share of stretches whose frames are warped and back, as a dubbed jaw is
    gradient: float = 2.0
    scales: float = 0.5
    sync: float = 0.03
    perceptual: float = 0.5
    align: float = 0.02
    inner: float = 4.0  # extra weight of the lips and the inside of the mouth
    adversarial_start: int = 600
    judged_every: int = 2  # steps per update of the discriminator
    adversarial: float = 0.1
    matching: float = 0.5
    groups: dict[str, str] = field(default_factory=dict)  # by which validation is summed up, by patterns


_ALIGNMENTS = {"diagonal": diagonal_alignment, "pairwise": pairwise_alignment}


class AlignmentTask(Task[GeneratorTrainConfig]):
    """Contrast of masked faces, aligned with their mesh, and speech."""

    metric, mode = "val_retrieval", "max"

    def prepare(self, data: Path, seed: int) -> None:
        """Read the clips and build the generator."""
        config = self.config
        self.face = FaceModel.from_pretrained()
        self.make = MouthInputs(self.face, config.model.pixels)
        self.align = _ALIGNMENTS[config.alignment]
        options: dict[str, Any] = {
            "variants": config.variants,
            "smallest_unit": config.smallest_unit,
            "shortest": 40,
            "most_of_one": config.most_of_one,
            "limit": config.max_clips,
        }
        self.clips = read_talking(data, "train", self.face, seed=seed, **options)
        options |= {"most_of_one": 3, "variants": 1}
        self.held_out = read_talking(data, self.manifest.choosing, self.face, **options)
        self.weights = clip_weights(self.clips, config.speaker_power)
        self.generator = Generator(config.model).to(self.device)
        self.modules = {"generator": self.generator}

    def draw(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        """Masked faces and the speech around them."""
        rows = []
        for index in generator.choice(len(self.clips), self.config.aligned_clips, p=self.weights):
            clip = self.clips[index]
            frames = generator.permutation(len(clip))[: self.config.aligned_frames]
            variant = int(generator.integers(len(clip.content)))
            augment = AppearanceAugmentation.draw(generator)
            rows += [augment(self._face(clip, int(index), int(f), variant)) for f in frames]
        return stacked(rows)

    def _face(self, clip: TalkingClip, index: int, frame: int, variant: int = 0) -> dict[str, np.ndarray]:
        """One frame's inputs of the encoders, and which frame it is."""
        crop, goal = self.make.context(clip, frame, None)
        hidden = hidden_region(goal, self.make.pixels)
        half = self.make.pixels // 2
        field_ = self.make.warp.field(goal, goal, (half, half), 2.0)
        row = {
            "context": planes(masked(crop, hidden)),
            "hidden": hidden[None],
            "maps": mesh_maps(self.make.warp, field_, goal, goal),
        }
        content, level = self.make.speech(clip, frame, variant)
        place = {"clip": np.array(index), "frame": np.array(frame)}
        mesh = self.make.mesh(clip, frame)
        return row | {"content": content, "level": level, "mesh": mesh} | place

    def _embed(self, batch: dict[str, Tensor], noise: float = 0.0) -> tuple[Tensor, Tensor]:
        """Embeddings (B, embedding) of faces and of speech, whose features get noise of a deviation."""
        pyramid, _ = self.generator.see(batch["context"], batch["hidden"], batch["maps"], batch["mesh"])
        content = batch["content"] + noise * torch.randn_like(batch["content"])
        f_a = self.generator.speech(content, batch["level"])
        return self.generator.embed_face(pyramid), self.generator.embed_speech(f_a)

    def training_step(self, batch: dict[str, Tensor], optimizer_index: int, step: int) -> dict[str, Tensor]:
        """The contrast alone."""
        visual, audio = self._embed(batch, self.config.feature_noise)
        loss = self.align(visual, audio, self.generator.temperature, batch["clip"], batch["frame"])
        return {"loss": loss, "retrieval": retrieval(visual, audio).mean()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """How often a held-out face finds its own sound among 24 frames of its clip (chance 1/24)."""
        scores: dict[str, list[float]] = {}
        for clip in self.held_out:
            frames = np.linspace(2, len(clip) - 3, 24).round().astype(int)
            batch = to_device(stacked([self._face(clip, 0, int(f)) for f in frames]), self.device)
            group = clip.item.look_up(self.config.groups, clip.item.group)
            found = retrieval(*self._embed(batch)).mean()
            scores.setdefault(f"val_retrieval_{group}", []).append(float(found))
        every = [v for values in scores.values() for v in values]
        interval = 1.96 * float(np.std(every)) / max(1, len(every)) ** 0.5
        means = {name: float(np.mean(values)) for name, values in scores.items()}
        return {"val_retrieval": float(np.mean(every)), "val_interval": interval} | means

    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Write the generator, of which only the alignment is trained, as the hub reads it."""
        config = self.generator.config_dict() | {"metrics": metrics}
        save_pretrained(directory, config, self.generator.state_dict(), card=None)
