"""Trains the face LDM's U-Net, text and mesh encoders by flow matching over the frozen autoencoder."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from talkface.data.attributes import portrait_attributes
from talkface.data.faces import Portrait, held_out, portraits, weights
from talkface.diffusion.autoencoder import FaceAutoencoder
from talkface.diffusion.captions import Attributes, caption, tokenize
from talkface.diffusion.config import DiffusionConfig
from talkface.diffusion.model import FaceDiffusion
from talkface.diffusion.sampling import (
    TIMESTEP_SHIFT,
    default_guidance,
    default_steps,
    guided,
    noised,
    sample,
    spectrum,
)
from talkface.face.draw import draw_mesh
from talkface.face.model import FaceModel
from talkface.face.portrait import PORTRAIT_PIXELS
from talkface.hub import save_pretrained
from talkface.training import Task
from talkface.training.batches import to_device
from talkface.training.datasets.latents import PortraitLatents, PortraitSettings, usable_portraits

_VALIDATION_TIMES = (0.15, 0.4, 0.65, 0.9)  # noise levels
_SAMPLE_PROMPTS = ("", "woman", "man", "old man, beard, grey hair", "young woman, blond hair", "man, glasses")


@dataclass(frozen=True, kw_only=True)
class DiffusionTrainConfig(PortraitSettings):
    """Settings of the face LDM's training, beside those of portraits.

    Attributes:
        variants: of each portrait that are encoded, the first as it is.
        batch: latents a step.
        no_caption, no_mesh: share of captions and meshes that are hidden, for classifier-free guidance.
        model: sizes.
        autoencoder: name or directory of the frozen autoencoder.
        keep: share of a caption's phrases that are said.
        face: how much more the face counts than what is around it.
        held_out: portraits on which it is validated; of the split "dev" where there is one, else of "val".
    """

    variants: int = 6
    batch: int = 16
    no_caption: float = 0.12
    no_mesh: float = 0.05
    model: DiffusionConfig = field(default_factory=DiffusionConfig)
    autoencoder: str = "face-autoencoder"
    keep: float = 0.75
    face: float = 2.0
    held_out: int = 64


class DiffusionTask(Task[DiffusionTrainConfig]):
    """Flow matching with logit-normal times (Esser et al., 2024).

    Captions and meshes are hidden at times, so that each can be missing; faces count more than what is around
    them.
    """

    metric, mode = "val_loss", "min"

    def prepare(self, data: Path, seed: int) -> None:
        """Load portraits, and build the LDM over its autoencoder."""
        config = self.config
        manifest = self.manifest
        album = portraits(manifest)
        known = portrait_attributes(manifest, album)
        self.autoencoder = FaceAutoencoder.from_pretrained(config.autoencoder).to(self.device)
        face = FaceModel.from_pretrained(config.face_model)
        self.warp = face.mesh_warp()
        usable = usable_portraits(album, face, config.sharpness, config.turned)
        train = [p for p in usable if p.split == "train"]
        self.attributes = [known[p.key] for p in train]
        self.weights = weights(train)
        folder = manifest.directory
        self.latents = PortraitLatents.of(train, self.autoencoder, config.variants, folder, seed)
        torch.manual_seed(seed)
        model = FaceDiffusion(config.model)
        self.model = model.to(self.device)
        self.modules = {"diffusion": self.model}
        chosen = held_out(usable, config.held_out, "dev") or held_out(usable, config.held_out)
        self._hold_out(chosen, known, folder)

    def _hold_out(self, chosen: list[Portrait], known: dict[str, Attributes], folder: Path) -> None:
        """Keep what it is validated on, and its noise, which is always the same."""
        kept = PortraitLatents.of(chosen, self.autoencoder, 1, folder)
        generator = np.random.default_rng(0)
        drawings = [draw_mesh(self.warp, points, PORTRAIT_PIXELS) for points in kept.points[:, 0]]
        ids = [tokenize(caption(known[portrait.key])).ids for portrait in chosen]
        rows = list(zip(kept.latents[:, 0], drawings, ids, strict=True))
        self.fixed = to_device(_stacked(rows), self.device)
        noise = generator.standard_normal((len(_VALIDATION_TIMES), *self.fixed["latents"].shape))
        self.noise = torch.from_numpy(noise.astype(np.float32)).to(self.device)

    def draw(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        """Latents (B, 4, h, w), drawing (B, 6, H/2, W/2), ids (B, CAPTION_LENGTH)."""
        chosen = generator.choice(len(self.weights), self.config.batch, p=self.weights)
        return _stacked([self._row(int(index), generator) for index in chosen])

    def _row(self, index: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        variant = int(generator.integers(self.config.variants))
        points = self.latents.points[index, variant]
        drawing = draw_mesh(self.warp, points, PORTRAIT_PIXELS)
        if generator.random() < self.config.no_mesh:
            drawing = np.zeros_like(drawing)
        said = caption(self.attributes[index], generator, self.config.keep)
        ids = tokenize("" if generator.random() < self.config.no_caption else said).ids
        return self.latents.latents[index, variant], drawing, ids

    def training_step(self, batch: dict[str, Tensor], optimizer_index: int, step: int) -> dict[str, Tensor]:
        """Squared error of the velocity."""
        error = self._error(batch, self._times(len(batch["latents"])), torch.randn_like(batch["latents"]))
        return self._weighted(error, batch["drawing"])

    def _times(self, count: int) -> Tensor:
        """Random times (count,)."""
        return torch.randn(count, device=self.device).sigmoid()

    def _weighted(self, error: Tensor, drawing: Tensor) -> dict[str, Tensor]:
        """Means of errors (B, 4, h, w): "loss", in which faces count more, and "plain"."""
        weight = 1 + self.config.face * self._faces(drawing, error.shape[2:])
        return {
            "loss": (error * weight).sum() / weight.sum() / error.shape[1],
            "plain": error.mean().detach(),
        }

    @staticmethod
    def _faces(drawing: Tensor, size: torch.Size) -> Tensor:
        """Where the mesh is drawn, (B, 1, h, w) in [0, 1]."""
        # The first channels are its normals, of unit length there and zero elsewhere.
        return F.interpolate(drawing[:, :3].square().sum(1, keepdim=True), size, mode="area")

    def _error(self, batch: dict[str, Tensor], time: Tensor, noise: Tensor) -> Tensor:
        """Squared errors (B, 4, h, w)."""
        velocity = self.model(noised(batch["latents"], noise, time), time, *conditions(self.model, batch))
        return F.mse_loss(velocity, noise - batch["latents"], reduction="none")

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Squared error on held-out people, under fixed noise: its mean, and at each noise level."""
        found = {}
        for time, noise in zip(_VALIDATION_TIMES, self.noise, strict=True):
            rows = []
            for batch, some in parts(self.fixed, noise, self.config.batch):
                now = torch.full((len(some),), time, device=self.device)
                rows.append(self._error(batch, now, some).mean((1, 2, 3)))
            found[f"val_loss_{time:g}"] = float(torch.cat(rows).mean())
        return {"val_loss": float(np.mean(list(found.values()))), **found}

    @torch.no_grad()
    def samples(self) -> np.ndarray:
        """Samples: a row for each prompt, a column for each mesh of some held-out people."""
        columns = min(8, len(self.noise[0]))
        rows = []
        for number, prompt in enumerate(_SAMPLE_PROMPTS):
            ids = torch.from_numpy(tokenize(prompt).ids)[None].expand(columns, -1).to(self.device)
            batch = {"ids": ids, "drawing": self.fixed["drawing"][:columns]}
            noise = self.noise[number % len(self.noise), :columns]
            latents = draw_latents(self.model, batch, noise, self.config.batch)
            rows.append(torch.cat(list(self.autoencoder.decode(latents)), 2))
        return (torch.cat(rows, 1).permute(1, 2, 0).cpu().numpy() * 255).astype(np.uint8)

    def spectrum(self, count: int = 48) -> tuple[float, ...]:
        """Amplitude of samples over that of training latents with the same meshes and captions."""
        chosen = np.random.default_rng(0).choice(len(self.weights), count, p=self.weights)
        rows = [
            (
                self.latents.latents[k, 0],
                draw_mesh(self.warp, self.latents.points[k, 0], PORTRAIT_PIXELS),
                tokenize(caption(self.attributes[k])).ids,
            )
            for k in chosen
        ]
        batch = to_device(_stacked(rows), self.device)
        noise = torch.randn(batch["latents"].shape, generator=torch.Generator().manual_seed(0))
        made = draw_latents(self.model, batch, noise.to(self.device), self.config.batch)
        lacking = spectrum(made) / spectrum(batch["latents"])
        return tuple(round(float(part), 4) for part in lacking)

    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Write the model as the hub reads it, with the spectrum of its samples."""
        sizes = asdict(replace(self.model.config, spectrum=self.spectrum()))
        config = {"class": "FaceDiffusion", "model": sizes, "metrics": metrics}
        save_pretrained(directory, config, self.model.state_dict(), card=None)


def conditions(model: FaceDiffusion, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    """What a model is given of a batch: text embeddings (B, CAPTION_LENGTH, C) and mesh (B, M, h, w)."""
    return model.encode_text(batch["ids"]), model.encode_mesh(batch["drawing"]) if model.mesh else None


def parts(batch: dict[str, Tensor], noise: Tensor, size: int) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """A batch and its noise (N, 4, h, w) in parts of a size."""
    for start in range(0, len(noise), size):
        part = slice(start, start + size)
        yield {name: values[part] for name, values in batch.items()}, noise[part]


@torch.no_grad()
def draw_latents(
    model: FaceDiffusion,
    batch: dict[str, Tensor],
    noise: Tensor,
    size: int,
    steps: int | None = None,
    guidance: float | None = None,
) -> Tensor:
    """Latents (N, 4, h, w) for the captions and meshes of a batch, sampled as portraits are.

    Args:
        model: the LDM.
        batch: "ids" (N, CAPTION_LENGTH) and "drawing" (N, 6, H/2, W/2).
        noise: (N, 4, h, w) to begin with.
        size: how many are sampled at once.
        steps: of the sampler; None for the model's own.
        guidance: how much captions count; None for the model's own.
    """
    made = []
    scale = default_guidance(model) if guidance is None else guidance
    for some, some_noise in parts(batch, noise, size):
        velocity = guided(model, *conditions(model, some), scale)
        made.append(sample(velocity, some_noise, steps or default_steps(model), shift=TIMESTEP_SHIFT))
    return torch.cat(made)


def _stacked(rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    latents, drawing, ids = (np.stack(column) for column in zip(*rows, strict=True))
    return {"latents": latents.astype(np.float32), "drawing": drawing, "ids": ids}
