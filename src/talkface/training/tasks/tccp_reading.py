"""Trains the reader of landmark pictures on real landmarks, shifted and with noise."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from talkface.diffusion.base import Base
from talkface.face.model import FaceModel
from talkface.face.portrait import PORTRAIT_PIXELS
from talkface.hub import save_pretrained
from talkface.rendering.refiner import Refiner
from talkface.systems.tccp.reading import LandmarkReader, ReaderConfig, landmark_error
from talkface.training import Task
from talkface.training.datasets.scenes import Scenes, SceneSettings, of_both_splits

_MOST_SHIFT = 4  # latents by which drawings are shifted
_MOST_NOISE = 0.6  # standard deviation


@dataclass(frozen=True, kw_only=True)
class ReadingTrainConfig(SceneSettings):
    """Settings of the reader's training, beside those of scenes.

    Attributes:
        model: sizes.
        batch: drawings.
    """

    model: ReaderConfig = field(default_factory=ReaderConfig)
    batch: int = 128


class ReadingTask(Task[ReadingTrainConfig]):
    """Distance between the mesh that is read and the one that was drawn.

    The drawings are those of scenes, at random places and with noise.
    """

    metric, mode = "val_landmark_error", "min"

    def prepare(self, data: Path, seed: int) -> None:
        """Draw landmarks of prepared clips, and build the reader."""
        config = self.config
        face = FaceModel.from_pretrained(config.face_model)
        base = Base.from_pretrained(config.base, self.device)
        refiner = Refiner.from_pretrained(config.refiner)
        train, val = of_both_splits(data, base, face, refiner, config.windows, seed)
        self.train_rows, self.val_rows = _rows(train), _rows(val)
        torch.manual_seed(seed)
        self.net = LandmarkReader(config.model).to(self.device)
        with torch.no_grad():  # the untrained reader gives about the mean face
            self.net.outlet.bias.copy_(self.train_rows[1].mean(0).flatten())
            self.net.outlet.weight.mul_(0.1)
        self.modules = {"net": self.net}

    def batches(self, generator: np.random.Generator) -> Iterator[dict[str, Tensor]]:
        """Endless batches of drawings, shifted at random."""
        latents, points = self.train_rows
        side = latents.shape[-1]
        while True:
            chosen = torch.from_numpy(generator.integers(len(latents), size=self.config.batch))
            across, down = (int(generator.integers(-_MOST_SHIFT, _MOST_SHIFT + 1)) for _ in range(2))
            moved = torch.roll(latents[chosen], (down, across), (2, 3))
            place = points[chosen] + torch.tensor([across, down, 0.0]) / side
            yield {"latents": moved.to(self.device), "points": place.to(self.device)}

    def training_step(self, batch: dict[str, Tensor], optimizer_index: int, step: int) -> dict[str, Tensor]:
        """Mean distance of points, in sides of the picture."""
        latents = batch["latents"]
        spread = _MOST_NOISE * torch.rand(len(latents), 1, 1, 1, device=self.device)
        read = self.net(latents + spread * torch.randn_like(latents))
        return {"loss": (read - batch["points"]).norm(dim=-1).mean()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Landmark error on drawings of held-out people."""
        latents, points = (part.to(self.device) for part in self.val_rows)
        return {"val_landmark_error": float(landmark_error(self.net(latents), points).mean())}

    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Write the network as the hub reads it."""
        config = {"class": "LandmarkReader", "model": asdict(self.config.model), "metrics": metrics}
        save_pretrained(directory, config, self.net.state_dict(), card=None)


def _rows(scenes: Scenes) -> tuple[Tensor, Tensor]:
    """Drawings (N, 4, h, w) and their meshes (N, 478, 3) in sides of the picture."""
    latents = torch.from_numpy(np.concatenate(list(scenes.drawn)).astype(np.float32))
    return latents, torch.from_numpy(np.concatenate(list(scenes.points)) / PORTRAIT_PIXELS).float()
