"""Trains SCA, which shows the frozen LDM the mesh, the moved reference and the frame before."""

import numpy as np
import torch
from torch import Tensor, nn

from talkface.diffusion.sampling import noised
from talkface.systems.imagineid.ccf import SpatialCondition, SpatialConditionalAdapter
from talkface.systems.imagineid.frames import around_face, spatial_condition
from talkface.training.datasets.triplets import FrameTriplets
from talkface.training.tasks.imagineid_ccf import VALIDATION_TIMES, FrameTask


class ScaTask(FrameTask):
    """SCA: the velocity of a frame's latents, given its mesh, the moved reference and the frame before.

    The best weights have the least ``val_loss``; with rollouts, the least mean of it and ``val_loss_rolled``.
    """

    adapter = "sca"
    metric, mode = "val_loss", "min"

    def build(self) -> nn.Module:
        """SCA, from the U-Net's own weights."""
        return SpatialConditionalAdapter(self.base.config, self.base)

    def load(self, seed: int) -> None:
        """As for all frames."""
        super().load(seed)
        if self.config.rollout > 0:
            self.metric = "val_loss_both"

    def origins(self, frames: FrameTriplets, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """The reference at the mesh of the frame before, and, where it is to be drawn, that mesh."""
        found = super().origins(frames, chosen)
        if self.config.rollout_blended:
            return found
        return found | {"drawing_before": self.drawings(frames.before_points[chosen])}

    def training_step(self, batch: dict[str, Tensor], optimizer_index: int, step: int) -> dict[str, Tensor]:
        """Squared error; the reference and the frame before are hidden at times."""
        count = len(batch["target"])
        chance = torch.rand(count, 2, device=self.device)
        known = chance > torch.tensor([self.config.no_reference, self.config.no_before], device=self.device)
        time = torch.randn(count, device=self.device).sigmoid()
        noise = torch.randn_like(batch["target"])
        before = self._real(batch)
        if "moved_before" in batch:
            rolled = self.rolled(batch, noise)
            before = torch.cat([rolled, before[len(rolled) :]])
        return {"loss": self._error(batch, before, known.float(), time, noise).mean()}

    def rolled(self, batch: dict[str, Tensor], noise: Tensor) -> Tensor:
        """The frame before as the renderer hands it on, (R, 4, h, w), of the rows that have an origin.

        It is drawn as a video's first frame, from the same noise (B, 4, h, w) as the frame itself will be.
        """
        latents = batch["moved_before"]
        hidden = batch["hidden_before"][: len(latents)]
        if not self.config.rollout_blended:
            condition = spatial_condition(batch["drawing_before"], latents, hidden, None)
            latents = self.drawn(self.modules["sca"], condition, noise[: len(latents)])
        return around_face(latents, hidden)

    @staticmethod
    def _real(batch: dict[str, Tensor]) -> Tensor:
        return around_face(batch["before"], batch["hidden_before"])

    def _error(
        self, batch: dict[str, Tensor], before: Tensor, known: Tensor, time: Tensor, noise: Tensor
    ) -> Tensor:
        """Squared error of each frame (B,), the face's counting more."""
        text_embeddings = self.base.encode_text(self.no_words.expand(len(time), -1))
        mesh = self.base.encode_mesh(batch["drawing"]) if self.base.mesh else None
        condition = SpatialCondition(batch["drawing"], batch["moved"], before, batch["hidden"], known)
        noisy = noised(batch["target"], noise, time)
        control = self.modules["sca"](*self.base.inputs(noisy, time, mesh), text_embeddings, condition)
        velocity = self.base(noisy, time, text_embeddings, mesh, **control)
        weight = 1 + self.config.face * batch["hidden"]
        error = (velocity - noise + batch["target"]).square() * weight
        each: Tensor = error.sum((1, 2, 3)) / weight.sum((1, 2, 3)) / noise.shape[1]
        return each

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The error on held-out people with all conditions, a rolled frame before, and the mesh alone."""
        fixed, count = self.fixed, len(self.fixed["target"])
        real = self._real(fixed)
        found: dict[str, list[float]] = {"val_loss": [], "val_loss_rolled": [], "val_loss_mesh_alone": []}
        for time, noise in zip(VALIDATION_TIMES, self.noise, strict=True):
            now = torch.full((count,), time, device=self.device)
            befores = real, self.rolled(fixed, noise), real
            for (name, errors), before in zip(found.items(), befores, strict=True):
                known = torch.full((count, 2), float(name != "val_loss_mesh_alone"), device=self.device)
                errors.append(float(self._error(fixed, before, known, now, noise).mean()))
        means = {name: float(np.mean(values)) for name, values in found.items()}
        return means | {"val_loss_both": (means["val_loss"] + means["val_loss_rolled"]) / 2}
