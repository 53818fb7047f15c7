"""The critic: tells which of several portraits of the LDM and its restorer is drawn best.

A small LDM draws most faces well and some badly: with an eye that is smeared, or unlike the other. Of several
portraits the one with the critic's highest score is taken (discriminator rejection sampling; Azadi et al.,
2019).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkface.face.crop import LEFT_EYE_REGION, MOUTH_REGION, RIGHT_EYE_REGION, FaceRegion, cut, region_matrix
from talkface.hub import build_pretrained
from talkface.nn.adversarial import CropDiscriminator
from talkface.nn.picture import pictures

_LIKENESS_WEIGHT = 10.0  # log odds per unit of the correlation of the eyes
_SEARCHED = 6  # pixels of an eye's crop by which the other one may be shifted
_SCALES = (0.5, 0.7, 1.0)  # of full size, at which portraits are judged


@dataclass(frozen=True, kw_only=True)
class CriticConfig:
    """Architecture of :class:`PortraitCritic`.

    Attributes:
        width: of the first layers.
        dropout: probability of losing a feature.
    """

    width: int = 24
    dropout: float = 0.2


class PortraitViews(NamedTuple):
    """The parts of portraits that are judged, in [0, 1].

    Attributes:
        eyes: (B, 6, 64, 64) the right one and the mirrored left one, so that differences between them lie in
            the same place.
        mouth: (B, 3, 128, 128).
    """

    eyes: Tensor
    mouth: Tensor

    @classmethod
    def of(
        cls, images: Sequence[np.ndarray], points: Sequence[np.ndarray], device: torch.device | str
    ) -> "PortraitViews":
        """Cut from pictures (H, H, 3) uint8 with their meshes (478, 3)."""

        def crops(part: FaceRegion) -> Tensor:
            cuts = [cut(i, region_matrix(p, part), part.pixels) for i, p in zip(images, points, strict=True)]
            return pictures(cuts, device)

        return cls(torch.cat([crops(RIGHT_EYE_REGION), crops(LEFT_EYE_REGION)], 1), crops(MOUTH_REGION))

    def at_scale(self, scale: float) -> "PortraitViews":
        """The same in pictures of ``scale`` of their size, enlarged again: texture is lost."""
        return PortraitViews(*(at_scale(view, scale) for view in self))


class PortraitCritic(nn.Module):
    """Log odds that the eyes and the mouth of a portrait are drawn well."""

    def __init__(self, config: CriticConfig) -> None:
        super().__init__()
        self.config = config
        # Channels and levels of eyes and mouth; the mouth's pictures are twice as large.
        shapes = ((6, 4), (3, 5))
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

    def forward(self, views: PortraitViews) -> Tensor:
        """Log odds (B, 2) of eyes and mouths."""
        return torch.stack([net(view) for net, view in zip(self.views, views, strict=True)], 1)

    @property
    def eyes(self) -> nn.Module:
        """The network that judges pairs of eyes."""
        return self.views[0]

    @property
    def mouth(self) -> nn.Module:
        """The network that judges mouths."""
        return self.views[1]

    @torch.inference_mode()
    def judge(self, image: np.ndarray, points: np.ndarray) -> float:
        """How well a portrait (H, H, 3) uint8 with mesh (478, 3) is drawn, the higher the better.

        The sum of the critic's log odds and the weighted correlation of the eyes.
        """
        views = PortraitViews.of([image], [points], next(self.parameters()).device)
        scores = torch.stack([self(views.at_scale(scale)) for scale in _SCALES])
        return float(scores.mean(0).sum()) + _LIKENESS_WEIGHT * eye_likeness(image, points)


def eye_likeness(image: np.ndarray, points: np.ndarray) -> float:
    """Correlation of a portrait's two eyes, -1 to 1, at the shift where they fit best."""
    eyes = [
        cv2.cvtColor(cut(image, region_matrix(points, part), part.pixels), cv2.COLOR_RGB2GRAY)
        for part in (RIGHT_EYE_REGION, LEFT_EYE_REGION)
    ]
    middle = eyes[0][_SEARCHED:-_SEARCHED, _SEARCHED:-_SEARCHED]  # the left one is mirrored by its matrix
    return float(cv2.matchTemplate(eyes[1], middle, cv2.TM_CCOEFF_NORMED).max())


def at_scale(view: Tensor, scale: float) -> Tensor:
    """Pictures (B, C, H, W), reduced to ``scale`` of their size and enlarged again."""
    if scale >= 1:
        return view
    small = F.interpolate(view, scale_factor=scale, mode="bilinear", antialias=True)
    return F.interpolate(small, view.shape[2:], mode="bilinear")
