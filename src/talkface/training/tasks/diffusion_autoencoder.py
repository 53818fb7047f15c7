"""Trains the face LDM's autoencoder on portraits, by patches."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from talkface.data.faces import Portrait, held_out, portraits, weights
from talkface.diffusion.autoencoder import FaceAutoencoder, divergence
from talkface.diffusion.config import AutoencoderConfig
from talkface.hub import save_pretrained
from talkface.media.prefetch import prefetched
from talkface.nn.adversarial import PatchDiscriminator, feature_matching, hinge_discriminator, hinge_generator
from talkface.nn.picture import detail, gradient_loss, pictures, weighted_l1
from talkface.training import OptimizerSpec, Task


@dataclass(frozen=True, kw_only=True)
class AutoencoderTrainConfig:
    """Settings of the autoencoder's training.

    Attributes:
        model: sizes.
        patch: side in pixels of the part of a portrait that a step is shown.
        batch: patches.
        start: name or directory of an autoencoder whose decoder is trained further; its latents stay.
        noise: largest standard deviation of noise on the latents of such a decoder: those that the LDM
            samples are not exact, either.
        gradient, divergence, adversarial, matching: weights of the losses beside the L1 distance.
        adversarial_start: step from which the PatchGAN takes part.
        discriminator_width: of its first layer.
        held_out: portraits on which it is validated.
    """

    model: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    patch: int = 128
    batch: int = 12
    start: str = ""
    noise: float = 0.0
    gradient: float = 0.5
    divergence: float = 1e-4
    adversarial: float = 0.02
    matching: float = 0.2
    adversarial_start: int = 1500
    discriminator_width: int = 24
    held_out: int = 48


class AutoencoderTask(Task[AutoencoderTrainConfig]):
    """L1, gradients, a little divergence, and a PatchGAN from a certain step on.

    The best weights have the highest PSNR, less a penalty for other sharpness than the real pictures'.
    """

    metric, mode = "val_quality", "max"

    def prepare(self, data: Path, seed: int) -> None:
        """Load portraits, and build autoencoder and discriminator."""
        config = self.config
        album = portraits(self.manifest)
        self.album = [portrait for portrait in album if portrait.split == "train"]
        self.weights = weights(self.album)
        self.held_out = held_out(album, config.held_out)
        torch.manual_seed(seed)
        autoencoder = (
            FaceAutoencoder.from_pretrained(config.start) if config.start else FaceAutoencoder(config.model)
        )
        self.autoencoder = autoencoder.to(self.device)
        self.discriminator = PatchDiscriminator(0, config.discriminator_width).to(self.device)
        if config.start:
            self.autoencoder.encoder.requires_grad_(False)
        trained = self.autoencoder.decoder if config.start else self.autoencoder
        self.modules = {"autoencoder": trained, "discriminator": self.discriminator}

    def optimizers_spec(self) -> list[OptimizerSpec]:
        """The autoencoder's and the discriminator's optimizers."""
        return [OptimizerSpec(modules=("autoencoder",)), OptimizerSpec(modules=("discriminator",))]

    def batches(self, generator: np.random.Generator) -> Iterator[Tensor]:
        """Endless batches of patches (B, 3, P, P) in [0, 1]."""

        def draw() -> Iterator[Tensor]:
            while True:
                chosen = generator.choice(len(self.album), self.config.batch, p=self.weights)
                patches = [self._patch(self.album[index], generator) for index in chosen]
                yield pictures(patches, self.device)

        yield from prefetched(draw())

    def _patch(self, portrait: Portrait, generator: np.random.Generator) -> np.ndarray:
        """A patch around a random point of the face, mirrored or not."""
        image, side = portrait.image(), self.config.patch
        center = portrait.points[generator.integers(468), :2] + generator.normal(0, side / 4, 2)
        left, top = np.clip(center - side / 2, 0, len(image) - side).astype(int)
        patch = image[top : top + side, left : left + side]
        return patch[:, ::-1] if generator.random() < 0.5 else patch

    def training_step(self, batch: Tensor, optimizer_index: int, step: int) -> dict[str, Tensor]:
        """Autoencoder (0) or discriminator (1)."""
        adversarial = step >= self.config.adversarial_start
        if optimizer_index == 1:
            return self._judge(batch, adversarial and step % 2 == 0)
        config, everywhere = self.config, torch.ones_like(batch[:, :1])
        mean, log_variance = self.autoencoder.distribution(batch)
        drawn = self.autoencoder.restore(self._inexact(mean, log_variance))
        out = {
            "l1": weighted_l1(drawn, batch, everywhere),
            "gradient": gradient_loss(drawn, batch, everywhere),
            "divergence": divergence(mean, log_variance),
        }
        loss = out["l1"] + config.gradient * out["gradient"] + config.divergence * out["divergence"]
        if adversarial:
            score, seen = self._scores(drawn)
            with torch.no_grad():
                _, real = self._scores(batch)
            out |= {
                "adversarial": hinge_generator(score, torch.ones_like(score)),
                "matching": feature_matching(seen, real),
            }
            loss = loss + config.adversarial * out["adversarial"] + config.matching * out["matching"]
        return {"loss": loss} | {name: value.detach() for name, value in out.items()}

    def _inexact(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """Unscaled latents (B, 4, h, w): drawn from their distribution, or with noise for a decoder alone."""
        if not self.config.start:
            return mean + (log_variance / 2).exp() * torch.randn_like(mean)
        share = torch.rand(len(mean), 1, 1, 1, device=mean.device)
        spread = self.config.noise * self.autoencoder.scale * share
        return mean + spread * torch.randn_like(mean)

    def _scores(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        no_maps = image.new_zeros(len(image), 0, image.shape[2] // 2, image.shape[3] // 2)
        found: tuple[Tensor, list[Tensor]] = self.discriminator(image, no_maps)
        return found

    def _judge(self, batch: Tensor, wanted: bool) -> dict[str, Tensor]:
        if not wanted:  # keeps the graph alive without training anything
            return {"loss": self.discriminator.head.get_parameter("bias").sum() * 0.0}
        with torch.no_grad():
            fake = self.autoencoder.restore(self._inexact(*self.autoencoder.distribution(batch)))
        real_score, _ = self._scores(batch)
        fake_score, _ = self._scores(fake)
        return {"loss": hinge_discriminator(real_score, fake_score, torch.ones_like(real_score))}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """PSNR of held-out portraits, sharpness relative to the real, and the spread of latents."""
        psnr, ratios, spread = [], [], []
        for portrait in self.held_out:
            real = pictures([portrait.image()], self.device)
            mean, _ = self.autoencoder.distribution(real)
            drawn = self.autoencoder.restore(mean).clamp(0, 1)
            psnr.append(float(-10 * torch.log10(F.mse_loss(drawn, real) + 1e-8)))
            ratios.append(detail(drawn) / max(detail(real), 1e-4))
            spread.append(float(mean.std()))
        sharpness = float(np.median(ratios))
        return {
            "val_quality": float(np.mean(psnr)) - 4 * abs(np.log(sharpness)),
            "val_psnr": float(np.mean(psnr)),
            "val_sharpness": sharpness,
            "val_spread": float(np.mean(spread)),
        }

    @torch.no_grad()
    def samples(self) -> np.ndarray:
        """Held-out portraits above their reconstructions."""
        real = pictures([portrait.image() for portrait in self.held_out[:8]], self.device)
        drawn = self.autoencoder.restore(self.autoencoder.distribution(real)[0]).clamp(0, 1)
        rows = [torch.cat(list(half), 2) for half in (real, drawn)]
        return (torch.cat(rows, 1).permute(1, 2, 0).cpu().numpy() * 255).astype(np.uint8)

    @torch.no_grad()
    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Measure mean and scale of the latents, and write the model as the hub reads it."""
        if not self.config.start:
            chosen = self.album[:: max(1, len(self.album) // 400)]
            found = [self.autoencoder.distribution(pictures([p.image()], self.device))[0] for p in chosen]
            latents = torch.cat(found)
            self.autoencoder.mean.copy_(latents.mean((0, 2, 3), keepdim=True))
            self.autoencoder.scale.copy_(latents.std((0, 2, 3), keepdim=True))
        sizes = asdict(self.autoencoder.config)
        config = {"class": "FaceAutoencoder", "model": sizes, "metrics": metrics}
        save_pretrained(directory, config, self.autoencoder.state_dict(), card=None)
