"""Trains the face LDM's U-Net, text and mesh encoders by flow matching over the frozen autoencoder."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from talkface.data.attributes import portrait_attributes
from talkface.data.faces import CLEAR, Portrait, held_out, portraits, weights
from talkface.data.manifest import Manifest
from talkface.diffusion.autoencoder import FaceAutoencoder
from talkface.diffusion.captions import Attributes, caption, tokenize
from talkface.diffusion.config import DiffusionConfig
from talkface.diffusion.model import FaceDiffusion
from talkface.diffusion.sampling import SHIFT, guided, own_guidance, own_steps, sample, spectrum
from talkface.face.draw import draw_mesh
from talkface.face.model import FaceModel, estimate_pose
from talkface.face.portrait import PIXELS
from talkface.hub import save_pretrained
from talkface.training import Task
from talkface.training.datasets.latents import LatentAlbum
from talkface.training.draws import to_device

_TIMES = (0.15, 0.4, 0.65, 0.9)  # at which it is validated
PROMPTS = ("", "woman", "man", "old man, beard, grey hair", "young woman, blond hair", "man, glasses")


@dataclass(frozen=True, kw_only=True)
class DiffusionTrainConfig:
    """Settings of the face LDM's training.

    Attributes:
        model: sizes.
        autoencoder: name or directory of the frozen autoencoder.
        face_model: name or directory of the 3DMM.
        variants: of each portrait that are encoded, the first as it is.
        batch: latents a step.
        no_caption, no_mesh: share of captions and meshes that are hidden, for guidance.
        keep: share of a caption's phrases that are said.
        turned: yaw in radians from which portraits are left out.
        sharpness: mean Laplacian below which portraits are left out.
        face: how much more the face counts than what is around it.
        held_out: portraits on which it is validated, of the split "dev" where there is one, else of "val".
    """

    model: DiffusionConfig = field(default_factory=DiffusionConfig)
    autoencoder: str = "face-autoencoder"
    face_model: str = "face"
    variants: int = 6
    batch: int = 16
    no_caption: float = 0.12
    no_mesh: float = 0.05
    keep: float = 0.75
    turned: float = 0.9
    sharpness: float = CLEAR
    face: float = 2.0
    held_out: int = 64


class DiffusionTask(Task):
    """Flow matching with times that are seldom near the ends (logit-normal; Esser et al., 2024)."""

    Config = DiffusionTrainConfig
    metric, mode = "val_loss", "min"

    def __init__(self, config: DiffusionTrainConfig, data: Path, seed: int = 0, device: str = "cpu") -> None:
        self.config, self.device = config, torch.device(device)
        manifest = Manifest.load(data)
        album = portraits(manifest)
        known = portrait_attributes(manifest, album)
        self.autoencoder = FaceAutoencoder.from_pretrained(config.autoencoder).to(self.device)
        face = FaceModel.from_pretrained(config.face_model)
        self.warp = face.mesh_warp()
        usable = clear_ones(album, face, config.sharpness, config.turned)
        train = [p for p in usable if p.split == "train"]
        self.attributes = [known[p.key] for p in train]
        self.weights = weights(train)
        self.album = LatentAlbum.of(train, self.autoencoder, config.variants, manifest.directory, seed)
        torch.manual_seed(seed)
        model = FaceDiffusion(config.model)
        self.model = model.to(self.device)
        self.modules = {"diffusion": self.model}
        chosen = held_out(usable, config.held_out, "dev") or held_out(usable, config.held_out)
        self._hold_out(chosen, known, manifest.directory)

    def _hold_out(self, chosen: list[Portrait], known: dict[str, Attributes], folder: Path) -> None:
        """What it is validated on, always under the same noise."""
        kept = LatentAlbum.of(chosen, self.autoencoder, 1, folder)
        generator = np.random.default_rng(0)
        drawings = [draw_mesh(self.warp, points, PIXELS) for points in kept.points[:, 0]]
        ids = [tokenize(caption(known[portrait.key])).ids for portrait in chosen]
        rows = list(zip(kept.latents[:, 0], drawings, ids, strict=True))
        self.fixed = to_device(_stacked(rows), self.device)
        noise = generator.standard_normal((len(_TIMES), *self.fixed["latents"].shape)).astype(np.float32)
        self.noise = torch.from_numpy(noise).to(self.device)

    def draw(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        """Latents (B, 4, h, w), drawing (B, 6, H/2, W/2), ids (B, LENGTH)."""
        chosen = generator.choice(len(self.weights), self.config.batch, p=self.weights)
        return _stacked([self._row(int(index), generator) for index in chosen])

    def _row(self, index: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        variant = int(generator.integers(self.config.variants))
        points = self.album.points[index, variant]
        drawing = draw_mesh(self.warp, points, PIXELS)
        if generator.random() < self.config.no_mesh:
            drawing = np.zeros_like(drawing)
        said = caption(self.attributes[index], generator, self.config.keep)
        ids = tokenize("" if generator.random() < self.config.no_caption else said).ids
        return self.album.latents[index, variant], drawing, ids

    def training_step(self, batch: dict[str, Tensor], optimizer_index: int, step: int) -> dict[str, Tensor]:
        """Squared error of the velocity."""
        error = self._error(batch, self._times(len(batch["latents"])), torch.randn_like(batch["latents"]))
        return self._weighted(error, batch["drawing"])

    def _times(self, count: int) -> Tensor:
        """Random times (count,)."""
        return torch.randn(count, device=self.device).sigmoid()

    def _weighted(self, error: Tensor, drawing: Tensor) -> dict[str, Tensor]:
        """The mean of errors (B, 4, h, w) in which faces count more, and the plain one."""
        weight = 1 + self.config.face * self._faces(drawing, error.shape[2:])
        return {
            "loss": (error * weight).sum() / weight.sum() / error.shape[1],
            "plain": error.mean().detach(),
        }

    @staticmethod
    def _faces(drawing: Tensor, size: torch.Size) -> Tensor:
        """Where meshes are, (B, 1, h, w): their normals are of unit length, beside them they are zero."""
        return F.interpolate(drawing[:, :3].square().sum(1, keepdim=True), size, mode="area")

    def _error(self, batch: dict[str, Tensor], time: Tensor, noise: Tensor) -> Tensor:
        """Squared errors (B, 4, h, w)."""
        velocity = self.model(noised(batch["latents"], noise, time), time, *told(self.model, batch))
        return F.mse_loss(velocity, noise - batch["latents"], reduction="none")

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Squared error on held-out people, under fixed noise, in all and by time."""
        found = {}
        for time, noise in zip(_TIMES, self.noise, strict=True):
            rows = []
            for batch, some in parts(self.fixed, noise, self.config.batch):
                now = torch.full((len(some),), time, device=self.device)
                rows.append(self._error(batch, now, some).mean((1, 2, 3)))
            found[f"val_loss_{time:g}"] = float(torch.cat(rows).mean())
        return {"val_loss": float(np.mean(list(found.values()))), **found}

    @torch.no_grad()
    def samples(self) -> np.ndarray:
        """Imagined faces: rows of prompts, columns of meshes of held-out people, drawn as portraits are."""
        columns = min(8, len(self.noise[0]))
        rows = []
        for number, prompt in enumerate(PROMPTS):
            ids = torch.from_numpy(tokenize(prompt).ids)[None].expand(columns, -1).to(self.device)
            batch = {"ids": ids, "drawing": self.fixed["drawing"][:columns]}
            noise = self.noise[number % len(self.noise), :columns]
            latents = draw_latents(self.model, batch, noise, self.config.batch)
            rows.append(torch.cat(list(self.autoencoder.decode(latents)), 2))
        return (torch.cat(rows, 1).permute(1, 2, 0).cpu().numpy() * 255).astype(np.uint8)

    def spectrum(self, count: int = 48) -> tuple[float, ...]:
        """Amplitude of samples over that of the training latents whose meshes and captions they have."""
        chosen = np.random.default_rng(0).choice(len(self.weights), count, p=self.weights)
        rows = [
            (
                self.album.latents[k, 0],
                draw_mesh(self.warp, self.album.points[k, 0], PIXELS),
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
        """Write the model as the hub reads it, with what its samples lack."""
        sizes = asdict(replace(self.model.config, spectrum=self.spectrum()))
        config = {"class": "FaceDiffusion", "model": sizes, "metrics": metrics}
        save_pretrained(directory, config, self.model.state_dict(), card=None)


def told(model: FaceDiffusion, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    """What a model reads and sees of a batch: meaning (B, LENGTH, C) and mesh (B, M, h, w)."""
    return model.read(batch["ids"]), model.see(batch["drawing"]) if model.mesh else None


def noised(clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """Latents (B, 4, h, w) on their way to noise, at times (B,)."""
    part = time[:, None, None, None]
    return (1 - part) * clean + part * noise


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
    """Latents (N, 4, h, w) for the captions and meshes of a batch, as portraits are drawn.

    Args:
        model: that draws.
        batch: "ids" (N, LENGTH) and "drawing" (N, 6, H/2, W/2).
        noise: (N, 4, h, w) to begin with.
        size: how many are drawn at once.
        steps: of the sampler; None for the model's own.
        guidance: how much captions count; None for as much as the model needs.
    """
    made = []
    for some, begin in parts(batch, noise, size):
        velocity = guided(model, *told(model, some), own_guidance(model) if guidance is None else guidance)
        made.append(sample(velocity, begin, steps or own_steps(model), shift=SHIFT))
    return torch.cat(made)


def _stacked(rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    latents, drawing, ids = (np.stack(column) for column in zip(*rows, strict=True))
    return {"latents": latents.astype(np.float32), "drawing": drawing, "ids": ids}


def clear_ones(
    album: list[Portrait], face: FaceModel, sharpness: float = CLEAR, turned: float = 0.9
) -> list[Portrait]:
    """Portraits of at least a mean Laplacian, and turned by a yaw in radians at most."""
    return [p for p in album if p.sharpness >= sharpness and _yaw(p, face) <= turned]


def _yaw(portrait: Portrait, face: FaceModel) -> float:
    """How far a portrait is turned, radians."""
    from talkface.face.people.cast import head_angles

    return float(np.radians(abs(head_angles(estimate_pose(portrait.points[None], face.mean).rotation)[0, 0])))
