"""Trains MVControlNet, as either stage, over the frozen face LDM.

In stage 2 the flow leads to the real frames not from noise, but from an initial estimate with a little noise
on it: few steps suffice, and the network learns what such estimates lack (Albergo et al., "Stochastic
interpolants with data-dependent couplings", 2024).
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from talkface.diffusion.base import Base
from talkface.diffusion.sampling import Velocity, sample
from talkface.face.draw import draw_mesh
from talkface.face.model import FaceModel, estimate_pose
from talkface.face.portrait import PORTRAIT_PIXELS
from talkface.hub import save_pretrained
from talkface.nn.marks import weights_mark
from talkface.rendering.refiner import Refiner
from talkface.systems.tccp.config import FACE, MVControlNetConfig
from talkface.systems.tccp.losses import velocity_error
from talkface.systems.tccp.model import MVControlNet, VideoSignal
from talkface.systems.tccp.reading import LandmarkReader, landmark_error
from talkface.training import Task
from talkface.training.batches import to_device
from talkface.training.datasets.scenes import Scenes, SceneSettings, of_both_splits

_VALIDATION_STEPS = 2  # of the sampler


@dataclass(frozen=True, kw_only=True)
class VideoTrainConfig(SceneSettings):
    """Settings of one stage's training, beside those of scenes.

    Attributes:
        batch: windows.
        held_out: windows on which it is validated.
        model: what the stage is conditioned on.
        goal: "face", or "landmarks" for pictures of them.
        reader: directory of a reader of landmark pictures, to measure those that are drawn.
        no_context: hide all of the context, always, for an ablation.
        first: share of windows whose first frame is given.
        single: share of batches of first frames alone.
        no_reference: share of windows that are shown no moved reference.
        outside: weight of latents outside the hole; those inside have 1.
    """

    batch: int = 2
    held_out: int = 12
    model: MVControlNetConfig = field(default_factory=lambda: FACE)
    goal: str = "face"
    reader: str = ""
    no_context: bool = False
    first: float = 0.6
    single: float = 0.2
    no_reference: float = 0.1
    outside: float = 0.25


class VideoTask(Task[VideoTrainConfig]):
    """Flow matching of windows of latents, to the face or to drawings of its landmarks.

    First frames are known at times, and references hidden, so that the network works with and without either.
    """

    metric, mode = "val_error", "min"

    def prepare(self, data: Path, seed: int) -> None:
        """Load windows, and build the network over its base."""
        config = self.config
        face = FaceModel.from_pretrained(config.face_model)
        self.warp, self.mean = face.mesh_warp(), face.mean
        self.base = Base.from_pretrained(config.base, self.device)
        torch.manual_seed(seed)
        self.net = MVControlNet(config.model, self.base.model).to(self.device)
        self.modules = {"net": self.net}
        refiner = Refiner.from_pretrained(config.refiner)
        self.scenes, held_out = of_both_splits(
            data, self.base, face, refiner, config.windows, seed, bool(config.model.audio)
        )
        self.reader = LandmarkReader.from_pretrained(config.reader).to(self.device) if config.reader else None
        spread = np.linspace(0, len(held_out) - 1, min(config.held_out, len(held_out)))
        chosen = spread.round().astype(int)
        self.fixed = to_device(self.rows(held_out, chosen), self.device)
        self.fixed_points = held_out.points[chosen]
        noise = np.random.default_rng(0).standard_normal(self.fixed["target"][:, :1].shape)
        self.noise = torch.from_numpy(noise.astype(np.float32)).to(self.device)

    def rows(self, scenes: Scenes, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """A batch of windows."""
        named = {"target": scenes.drawn if self.config.goal == "landmarks" else scenes.target}
        names = ("context", "moved", "portrait", "hidden", "lips", "audio")
        named |= {name: getattr(scenes, name) for name in names}
        rows = {name: array[chosen].astype(np.float32) for name, array in named.items()}
        rows["hidden"] = rows["hidden"][:, :, None]
        if self.config.model.drawing:
            half = self.base.pixels // 2
            drawn = [
                [draw_mesh(self.warp, mesh, PORTRAIT_PIXELS, half) for mesh in window]
                for window in scenes.points[chosen]
            ]
            rows["drawing"] = np.array(drawn)
        return rows

    def draw(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        """A batch as :meth:`rows` gives it; some are of first frames alone."""
        alone = generator.random() < self.config.single
        count = self.config.batch * (self.scenes.target.shape[1] if alone else 1)
        rows = self.rows(self.scenes, generator.choice(len(self.scenes), count, p=self.scenes.weight))
        if alone:
            rows = {name: part if name == "portrait" else part[:, :1] for name, part in rows.items()}
        return rows

    def training_step(self, batch: dict[str, Tensor], optimizer_index: int, step: int) -> dict[str, Tensor]:
        """Squared error of the velocity; some first frames are known, some references hidden."""
        count, frames = batch["target"].shape[:2]
        given = torch.zeros(count, frames, device=self.device)
        if frames > 1:
            given[:, 0] = (torch.rand(count, device=self.device) < self.config.first).float()
        shown = (torch.rand(count, device=self.device) >= self.config.no_reference).float()
        start, noise_level = self._start(batch, shown, torch.randn_like(batch["target"][:, :1]))
        # From an estimate, times near its noise level are drawn most often; from noise, those half-way.
        late, usual = torch.rand_like(shown).sqrt(), torch.randn_like(shown).sigmoid()
        share = torch.where(noise_level < 1, late, usual)
        target, part = batch["target"], _each(share)
        noisy, wanted = target + part * (start - target), (start - target) / _each(noise_level)
        velocity = self._velocity(batch, given, shown)(noisy, share * noise_level)
        weight = self.config.outside + (1 - self.config.outside) * batch["hidden"]
        return {"loss": velocity_error(velocity, wanted, weight, given).mean()}

    def _start(self, batch: dict[str, Tensor], shown: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Where windows (B, T, 4, h, w) begin, and their initial noise levels (B,).

        They begin with noise, or with an estimate with noise on it; all frames of a window share its noise
        (B, 1, 4, h, w).
        """
        noise_level = torch.ones_like(shown)
        if "drawing" in batch:
            noise_level = torch.where(shown > 0, self.config.model.begin, noise_level)
        return (1 - _each(noise_level)) * batch["moved"] + _each(noise_level) * noise, noise_level

    def _velocity(self, batch: dict[str, Tensor], given: Tensor, shown: Tensor) -> Velocity:
        """The network's velocity of windows.

        Args:
            batch: windows.
            given: (B, T) 1 for frames that are known.
            shown: (B,) 1 for windows whose reference is shown.
        """
        signal = signal_of(batch, given, shown)
        if self.config.no_context:
            signal = signal.without_context()
        tokens = self.net.condition_tokens(
            batch["portrait"][:, None],
            audio=batch["audio"] if self.config.model.audio else None,
            lips=batch["lips"] if self.config.model.lips else None,
        )
        return lambda noisy, time: self.net(noisy, time, tokens, signal)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Squared error in the holes of held-out people's windows, with and without a known first frame.

        Beside it that of the estimates with which they begin.
        """
        batch, found = self.fixed, {"val_guess": float(self._away(self.fixed["moved"]))}
        count, frames = batch["target"].shape[:2]
        shown = torch.ones(count, device=self.device)
        start, noise_level = self._start(batch, shown, self.noise)
        for name, first in (("val_error", 1.0), ("val_error_alone", 0.0)):
            given = torch.zeros(count, frames, device=self.device)
            given[:, 0] = first
            velocity = self._velocity(batch, given, shown)
            drawn = sample(velocity, start, _VALIDATION_STEPS, float(noise_level[0]))
            found[name] = float(self._away(torch.where(_each(given) > 0, batch["target"], drawn)))
            if self.reader and not first:
                found |= self._read(drawn)
        return found

    def _read(self, drawn: Tensor) -> dict[str, float]:
        """Errors of the landmarks that drawings (B, T, 4, h, w) show."""
        assert self.reader is not None
        real = torch.from_numpy(self.fixed_points).flatten(0, 1).to(self.device)
        made = self.reader(drawn.flatten(0, 1)) * PORTRAIT_PIXELS
        rotations = [estimate_pose(mesh.cpu().numpy(), self.mean).rotation for mesh in (made, real)]
        turned = np.einsum("tij,tij->t", *rotations)
        angles = np.degrees(np.arccos(np.clip((turned - 1) / 2, -1, 1)))
        error = landmark_error(made, real).mean()
        return {"val_landmark_error": float(error), "val_pose_error": float(angles.mean())}

    def _away(self, latents: Tensor) -> Tensor:
        """Mean squared error of latents (B, T, 4, h, w) in the holes; first frames do not count."""
        error = (latents - self.fixed["target"]).square().mean(2, keepdim=True)[:, 1:]
        hidden = self.fixed["hidden"][:, 1:]
        mean: Tensor = (error * hidden).sum() / hidden.sum()
        return mean

    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Write the network as the hub reads it."""
        config = {"class": "MVControlNet", "model": asdict(self.config.model), "metrics": metrics}
        config["built_on"] = {"base": weights_mark(self.base.model)}
        save_pretrained(directory, config, self.net.state_dict(), card=None)


def signal_of(batch: dict[str, Tensor], given: Tensor, shown: Tensor) -> VideoSignal:
    """The video-type signal of a batch as :meth:`VideoTask.rows` gives it.

    Args:
        batch: windows.
        given: (B, T) 1 for frames that are known.
        shown: (B,) 1 for windows whose reference is shown.
    """
    stage2 = "drawing" in batch
    signal = VideoSignal.of(
        batch["context"],
        batch["hidden"],
        batch.get("drawing"),
        batch["moved"] if stage2 else None,
        batch["target"],
        given,
    )
    return signal.with_reference_shown(shown)


def _each(values: Tensor) -> Tensor:
    """Values (B,) or (B, T) as they are multiplied with latents (B, T, 4, h, w)."""
    return values.reshape(*values.shape, *[1] * (5 - values.ndim))
