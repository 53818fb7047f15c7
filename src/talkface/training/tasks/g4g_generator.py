"""Trains the second stage of G4G: the generator, from an aligned start.

The mouth of a training frame is hidden and redrawn from other frames of the same clip, from the frame's own
mesh and from its own sound.
"""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from talkface.face.draw import MAP_CHANNELS
from talkface.nn.adversarial import PatchDiscriminator
from talkface.nn.picture import gradient_loss, weighted_l1
from talkface.performance.config import FRAME_RATE, SPEECH_WINDOW
from talkface.systems.g4g.drawing import prepare
from talkface.systems.g4g.experts import SYNC_CROP_PIXELS, SyncExpert
from talkface.systems.g4g.losses import multi_scale
from talkface.systems.g4g.model import GeneratorInputs, GeneratorOutput
from talkface.systems.g4g.references import Chooser
from talkface.training import OptimizerSpec
from talkface.training.batches import to_device
from talkface.training.datasets.augmentation import AppearanceAugmentation
from talkface.training.datasets.mouths import inputs, stacked, unit_planes
from talkface.training.datasets.talking import TalkingClip
from talkface.training.patch_gan import discriminator_loss, generator_losses, zero_loss
from talkface.training.samples import in_columns
from talkface.training.tasks.g4g_alignment import AlignmentTask


class GeneratorTask(AlignmentTask):
    """Reconstruction at several scales, losses of the frozen sync expert, alignment, PatchGAN."""

    metric, mode = "val_quality", "max"

    def prepare(self, data: Path, seed: int) -> None:
        """Load the expert besides, build the discriminator and draw the held-out stretches."""
        super().prepare(data, seed)
        self.expert = SyncExpert.from_pretrained(self.config.expert).to(self.device).requires_grad_(False)
        self.discriminator = PatchDiscriminator(MAP_CHANNELS).to(self.device)
        self.modules = {"generator": self.generator, "discriminator": self.discriminator}
        generator = np.random.default_rng(seed)
        chosen = self.held_out[:: max(1, len(self.held_out) // 24)]
        self.fixed = [self._stretch(clip, k, len(clip) // 3, generator, 0) for k, clip in enumerate(chosen)]

    def optimizers_spec(self) -> list[OptimizerSpec]:
        """The generator's and the discriminator's optimizers."""
        return [OptimizerSpec(modules=("generator",)), OptimizerSpec(modules=("discriminator",), lr=2.0)]

    def draw(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        """Stretches of five consecutive frames, one after the other."""
        rows = []
        for index in generator.choice(len(self.clips), self.config.stretches, p=self.weights):
            clip = self.clips[index]
            start = int(generator.integers(2, len(clip) - SPEECH_WINDOW - 2))
            variant = int(generator.integers(len(clip.content)))
            augment = AppearanceAugmentation.draw(generator)
            rows += [augment(row) for row in self._stretch(clip, int(index), start, generator, variant)]
        return stacked(rows)

    def _stretch(
        self, clip: TalkingClip, index: int, start: int, generator: np.random.Generator, variant: int
    ) -> list[dict[str, np.ndarray]]:
        """Five consecutive frames with references from elsewhere in the clip."""
        frames = range(start, start + SPEECH_WINDOW)
        bank = self.make.bank(clip, frames, generator, int(generator.integers(3, self.config.bank + 1)))
        seen = {int(k): self.make.reference(clip, int(k)) for k in bank}
        described = self.make.describe(clip)
        choose = Chooser(described[bank], bank / FRAME_RATE, self.config.model.references)
        other = int(generator.integers(len(clip))) if generator.random() < self.config.round_trip else None
        rows = []
        for frame in frames:
            crop, goal = self.make.context(clip, frame, other)
            picked = [seen[int(bank[k])] for k in choose(described[frame], frame / FRAME_RATE)]
            prepared = prepare(self.make.warp, crop, goal, picked, self.config.model.seeded)
            content, level = self.make.speech(clip, frame, variant)
            row = inputs(prepared) | {"content": content, "level": level, "mesh": self.make.mesh(clip, frame)}
            row["references"] = unit_planes(np.stack([reference.crop for reference in picked]))
            row |= {"around": unit_planes(crop), "target": unit_planes(self.make.target(clip, frame))}
            rows.append(row | {"clip": np.array(index), "frame": np.array(frame)})
        return rows

    # -- losses ----------------------------------------------------------------------------------

    def _draw(self, batch: dict[str, Tensor], noise: float = 0.0) -> tuple[Tensor, GeneratorOutput, Tensor]:
        """Finished crops (B, 3, P, P), the generator's output, and the loss weight (B, 1, P, P)."""
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
            out |= generator_losses(self.discriminator, fake, target, batch["maps"], weight)
            loss = loss + config.adversarial * out["adversarial"] + config.matching * out["matching"]
            loss = loss + config.sync * out["sync"]
        return {"loss": loss} | {name: value.detach() for name, value in out.items()}

    def _expert_losses(self, fake: Tensor, target: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The frozen expert's distance from the sound, and of its features of drawn and real mouths."""
        mouths = [
            F.interpolate(p, size=(SYNC_CROP_PIXELS,) * 2, mode="bilinear", antialias=True)
            for p in (fake, target)
        ]
        drawn, real = (torch.unflatten(m, 0, (-1, SPEECH_WINDOW)) for m in mouths)
        middle = slice(SPEECH_WINDOW // 2, None, SPEECH_WINDOW)  # the speech around it covers the stretch
        audio = self.expert.embed_audio(batch["content"][middle], batch["level"][middle])[:, 0]
        video, features_drawn = self.expert.embed_with_features(drawn)
        with torch.no_grad():
            _, features_real = self.expert.embed_with_features(real)
        distances = [
            F.l1_loss(a, b) / (b.abs().mean() + 1e-3)
            for a, b in zip(features_drawn, features_real, strict=True)
        ]
        sync = self.expert.scale.exp() * (video - audio).square().mean(-1)
        return {"sync": sync.mean(), "perceptual": torch.stack(distances).mean()}

    def _judge(self, batch: dict[str, Tensor], update: bool) -> dict[str, Tensor]:
        """The discriminator's loss."""
        if not update:
            return {"loss": zero_loss(self.discriminator)}
        with torch.no_grad():
            fake, _, weight = self._draw(batch)
        loss = discriminator_loss(self.discriminator, fake, batch["target"], batch["maps"], weight)
        return {"loss": loss}

    # -- validation ------------------------------------------------------------------------------

    @torch.no_grad()
    def _held_out_pictures(self) -> Iterator[tuple[dict[str, Tensor], Tensor, Tensor]]:
        """Batches of held-out stretches with finished crops and loss weights."""
        for rows in self.fixed:
            batch = to_device(stacked(rows), self.device)
            fake, _, weight = self._draw(batch)
            yield batch, fake.clamp(0, 1), weight

    def validate(self) -> dict[str, float]:
        """PSNR where the mouth is drawn, the same of the nearest reference alone, and relative sharpness."""
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
            row = torch.cat(cells, 2).permute(1, 2, 0).cpu().numpy()
            rows.append((row.clip(0, 1) * 255).astype(np.uint8))
        return in_columns(rows)


def _psnr(a: Tensor, b: Tensor, where: Tensor) -> float:
    """Peak signal-to-noise ratio, dB, of pictures in [0, 1] at some places."""
    return float(-10 * torch.log10((a - b)[where].square().mean() + 1e-8))


def _sharpness(picture: Tensor, weight: Tensor) -> float:
    """Mean gradient of grey values where the loss weight is high: the lips and the inside of the mouth."""
    grey = picture.mean(1, keepdim=True)
    x, y = grey.diff(dim=3)[:, :, 1:], grey.diff(dim=2)[..., 1:]
    inner = (weight[:, :, 1:, 1:] > 1.5).float()
    return float(((x.abs() + y.abs()) * inner).sum() / (inner.sum() + 1e-6))
