"""Trains MVControlNet, as either stage, over the frozen face LDM."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from talkface.data.faces import PIXELS
from talkface.data.prepare import Manifest
from talkface.diffusion.album import latents_mark, weights_mark
from talkface.diffusion.base import COMPACT, Base
from talkface.face.draw import draw_mesh
from talkface.face.model import FaceModel
from talkface.prefetch import prefetched
from talkface.systems.tccp.config import FACE, MVControlNetConfig
from talkface.systems.tccp.losses import velocity_error
from talkface.systems.tccp.model import MVControlNet, Signal
from talkface.systems.tccp.scenes import Scenes
from talkface.systems.thpad.refiner import Refiner
from talkface.training import Task

_TIMES = (0.2, 0.5, 0.8)  # at which it is validated


@dataclass(frozen=True, kw_only=True)
class VideoTrainConfig:
    """Settings of one stage's training.

    Attributes:
        model: what the stage is conditioned on.
        goal: "face", or "landmarks" for pictures of them.
        base: name or directory of the frozen LDM.
        face_model: name or directory of the 3DMM.
        refiner: name or directory of the refiner of TH-PAD's generator, which moves the references.
        batch: windows.
        windows: of each clip.
        first: share of windows whose first frame is given.
        single: share of batches of first frames alone.
        no_reference: share of windows that see no moved reference.
        no_context: hide all of the context, always: to see what it is worth.
        outside: how much latents outside the hole count.
        held_out: windows on which it is validated.
    """

    model: MVControlNetConfig = field(default_factory=lambda: FACE)
    goal: str = "face"
    base: str = COMPACT
    face_model: str = "face"
    refiner: str = "thpad-refiner"
    batch: int = 2
    windows: int = 4
    first: float = 0.6
    single: float = 0.2
    no_reference: float = 0.1
    no_context: bool = False
    outside: float = 0.25
    held_out: int = 12


class VideoTask(Task):
    """Flow matching of windows of latents."""

    Config = VideoTrainConfig
    metric, mode = "val_loss", "min"

    def __init__(self, config: VideoTrainConfig, data: Path, seed: int = 0, device: str = "cpu") -> None:
        self.config, self.device = config, torch.device(device)
        face = FaceModel.from_pretrained(config.face_model)
        self.warp = face.mesh_warp()
        self.base = Base.from_pretrained(config.base, self.device)
        torch.manual_seed(seed)
        self.net = MVControlNet(config.model, self.base.model).to(self.device)
        self.modules = {"net": self.net}
        refiner = Refiner.from_pretrained(config.refiner)
        mark = f"{latents_mark(self.base.autoencoder)}-{weights_mark(refiner)}"
        given = (face, self.base.autoencoder, refiner, config.windows, mark, seed, self.base.pixels)
        manifest = Manifest.load(data)
        self.scenes = Scenes.of(manifest, "train", *given)
        held_out = Scenes.of(manifest, "val", *given)
        spread = np.linspace(0, len(held_out) - 1, min(config.held_out, len(held_out)))
        self.fixed = self.rows(held_out, spread.round().astype(int))
        noise = np.random.default_rng(0).standard_normal((len(_TIMES), *self.fixed["target"].shape))
        self.noise = torch.from_numpy(noise.astype(np.float32)).to(self.device)

    def rows(self, scenes: Scenes, chosen: np.ndarray) -> dict[str, Tensor]:
        """A batch of windows."""
        named = {"target": scenes.drawn if self.config.goal == "landmarks" else scenes.target}
        names = ("context", "moved", "portrait", "hidden", "lips", "audio")
        named |= {name: getattr(scenes, name) for name in names}
        rows = {
            name: torch.from_numpy(array[chosen]).float().to(self.device) for name, array in named.items()
        }
        rows["hidden"] = rows["hidden"][:, :, None]
        if self.config.model.drawing:
            half = self.base.pixels // 2
            drawn = [
                [draw_mesh(self.warp, mesh, PIXELS, half) for mesh in window]
                for window in scenes.points[chosen]
            ]
            rows["drawing"] = torch.from_numpy(np.array(drawn)).to(self.device)
        return rows

    def batches(self, generator: np.random.Generator) -> Iterator[dict[str, Tensor]]:
        """Endless batches as :meth:`rows` gives them; some of first frames alone."""

        def draw() -> Iterator[dict[str, Tensor]]:
            while True:
                alone = generator.random() < self.config.single
                count = self.config.batch * (self.scenes.target.shape[1] if alone else 1)
                rows = self.rows(self.scenes, generator.choice(len(self.scenes), count, p=self.scenes.weight))
                if alone:
                    rows = {name: part if name == "portrait" else part[:, :1] for name, part in rows.items()}
                yield rows

        yield from prefetched(draw())

    def training_step(self, batch: dict[str, Tensor], optimizer_index: int, step: int) -> dict[str, Tensor]:
        """Squared error of the velocity; some first frames are known, some references hidden."""
        count, frames = batch["target"].shape[:2]
        given = torch.zeros(count, frames, device=self.device)
        if frames > 1:
            given[:, 0] = (torch.rand(count, device=self.device) < self.config.first).float()
        shown = torch.rand(count, device=self.device) >= self.config.no_reference
        time = torch.randn(count, device=self.device).sigmoid()
        error = self._error(batch, given, shown.float(), time, torch.randn_like(batch["target"]))
        return {"loss": error.mean()}

    def _error(
        self, batch: dict[str, Tensor], given: Tensor, shown: Tensor, time: Tensor, noise: Tensor
    ) -> Tensor:
        """Error of each window (B,).

        Args:
            batch: windows.
            given: (B, T) 1 for frames that are known.
            shown: (B,) 1 for windows whose reference is shown.
            time: (B,) of the noise.
            noise: like the target.
        """
        target, part = batch["target"], time[:, None, None, None, None]
        signal = signal_of(batch, given, shown)
        if self.config.no_context:
            signal = signal.without_context()
        tokens = self.net.tell(
            batch["portrait"][:, None],
            audio=batch["audio"] if self.config.model.audio else None,
            lips=batch["lips"] if self.config.model.lips else None,
        )
        velocity = self.net((1 - part) * target + part * noise, time, tokens, signal)
        weight = self.config.outside + (1 - self.config.outside) * batch["hidden"]
        return velocity_error(velocity, noise - target, weight, given)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The error on held-out people's windows, given the first frame and not."""
        count, frames = self.fixed["target"].shape[:2]
        shown = torch.ones(count, device=self.device)
        found: dict[str, list[float]] = {"val_loss": [], "val_loss_alone": []}
        for time, noise in zip(_TIMES, self.noise, strict=True):
            now = torch.full((count,), time, device=self.device)
            for name, first in (("val_loss", 1.0), ("val_loss_alone", 0.0)):
                given = torch.zeros(count, frames, device=self.device)
                given[:, 0] = first
                found[name].append(float(self._error(self.fixed, given, shown, now, noise).mean()))
        return {name: float(np.mean(values)) for name, values in found.items()}

    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Write the network as the hub reads it."""
        from talkface.hub import save_pretrained

        config = {"class": "MVControlNet", "model": asdict(self.config.model), "metrics": metrics}
        config["built_on"] = {"base": weights_mark(self.base.model)}
        save_pretrained(directory, config, self.net.state_dict(), card=None)


def signal_of(batch: dict[str, Tensor], given: Tensor, shown: Tensor) -> Signal:
    """The video-type signal of a batch as :meth:`VideoTask.rows` gives it."""
    stage2 = "drawing" in batch
    signal = Signal.of(
        batch["context"],
        batch["hidden"],
        batch.get("drawing"),
        batch["moved"] if stage2 else None,
        batch["target"],
        given,
    )
    planes = signal.planes.clone()
    planes[:, :, 5:10] *= shown[:, None, None, None, None]
    return replace(signal, planes=planes)
