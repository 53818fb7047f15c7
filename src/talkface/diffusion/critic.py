"""The critic: tells which of several portraits of the LDM and its restorer is drawn best.

A small LDM draws most faces well and some badly, and people see which at once: an eye that is smeared, or
unlike the other. Of several portraits the one is taken that the critic prefers (discriminator rejection
sampling; Azadi et al., 2019).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkface.face.crop import LEFT_EYE, MOUTH, RIGHT_EYE, Part, cut, part_matrix
from talkface.nn.adversarial import CropDiscriminator
from talkface.nn.picture import enlarged, pictures

_WHOLE = 128  # pixels of the side of a whole picture that is looked at
_LOOKS = (0.5, 0.7, 1.0)  # of full size, at which pictures are looked at: structure first


@dataclass(frozen=True, kw_only=True)
class CriticConfig:
    """Architecture of :class:`PortraitCritic`.

    Attributes:
        width: of the first layers.
        dropout: probability of losing a feature.
    """

    width: int = 24
    dropout: float = 0.2


class Views(NamedTuple):
    """What is looked at of portraits, in [0, 1].

    Attributes:
        whole: (B, 3, 128, 128).
        eyes: (B, 6, 64, 64): the right one and, mirrored, the left; what is unlike lies in the same place.
        mouth: (B, 3, 128, 128).
    """

    whole: Tensor
    eyes: Tensor
    mouth: Tensor

    @classmethod
    def of(
        cls, images: Sequence[np.ndarray], points: Sequence[np.ndarray], device: torch.device | str
    ) -> "Views":
        """Cut from pictures (H, H, 3) uint8 with their meshes (478, 3)."""

        def parts(part: Part) -> Tensor:
            cuts = [cut(i, part_matrix(p, part), part.pixels) for i, p in zip(images, points, strict=True)]
            return pictures(cuts, device)

        whole = pictures([enlarged(image, _WHOLE) for image in images], device)
        return cls(whole, torch.cat([parts(RIGHT_EYE), parts(LEFT_EYE)], 1), parts(MOUTH))

    def coarser(self, size: float) -> "Views":
        """As pictures of ``size`` of their size show it: structure stays, texture is lost."""
        return Views(*(coarser(view, size) for view in self))


class PortraitCritic(nn.Module):
    """Log odds that a portrait is drawn well, by the whole, the eyes and the mouth."""

    def __init__(self, config: CriticConfig) -> None:
        super().__init__()
        self.config = config
        # One level more for pictures twice as large.
        shapes = (3, 5), (6, 4), (3, 5)
        self.views = nn.ModuleList(
            CropDiscriminator(channels, config.width, levels, config.dropout) for channels, levels in shapes
        )

    @classmethod
    def from_pretrained(cls, name_or_path: str = "portrait-critic") -> "PortraitCritic":
        """Load the shipped model, or one from a directory or hub id."""
        from talkface.hub import build_pretrained

        return build_pretrained(cls, CriticConfig, name_or_path)

    @classmethod
    def debug(cls) -> "PortraitCritic":
        """A tiny random network for tests."""
        return cls(CriticConfig(width=8)).eval()

    def forward(self, views: Views) -> Tensor:
        """Log odds (B, 3) of what is seen of portraits."""
        return torch.stack([look(view) for look, view in zip(self.views, views, strict=True)], 1)

    @property
    def eyes(self) -> nn.Module:
        """The part of it that sees pairs of eyes."""
        return self.views[1]

    @property
    def mouth(self) -> nn.Module:
        """The part of it that sees mouths."""
        return self.views[2]

    @torch.inference_mode()
    def judge(self, image: np.ndarray, points: np.ndarray) -> float:
        """Log odds that a portrait (H, H, 3) uint8 with mesh (478, 3) is drawn well."""
        views = Views.of([image], [points], next(self.parameters()).device)
        scores = torch.stack([self(views.coarser(size)) for size in _LOOKS])
        return float(scores.mean(0).sum())


def coarser(view: Tensor, size: float) -> Tensor:
    """Pictures (B, C, H, W) as those of ``size`` of their size would show them."""
    if size >= 1:
        return view
    small = F.interpolate(view, scale_factor=size, mode="bilinear", antialias=True)
    return F.interpolate(small, view.shape[2:], mode="bilinear")
