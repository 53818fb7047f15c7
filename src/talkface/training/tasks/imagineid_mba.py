"""Trains MBA, which lets the decoder keep what is around the face."""

import torch
from torch import Tensor, nn

from talkface.nn.picture import gradient_loss, weighted_l1
from talkface.systems.imagineid.ccf import (
    MaskBlendingAdapter,
    SpatialConditionalAdapter,
    decode_blended,
)
from talkface.systems.imagineid.frames import around_face, spatial_condition
from talkface.training.tasks.imagineid_ccf import FrameTask


class MbaTask(FrameTask):
    """MBA: pictures of a frame's face amid the moved reference's surroundings.

    The best weights have the highest ``val_psnr``; with rollouts, the highest mean of it and
    ``val_psnr_rolled``.
    """

    adapter = "mba"
    metric, mode = "val_psnr", "max"

    def build(self) -> nn.Module:
        """MBA, as wide as the decoder at each size."""
        return MaskBlendingAdapter(self.autoencoder.config.decoder)

    def built_on(self) -> dict[str, nn.Module]:
        """The autoencoder."""
        return {"autoencoder": self.autoencoder}

    def load(self, seed: int) -> None:
        """Frames, and with rollouts the SCA that draws faces."""
        super().load(seed)
        self.sca: SpatialConditionalAdapter | None = None
        if self.config.rollout > 0:
            sca = SpatialConditionalAdapter.from_pretrained(self.base, self.config.sca)
            self.sca = sca.to(self.device).requires_grad_(False)
            self.metric = "val_psnr_both"

    def training_step(self, batch: dict[str, Tensor], optimizer_index: int, step: int) -> dict[str, Tensor]:
        """Distance from the whole frame, where it borders on the face above all."""
        rolled = self.rolled(batch, torch.randn_like(batch["target"])) if self.sca is not None else None
        drawn, goal = self._draw(batch, rolled)
        border = 1 + 4 * self._border(batch["mask"])
        out = {"l1": weighted_l1(drawn, goal, border), "gradient": gradient_loss(drawn, goal, border)}
        return {"loss": out["l1"] + out["gradient"]} | {name: v.detach() for name, v in out.items()}

    def rolled(self, batch: dict[str, Tensor], noise: Tensor) -> Tensor:
        """Faces that SCA draws in the midst of a video, (R, 4, h, w), of the rows that have an origin."""
        assert self.sca is not None
        count = len(batch["moved_before"])
        first = {name: batch[name][:count] for name in ("drawing", "moved", "hidden", "hidden_before")}
        # Where MBA blends, what is around the face is the reference's in the frame before, too.
        before = around_face(batch["moved_before"], first["hidden_before"])
        condition = spatial_condition(first["drawing"], first["moved"], first["hidden"], before)
        return self.drawn(self.sca, condition, noise[:count])

    def _draw(self, batch: dict[str, Tensor], rolled: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Blended pictures (B, 3, H, W) and what they should be; the first rows' faces are ``rolled``."""
        adapter = self.modules["mba"]
        assert isinstance(adapter, MaskBlendingAdapter)
        count = 0 if rolled is None else len(rolled)
        faces = batch["target"] if rolled is None else torch.cat([rolled, batch["target"][count:]])
        drawn = decode_blended(self.autoencoder, adapter, faces, batch["moved"], batch["mask"])
        with torch.no_grad():
            goal = self.autoencoder.decode(batch["target"])
            if rolled is not None:
                # MBA cannot change a face: with the real face as the goal for a drawn one, it would learn to
                # make up for the difference around it. The goal fades between the two as the mask does.
                mask = batch["mask"][:count]
                faded = mask * self.autoencoder.decode(rolled) + (1 - mask) * goal[:count]
                goal = torch.cat([faded, goal[count:]])
        return drawn, goal

    @staticmethod
    def _border(mask: Tensor) -> Tensor:
        """1 where the mask is between 0 and 1."""
        return ((mask > 0.01) & (mask < 0.99)).float()

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """PSNR of held-out frames, in all and at the face's border; with rollouts, of drawn faces, too."""
        found = self._psnr("val_psnr", None)
        if self.sca is None:
            return found
        found |= self._psnr("val_psnr_rolled", self.rolled(self.fixed, self.noise[0]))
        return found | {"val_psnr_both": (found["val_psnr"] + found["val_psnr_rolled"]) / 2}

    def _psnr(self, name: str, rolled: Tensor | None) -> dict[str, float]:
        drawn, goal = self._draw(self.fixed, rolled)
        border = self._border(self.fixed["mask"]).expand_as(drawn) > 0
        error = (drawn - goal).square()
        return {
            name: float(-10 * torch.log10(error.mean() + 1e-8)),
            f"{name}_border": float(-10 * torch.log10(error[border].mean() + 1e-8)),
        }
