"""Trains G4G: first the alignment of faces and speech, then the generator with everything.

Frames of training clips are hidden around the mouth and redrawn from other frames of the same clip, their own
mesh and their own sound.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from talkface.data.prepare import Manifest
from talkface.face.draw import MAP_CHANNELS, mesh_maps
from talkface.face.model import FaceModel
from talkface.hub import save_pretrained
from talkface.media.prefetch import prefetched
from talkface.nn.adversarial import PatchDiscriminator, feature_matching, hinge_discriminator, hinge_generator
from talkface.nn.picture import gradient_loss, weighted_l1
from talkface.performance.config import SPEECH_WINDOW
from talkface.systems.g4g.config import GeneratorConfig
from talkface.systems.g4g.drawing import hidden_region, masked, prepare
from talkface.systems.g4g.experts import SYNC_CROP_PIXELS, SyncExpert
from talkface.systems.g4g.losses import diagonal_alignment, multi_scale, pairwise_alignment, retrieval
from talkface.systems.g4g.model import Generator, GeneratorInputs, GeneratorOutput
from talkface.systems.g4g.references import Chooser
from talkface.training import OptimizerSpec, Task
from talkface.training.datasets.mouths import Look, MouthMaker, inputs, planes, stack
from talkface.training.datasets.talking import TalkingClip, read_talking, speaker_weights

logger = logging.getLogger(__name__)

_ALIGNMENTS = {"diagonal": diagonal_alignment, "pairwise": pairwise_alignment}


@dataclass(frozen=True, kw_only=True)
class GeneratorTrainConfig:
    """Settings of both trainings; the alignment's uses the first group only."""

    model: GeneratorConfig = field(default_factory=GeneratorConfig)
    alignment: str = "diagonal"  # or "pairwise", the ablation
    smallest_unit: float = 60.0  # inter-ocular pixels; smaller faces would teach blur
    most_of_one: int = 40  # clips of a speaker
    speaker_power: float = 0.6
    feature_noise: float = 0.1
    variants: int = 2  # encodings of each sound: as it is, then augmented
    max_clips: int = 0  # 0: all
    aligned_clips: int = 10  # of an alignment batch
    aligned_frames: int = 6  # of each

    stretches: int = 3  # of five consecutive frames in a batch: the sync expert wants them
    bank: int = 8  # references to choose from
    expert: str = "sync-training"  # or the export of a run
    round_trip: float = 0.5  # how often the face around the mouth shows the traces of being warped
    gradient: float = 2.0
    scales: float = 0.5
    sync: float = 0.03
    perceptual: float = 0.5
    align: float = 0.02
    inner: float = 4.0  # extra weight of the lips and the inside of the mouth
    adversarial_start: int = 600
    judged_every: int = 2  # steps from one update of the discriminator to the next
    adversarial: float = 0.1
    matching: float = 0.5


class AlignmentTask(Task):
    """Faces (masked, with their mesh) and speech of the same moment are brought together."""

    Config = GeneratorTrainConfig
    metric, mode = "val_retrieval", "max"

    def __init__(self, config: GeneratorTrainConfig, data: Path, seed: int = 0, device: str = "cpu") -> None:
        self.config, self.device, self.seed = config, torch.device(device), seed
        self.face = FaceModel.from_pretrained()
        self.make = MouthMaker(self.face, config.model.pixels)
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
        self.held_out = read_talking(data, Manifest.load(data).choosing, self.face, **options)
        self.weights = speaker_weights(self.clips, config.speaker_power)
        self.generator = Generator(config.model).to(self.device)
        self.modules = {"generator": self.generator}

    def batches(self, generator: np.random.Generator) -> Iterator[dict[str, Tensor]]:
        """Endless batches of masked faces and the speech around them."""
        yield from prefetched(self._faces(generator))

    def _faces(self, generator: np.random.Generator) -> Iterator[dict[str, Tensor]]:
        while True:
            rows = []
            for index in generator.choice(len(self.clips), self.config.aligned_clips, p=self.weights):
                clip = self.clips[index]
                frames = generator.permutation(len(clip))[: self.config.aligned_frames]
                variant = int(generator.integers(len(clip.content)))
                look = Look.draw(generator)
                rows += [look(self._face(clip, int(index), int(f), variant)) for f in frames]
            yield stack(rows, self.device)

    def _face(self, clip: TalkingClip, index: int, frame: int, variant: int = 0) -> dict[str, np.ndarray]:
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
            batch = stack([self._face(clip, 0, int(f)) for f in frames], self.device)
            group = "grid" if clip.item.corpus == "GRID" else "wild"
            found = retrieval(*self._embed(batch)).mean()
            scores.setdefault(f"val_retrieval_{group}", []).append(float(found))
        every = [v for values in scores.values() for v in values]
        spread_ = 1.96 * float(np.std(every)) / max(1, len(every)) ** 0.5
        means = {name: float(np.mean(values)) for name, values in scores.items()}
        return {"val_retrieval": float(np.mean(every)), "val_interval": spread_} | means

    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Write the generator, of which only the alignment is trained, as the hub reads it."""
        config = self.generator.config_dict() | {"metrics": metrics}
        save_pretrained(directory, config, self.generator.state_dict(), card=None)


class GeneratorTask(AlignmentTask):
    """Reconstruction at several scales, the frozen expert's losses, alignment, PatchGAN."""

    metric, mode = "val_quality", "max"

    def __init__(self, config: GeneratorTrainConfig, data: Path, seed: int = 0, device: str = "cpu") -> None:
        super().__init__(config, data, seed, device)
        self.expert = SyncExpert.from_pretrained(config.expert).to(self.device).requires_grad_(False)
        self.discriminator = PatchDiscriminator(MAP_CHANNELS).to(self.device)
        self.modules = {"generator": self.generator, "discriminator": self.discriminator}
        self.described = [self.make.describe(clip) for clip in self.clips]
        generator = np.random.default_rng(seed)
        chosen = self.held_out[:: max(1, len(self.held_out) // 24)]
        self.fixed = [self._stretch(clip, k, len(clip) // 3, generator, 0) for k, clip in enumerate(chosen)]

    def optimizers_spec(self) -> list[OptimizerSpec]:
        """The generator's and the discriminator's optimizers."""
        return [OptimizerSpec(modules=("generator",)), OptimizerSpec(modules=("discriminator",), lr=2.0)]

    def batches(self, generator: np.random.Generator) -> Iterator[dict[str, Tensor]]:
        """Endless batches of stretches of five frames, one after the other."""
        yield from prefetched(self._stretches(generator))

    def _stretches(self, generator: np.random.Generator) -> Iterator[dict[str, Tensor]]:
        while True:
            rows = []
            for index in generator.choice(len(self.clips), self.config.stretches, p=self.weights):
                clip = self.clips[index]
                start = int(generator.integers(2, len(clip) - SPEECH_WINDOW - 2))
                variant = int(generator.integers(len(clip.content)))
                look = Look.draw(generator)
                rows += [look(row) for row in self._stretch(clip, int(index), start, generator, variant)]
            yield stack(rows, self.device)

    def _stretch(
        self, clip: TalkingClip, index: int, start: int, generator: np.random.Generator, variant: int
    ) -> list[dict[str, np.ndarray]]:
        """Five consecutive frames with references from elsewhere in the clip."""
        frames = range(start, start + SPEECH_WINDOW)
        bank = self.make.bank(clip, frames, generator, int(generator.integers(3, self.config.bank + 1)))
        seen = {int(k): self.make.reference(clip, int(k)) for k in bank}
        described = self.make.describe(clip)
        choose = Chooser(described[bank], bank / 25, self.config.model.references)
        other = int(generator.integers(len(clip))) if generator.random() < self.config.round_trip else None
        rows = []
        for frame in frames:
            crop, goal = self.make.context(clip, frame, other)
            picked = [seen[int(bank[k])] for k in choose(described[frame], frame / 25)]
            prepared = prepare(self.make.warp, crop, goal, picked, self.config.model.seeded)
            content, level = self.make.speech(clip, frame, variant)
            row = inputs(prepared) | {
                "content": content,
                "level": level,
                "mesh": self.make.mesh(clip, frame),
            }
            row["references"] = planes(np.stack([p.crop for p in picked]).astype(np.float32) / 255)
            row |= {"around": planes(crop.astype(np.float32) / 255)}
            row |= {"target": planes(self.make.target(clip, frame).astype(np.float32) / 255)}
            rows.append(row | {"clip": np.array(index), "frame": np.array(frame)})
        return rows

    # -- losses ----------------------------------------------------------------------------------

    def _draw(self, batch: dict[str, Tensor], noise: float = 0.0) -> tuple[Tensor, GeneratorOutput, Tensor]:
        """Finished crops, all that was drawn, and the loss weight."""
        given = {f.name: batch[f.name] for f in fields(GeneratorInputs)}
        given["content"] = given["content"] + noise * torch.randn_like(given["content"])
        drawn = self.generator(GeneratorInputs(**given))
        picture = drawn.picture(batch["seeds"], batch["around"])
        inner = F.max_pool2d(batch["maps"][:, 3:4], 7, 1, 3)
        inner = F.interpolate(inner, scale_factor=2.0, mode="bilinear")
        return picture, drawn, batch["hidden"] * (1 + self.config.inner * inner)

    def training_step(self, batch: dict[str, Tensor], optimizer_index: int, step: int) -> dict[str, Tensor]:
        """Generator (0) or discriminator (1)."""
        adversarial = step >= self.config.adversarial_start
        if optimizer_index == 1:
            return self._judge(batch, adversarial and step % self.config.judged_every == 0)
        config, target = self.config, batch["target"]
        fake, drawn, weight = self._draw(batch, config.feature_noise)
        out = {
            "l1": weighted_l1(fake, target, weight),
            "gradient": gradient_loss(fake, target, weight),
            "scales": multi_scale(drawn.scales, target, weight),
            "align": self.align(
                drawn.visual, drawn.audio, self.generator.temperature, batch["clip"], batch["frame"]
            ),
        }
        out |= self._expert_losses(fake, target, batch)
        loss = out["l1"] + config.gradient * out["gradient"] + config.scales * out["scales"]
        loss = loss + config.align * out["align"] + config.perceptual * out["perceptual"]
        if adversarial:
            score, seen = self.discriminator(fake, batch["maps"])
            with torch.no_grad():
                _, real = self.discriminator(target, batch["maps"])
            out |= {
                "adversarial": hinge_generator(score, _patch_weight(weight, score)),
                "matching": feature_matching(seen, real),
            }
            loss = loss + config.adversarial * out["adversarial"] + config.matching * out["matching"]
            loss = loss + config.sync * out["sync"]
        return {"loss": loss} | {name: value.detach() for name, value in out.items()}

    def _expert_losses(self, fake: Tensor, target: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The frozen expert's distance from the sound, and between what it sees in drawn and real mouths."""
        mouths = [
            F.interpolate(p, size=(SYNC_CROP_PIXELS,) * 2, mode="bilinear", antialias=True)
            for p in (fake, target)
        ]
        drawn, real = (m.unflatten(0, (-1, SPEECH_WINDOW)) for m in mouths)
        middle = slice(SPEECH_WINDOW // 2, None, SPEECH_WINDOW)  # its speech is the stretch's
        audio = self.expert.embed_audio(batch["content"][middle], batch["level"][middle])[:, 0]
        video, features_drawn = self.expert.embed_with_features(drawn)
        with torch.no_grad():
            _, features_real = self.expert.embed_with_features(real)
        apart = [
            F.l1_loss(a, b) / (b.abs().mean() + 1e-3)
            for a, b in zip(features_drawn, features_real, strict=True)
        ]
        sync = self.expert.scale.exp() * (video - audio).square().mean(-1)
        return {"sync": sync.mean(), "perceptual": torch.stack(apart).mean()}

    def _judge(self, batch: dict[str, Tensor], wanted: bool) -> dict[str, Tensor]:
        if not wanted:  # keeps the graph alive without training anything
            return {"loss": self.discriminator.head.get_parameter("bias").sum() * 0.0}
        with torch.no_grad():
            fake, _, weight = self._draw(batch)
        real_score, _ = self.discriminator(batch["target"], batch["maps"])
        fake_score, _ = self.discriminator(fake, batch["maps"])
        return {"loss": hinge_discriminator(real_score, fake_score, _patch_weight(weight, real_score))}

    # -- validation ------------------------------------------------------------------------------

    @torch.no_grad()
    def _held_out_pictures(self) -> Iterator[tuple[dict[str, Tensor], Tensor, Tensor]]:
        for rows in self.fixed:
            batch = stack(rows, self.device)
            fake, _, weight = self._draw(batch)
            yield batch, fake.clamp(0, 1), weight

    def validate(self) -> dict[str, float]:
        """PSNR where the mouth is drawn, of the best seed alone too, and sharpness relative to the real."""
        psnr, seed, ratios = [], [], []
        for batch, fake, weight in self._held_out_pictures():
            where = (batch["hidden"] > 0.5).expand(-1, 3, -1, -1)
            psnr.append(_psnr(fake, batch["target"], where))
            seed.append(_psnr(batch["seeds"][:, 0], batch["target"], where))
            real = _sharpness(batch["target"], weight)
            if real > 0:  # a mouth that stays closed shows nothing that could be blurred
                ratios.append(_sharpness(fake, weight) / real)
        sharpness = float(np.median(ratios))
        quality = float(np.mean(psnr)) - 4 * abs(np.log(sharpness))
        return {
            "val_quality": quality,
            "val_psnr": float(np.mean(psnr)),
            "val_psnr_seed": float(np.mean(seed)),
            "val_sharpness": sharpness,
        }

    def samples(self) -> np.ndarray:
        """Rows of masked face, first seed, drawn, real: the middle frame of held-out stretches."""
        rows = []
        for batch, fake, _ in self._held_out_pictures():
            k = SPEECH_WINDOW // 2
            cells = [batch["context"][k], batch["seeds"][k, 0], fake[k], batch["target"][k]]
            rows.append(torch.cat(cells, 2).permute(1, 2, 0).cpu().numpy())
        columns = min(3, len(rows))
        whole = len(rows) // columns * columns
        rows = [(row.clip(0, 1) * 255).astype(np.uint8) for row in rows[:whole]]
        return np.concatenate([np.concatenate(rows[i::columns], 0) for i in range(columns)], 1)


def _psnr(a: Tensor, b: Tensor, where: Tensor) -> float:
    return float(-10 * torch.log10((a - b)[where].square().mean() + 1e-8))


def _sharpness(picture: Tensor, weight: Tensor) -> float:
    """Mean gradient of grey values under a weight."""
    grey = picture.mean(1, keepdim=True)
    x, y = grey.diff(dim=3)[:, :, 1:], grey.diff(dim=2)[..., 1:]
    inner = (weight[:, :, 1:, 1:] > 1.5).float()
    return float(((x.abs() + y.abs()) * inner).sum() / (inner.sum() + 1e-6))


def _patch_weight(weight: Tensor, scores: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(weight, (scores.shape[-2], scores.shape[-1]))
