"""The critic: tells which of several portraits of the LDM and its restorer is drawn best.

A small LDM draws most faces well and some badly, and people see which at once: an eye that is smeared, or
unlike the other. Of several portraits the one is taken that the critic prefers (discriminator rejection
sampling; Azadi et al., 2019).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkface.face.crop import LEFT_EYE, MOUTH, RIGHT_EYE, Part, cut, part_matrix
from talkface.hub import build_pretrained
from talkface.nn.adversarial import CropDiscriminator
from talkface.nn.picture import pictures

_ALIKE = 10.0  # log odds that alike eyes are worth beside unlike ones
_SEARCHED = 6  # pixels of an eye's crop by which the other one may be shifted
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
        eyes: (B, 6, 64, 64): the right one and, mirrored, the left; what is unlike lies in the same place.
        mouth: (B, 3, 128, 128).
    """

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

        return cls(torch.cat([parts(RIGHT_EYE), parts(LEFT_EYE)], 1), parts(MOUTH))

    def coarser(self, size: float) -> "Views":
        """As pictures of ``size`` of their size show it: structure stays, texture is lost."""
        return Views(*(coarser(view, size) for view in self))


class PortraitCritic(nn.Module):
    """Log odds that a portrait is drawn well, by the eyes and by the mouth; a face's light does not count."""

    def __init__(self, config: CriticConfig) -> None:
        super().__init__()
        self.config = config
        # One level more for pictures twice as large.
        shapes = (6, 4), (3, 5)
        self.views = nn.ModuleList(
            CropDiscriminator(channels, config.width, levels, config.dropout) for channels, levels in shapes
        )

    @classmethod
    def from_pretrained(cls, name_or_path: str = "portrait-critic") -> "PortraitCritic":
        """Load the shipped model, or one from a directory or hub id."""
        return build_pretrained(cls, CriticConfig, name_or_path)

    @classmethod
    def debug(cls) -> "PortraitCritic":
        """A tiny random network for tests."""
        return cls(CriticConfig(width=8)).eval()

    def forward(self, views: Views) -> Tensor:
        """Log odds (B, 2) of what is seen of portraits."""
        return torch.stack([look(view) for look, view in zip(self.views, views, strict=True)], 1)

    @property
    def eyes(self) -> nn.Module:
        """The part of it that sees pairs of eyes."""
        return self.views[0]

    @property
    def mouth(self) -> nn.Module:
        """The part of it that sees mouths."""
        return self.views[1]

    @torch.inference_mode()
    def judge(self, image: np.ndarray, points: np.ndarray) -> float:
        """How well a portrait (H, H, 3) uint8 with mesh (478, 3) is drawn, the higher the better.

        The critic's log odds, and how alike the eyes are.
        """
        views = Views.of([image], [points], next(self.parameters()).device)
        scores = torch.stack([self(views.coarser(size)) for size in _LOOKS])
        return float(scores.mean(0).sum()) + _ALIKE * alike(image, points)


def alike(image: np.ndarray, points: np.ndarray) -> float:
    """Correlation of a portrait's eyes, -1 to 1, where they fit best: what people see first."""
    eyes = [
        cv2.cvtColor(cut(image, part_matrix(points, part), part.pixels), cv2.COLOR_RGB2GRAY)
        for part in (RIGHT_EYE, LEFT_EYE)
    ]
    middle = eyes[0][_SEARCHED:-_SEARCHED, _SEARCHED:-_SEARCHED]  # the left one is mirrored by its matrix
    return float(cv2.matchTemplate(eyes[1], middle, cv2.TM_CCOEFF_NORMED).max())


def coarser(view: Tensor, size: float) -> Tensor:
    """Pictures (B, C, H, W) as those of ``size`` of their size would show them."""
    if size >= 1:
        return view
    small = F.interpolate(view, scale_factor=size, mode="bilinear", antialias=True)
    return F.interpolate(small, view.shape[2:], mode="bilinear")
