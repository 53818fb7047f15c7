"""Reads drawings of landmarks, which stage 1 makes in the paper, as meshes and motion."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from talkface.face import topology as tp
from talkface.face.model import FaceFit, FaceModel
from talkface.hub import build_pretrained


@dataclass(frozen=True, kw_only=True)
class ReaderConfig:
    """Sizes.

    Attributes:
        latents: channels of the latents that are read.
        channels: of the encoder at each size.
        width: of the layer behind it.
        side: of the latents.
    """

    latents: int = 4
    channels: tuple[int, ...] = (64, 96, 128)
    width: int = 384
    side: int = 32


class LandmarkReader(nn.Module):
    """Latents of landmark pictures to the meshes that they show.

    Convolutions at three sizes and two linear layers; pictures are always as large as ``config.side`` says.
    """

    def __init__(self, config: ReaderConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        given = config.latents
        for channels in config.channels:
            layers += [nn.Conv2d(given, channels, 4, 2, 1), nn.GroupNorm(8, channels), nn.SiLU()]
            layers += [nn.Conv2d(channels, channels, 3, 1, 1), nn.SiLU()]
            given = channels
        cells = (config.side >> len(config.channels)) ** 2
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(given * cells, config.width), nn.SiLU())
        self.outlet = nn.Linear(config.width, 3 * tp.VERTICES)

    @classmethod
    def from_pretrained(cls, name_or_path: str) -> "LandmarkReader":
        """Load one from a directory or hub id."""
        return build_pretrained(cls, ReaderConfig, name_or_path)

    def forward(self, latents: Tensor) -> Tensor:
        """Meshes (B, 478, 3) in sides of the picture, of its latents (B, 4, h, w)."""
        flat: Tensor = self.outlet(self.body(latents))
        return flat.reshape(len(flat), tp.VERTICES, 3)

    @torch.inference_mode()
    def read(self, latents: Tensor, face: FaceModel, pixels: int) -> FaceFit:
        """Identity, motion and poses that drawings show.

        Args:
            latents: (T, 4, h, w) of the drawings.
            face: the 3DMM.
            pixels: side of the pictures in whose pixels the poses are.
        """
        meshes: np.ndarray = (self(latents.float()) * pixels).cpu().numpy()
        return face.fit(meshes.astype(np.float32))


def landmark_error(made: Tensor, real: Tensor) -> Tensor:
    """Mean distance (B,) of meshes (B, 478, 3) in the picture, in inter-ocular distances of the real ones."""
    eyes = tp.inter_ocular(real.cpu().numpy())
    away: Tensor = (made - real)[:, : tp.FACE_VERTICES, :2].norm(dim=-1).mean(1)
    return away / torch.as_tensor(eyes, dtype=away.dtype, device=away.device)
