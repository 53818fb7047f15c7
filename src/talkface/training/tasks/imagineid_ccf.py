"""What the trainings of CCF's three adapters share; each is trained over the frozen face LDM."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from talkface.diffusion.autoencoder import LATENT_FACTOR
from talkface.diffusion.base import Base
from talkface.face.draw import draw_mesh
from talkface.face.model import FaceModel
from talkface.face.portrait import PORTRAIT_PIXELS
from talkface.hub import COMPACT, save_pretrained
from talkface.nn.marks import latents_mark, weights_mark
from talkface.systems.imagineid.ccf import SpatialCondition
from talkface.systems.imagineid.config import CcfConfig
from talkface.systems.imagineid.frames import FRAME_STEPS, draw_latents
from talkface.systems.imagineid.reference_warp import enlarged_mask, hidden_cells
from talkface.training import Task
from talkface.training.batches import to_device
from talkface.training.datasets.encoding import ClipSource
from talkface.training.datasets.triplets import FrameTriplets

VALIDATION_TIMES = (0.2, 0.5, 0.8)
"""Noise levels at which the adapters are validated."""


@dataclass(frozen=True, kw_only=True)
class RolloutSettings:
    """Settings of rollouts.

    With rollouts, some rows of a batch are shown what a video would show, not what is real: SCA the frame
    before as the renderer hands it on, MBA a face that SCA drew. Without, they meet neither in training.

    Attributes:
        rollout: share of a batch's rows whose frame before (SCA) or face (MBA) is a video's, not real.
        rollout_steps: of the sampler that draws them.
        rollout_blended: whether SCA's frame before is as where MBA blends: around the face the moved
            reference, which need not be drawn. Otherwise it is what SCA draws there by itself.
        sca: name or directory of the SCA that draws faces for MBA.
    """

    rollout: float = 0.0
    rollout_steps: int = FRAME_STEPS
    rollout_blended: bool = False
    sca: str = "imagineid-sca"


@dataclass(frozen=True, kw_only=True)
class CcfTrainConfig(RolloutSettings):
    """Settings of an adapter's training, beside those of rollouts.

    Attributes:
        batch: pictures.
        variants: of each portrait, for TIA.
        frames: of each clip, for SCA and MBA.
        model: sizes.
        base, pad: names or directories of what is frozen; ``base`` may be a Stable Diffusion.
        no_reference, no_before, no_caption: share of what is hidden, so that each can be missing.
        face_model: name or directory of the 3DMM.
        blur: standard deviation of the noise on semantic embeddings, for TIA: the embedding of a voice is
            about as far from that of its face.
        face: how much more the face counts than what is around it.
        held_out: pictures on which it is validated.
    """

    batch: int = 12
    variants: int = 6
    frames: int = 24
    model: CcfConfig = field(default_factory=CcfConfig)
    base: str = COMPACT
    pad: str = "pad"
    no_reference: float = 0.15
    no_before: float = 0.2
    no_caption: float = 0.5
    face_model: str = "face"
    blur: float = 0.2
    face: float = 2.0
    held_out: int = 48


class CcfTask(Task[CcfTrainConfig]):
    """What the adapters' trainings share: the frozen LDM, and how an adapter is written.

    Attributes:
        adapter: key of the adapter in ``modules``.
        base, autoencoder: of the frozen LDM.
        pixels: side of its pictures.
    """

    Config: ClassVar[type] = CcfTrainConfig
    adapter: str

    def prepare(self, data: Path, seed: int) -> None:
        """Load the LDM, build the adapter, and load its data."""
        config = self.config
        self.face = FaceModel.from_pretrained(config.face_model)
        self.warp = self.face.mesh_warp()
        frozen = Base.from_pretrained(config.base, self.device)
        self.base, self.autoencoder, self.pixels = frozen.model, frozen.autoencoder, frozen.pixels
        torch.manual_seed(seed)
        self.modules = {self.adapter: self.build().to(self.device)}
        self.load(seed)

    def build(self) -> nn.Module:
        """The adapter."""
        raise NotImplementedError

    def load(self, seed: int) -> None:
        """Load what is trained and validated on."""
        raise NotImplementedError

    def built_on(self) -> dict[str, nn.Module]:
        """The networks without which the adapter cannot be used."""
        return {"base": self.base}

    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Write the adapter as the hub reads it."""
        module = self.modules[self.adapter]
        config = {"class": type(module).__name__, "model": asdict(self.config.model), "metrics": metrics}
        config["built_on"] = {name: weights_mark(part) for name, part in self.built_on().items()}
        save_pretrained(directory, config, module.state_dict(), card=None)

    def drawings(self, points: np.ndarray) -> np.ndarray:
        """Drawings (B, 6, H/2, W/2) of meshes (B, 478, 3)."""
        return np.stack([draw_mesh(self.warp, one, PORTRAIT_PIXELS, self.pixels // 2) for one in points])

    def fixed_noise(self, like: Tensor) -> Tensor:
        """Noise (K, N, 4, h, w), always the same, for held-out latents (N, 4, h, w) at K noise levels."""
        shape = len(VALIDATION_TIMES), *like.shape
        noise = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        return torch.from_numpy(noise).to(self.device)


class FrameTask(CcfTask):
    """What the trainings of SCA and MBA on frames of clips share."""

    def load(self, seed: int) -> None:
        """Frames of training clips, and of held-out ones."""
        self.frames = FrameTriplets.of(self._source("train", seed), self.config.frames)
        validation = self._source(self.manifest.choosing, seed)
        self.held_out = FrameTriplets.of(validation, self.config.frames)
        spread = np.linspace(0, len(self.held_out) - 1, min(self.config.held_out, len(self.held_out)))
        chosen = spread.round().astype(int)
        self.fixed = to_device(self.rows(self.held_out, chosen, len(chosen)), self.device)
        self.noise = self.fixed_noise(self.fixed["target"])
        self.no_words = torch.from_numpy(self.base.tokenize("").ids)[None].to(self.device)

    def _source(self, split: str, seed: int) -> ClipSource:
        return ClipSource(
            manifest=self.manifest,
            split=split,
            face=self.face,
            autoencoder=self.autoencoder,
            mark=latents_mark(self.autoencoder),
            seed=seed,
            pixels=self.pixels,
        )

    def rows(self, frames: FrameTriplets, chosen: np.ndarray, rolled: int = 0) -> dict[str, np.ndarray]:
        """Arrays of a batch.

        Args:
            frames: where it is taken from.
            chosen: (B,) numbers of its rows.
            rolled: how many rows, the first ones, take part in a rollout.

        Returns:
            Latents "target", "moved" and "before" (B, 4, h, w); "drawing" (B, 6, H/2, W/2); where the face
            is, "hidden", "hidden_before" (B, 1, h, w) and "mask" (B, 1, H, W); and of the rolled rows what
            :meth:`origins` gives.
        """
        cells = self.pixels // LATENT_FACTOR
        points, old_points = frames.points[chosen], frames.before_points[chosen]
        names = "target", "moved", "before"
        latents = {name: getattr(frames, name)[chosen].astype(np.float32) for name in names}
        found = latents | {
            "drawing": self.drawings(points),
            "hidden": np.stack([hidden_cells(one, cells) for one in points]),
            "hidden_before": np.stack([hidden_cells(one, cells) for one in old_points]),
            "mask": np.stack([enlarged_mask(one, self.pixels)[None] for one in points]),
        }
        return found | self.origins(frames, chosen[:rolled]) if rolled else found

    def origins(self, frames: FrameTriplets, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """What rollouts (R) begin with: the reference at the mesh of the frame before."""
        return {"moved_before": frames.moved_before[chosen].astype(np.float32)}

    def draw(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        """A batch as :meth:`rows` gives it."""
        config = self.config
        chosen = generator.choice(len(self.frames), config.batch, p=self.frames.weight)
        # The rows are in random order, so the first ones are a random choice.
        rolled = max(1, round(config.rollout * config.batch)) if config.rollout > 0 else 0
        return self.rows(self.frames, chosen, rolled)

    def drawn(self, sca: nn.Module, condition: SpatialCondition, noise: Tensor) -> Tensor:
        """Latents (R, 4, h, w) of frames as the renderer draws them, without gradient."""
        kind = self.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        steps = self.config.rollout_steps
        # The renderer says by itself what is computed in that type.
        with torch.no_grad(), torch.autocast(kind, enabled=False):
            text_embeddings = self.base.encode_text(self.no_words)
            return draw_latents(self.base, sca, text_embeddings, condition, noise, steps, dtype=dtype)
