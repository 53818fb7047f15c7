"""Trains MVControlNet, as either stage, over the frozen face LDM.

Where there is a first guess, the flow goes from it, made a little noisy, to the real frames, and not from
noise: few steps lead there, and what is learnt is what guesses lack (Albergo et al., "Stochastic
interpolants with data-dependent couplings", 2024).
"""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from talkface.diffusion.base import Base
from talkface.diffusion.sampling import Velocity, sample
from talkface.face.draw import draw_mesh
from talkface.face.model import FaceModel, estimate_pose
from talkface.face.portrait import PIXELS
from talkface.hub import COMPACT, save_pretrained
from talkface.nn.marks import weights_mark
from talkface.rendering.refiner import Refiner
from talkface.systems.tccp.config import FACE, MVControlNetConfig
from talkface.systems.tccp.losses import velocity_error
from talkface.systems.tccp.model import MVControlNet, Signal
from talkface.systems.tccp.reading import LandmarkReader, landmark_error
from talkface.training import Task
from talkface.training.datasets.scenes import Scenes, of_both_splits
from talkface.training.draws import to_device

_STEPS = 2  # with which it is validated


@dataclass(frozen=True, kw_only=True)
class VideoTrainConfig:
    """Settings of one stage's training.

    Attributes:
        model: what the stage is conditioned on.
        goal: "face", or "landmarks" for pictures of them.
        base: name or directory of the frozen LDM.
        face_model: name or directory of the 3DMM.
        refiner: name or directory of the refiner of TH-PAD's generator, which moves the references.
        reader: directory of a reader of landmark pictures, to tell how far those that are drawn are off.
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
    reader: str = ""
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
    metric, mode = "val_error", "min"

    def __init__(self, config: VideoTrainConfig, data: Path, seed: int = 0, device: str = "cpu") -> None:
        self.config, self.device = config, torch.device(device)
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
                [draw_mesh(self.warp, mesh, PIXELS, half) for mesh in window]
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
        start, begin = self._start(batch, shown, torch.randn_like(batch["target"][:, :1]))
        # Where guesses begin, most is to be done; in noise, most is decided half-way.
        far, usual = torch.rand_like(shown).sqrt(), torch.randn_like(shown).sigmoid()
        share = torch.where(begin < 1, far, usual)
        target, part = batch["target"], _each(share)
        noisy, wanted = target + part * (start - target), (start - target) / _each(begin)
        velocity = self._velocity(batch, given, shown)(noisy, share * begin)
        weight = self.config.outside + (1 - self.config.outside) * batch["hidden"]
        return {"loss": velocity_error(velocity, wanted, weight, given).mean()}

    def _start(self, batch: dict[str, Tensor], shown: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Where windows (B, T, 4, h, w) begin, and at which times (B,): noise, or a guess that is noisy.

        All frames of a window share its noise (B, 1, 4, h, w).
        """
        begin = torch.ones_like(shown)
        if "drawing" in batch:
            begin = torch.where(shown > 0, self.config.model.begin, begin)
        return (1 - _each(begin)) * batch["moved"] + _each(begin) * noise, begin

    def _velocity(self, batch: dict[str, Tensor], given: Tensor, shown: Tensor) -> Velocity:
        """The network's, of windows.

        Args:
            batch: windows.
            given: (B, T) 1 for frames that are known.
            shown: (B,) 1 for windows whose reference is shown.
        """
        signal = signal_of(batch, given, shown)
        if self.config.no_context:
            signal = signal.without_context()
        tokens = self.net.tell(
            batch["portrait"][:, None],
            audio=batch["audio"] if self.config.model.audio else None,
            lips=batch["lips"] if self.config.model.lips else None,
        )
        return lambda noisy, time: self.net(noisy, time, tokens, signal)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Squared error in the holes of held-out people's windows, given the first frame and not.

        Beside it that of the guesses with which they begin.
        """
        batch, found = self.fixed, {"val_guess": float(self._away(self.fixed["moved"]))}
        count, frames = batch["target"].shape[:2]
        shown = torch.ones(count, device=self.device)
        start, begin = self._start(batch, shown, self.noise)
        for name, first in (("val_error", 1.0), ("val_error_alone", 0.0)):
            given = torch.zeros(count, frames, device=self.device)
            given[:, 0] = first
            drawn = sample(self._velocity(batch, given, shown), start, _STEPS, float(begin[0]))
            found[name] = float(self._away(torch.where(_each(given) > 0, batch["target"], drawn)))
            if self.reader and not first:
                found |= self._read(drawn)
        return found

    def _read(self, drawn: Tensor) -> dict[str, float]:
        """How far the landmarks that are read of drawings (B, T, 4, h, w) are from the hidden ones."""
        assert self.reader is not None
        real = torch.from_numpy(self.fixed_points).flatten(0, 1).to(self.device)
        made = self.reader(drawn.flatten(0, 1)) * PIXELS
        rotations = [estimate_pose(mesh.cpu().numpy(), self.mean).rotation for mesh in (made, real)]
        turned = np.einsum("tij,tij->t", *rotations)
        angles = np.degrees(np.arccos(np.clip((turned - 1) / 2, -1, 1)))
        error = landmark_error(made, real).mean()
        return {"val_landmark_error": float(error), "val_pose_error": float(angles.mean())}

    def _away(self, latents: Tensor) -> Tensor:
        """Mean squared error of latents (B, T, 4, h, w) in the holes; first frames do not count."""
        error = (latents - self.fixed["target"]).square().mean(2, keepdim=True)[:, 1:]
        hidden = self.fixed["hidden"][:, 1:]
        return (error * hidden).sum() / hidden.sum()

    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Write the network as the hub reads it."""
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


def _each(values: Tensor) -> Tensor:
    """Values (B,) or (B, T) as they are multiplied with latents (B, T, 4, h, w)."""
    return values.reshape(*values.shape, *[1] * (5 - values.ndim))
