"""Discriminators of restored pictures: on a face recogniser's features, on both eyes, and on the mouth.

Discriminators on features of a trained network learn faster (Sauer et al., "Projected GANs converge faster",
2021); those of eyes and mouth can begin with the weights of a trained critic.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from talkface.data.attributes import face_features
from talkface.diffusion.critic import PortraitCritic
from talkface.face.crop import LEFT_EYE_REGION, MOUTH_REGION, RIGHT_EYE_REGION, FaceRegion
from talkface.face.tfjs import TfjsGraph
from talkface.nn.picture import cut_out

DISCRIMINATED_PARTS: tuple[FaceRegion, ...] = (RIGHT_EYE_REGION, LEFT_EYE_REGION, MOUTH_REGION)
"""Parts of the face with discriminators of their own."""
FEATURE_LAYERS = (3, 5, 11)
"""Layers of FaceRes with discriminators, at a quarter, an eighth and a sixteenth of the picture's size."""
_WIDTHS = {3: 128, 5: 256, 11: 512}


class PortraitDiscriminators(nn.Module):
    """The discriminators of a picture.

    Args:
        critic: its networks for eyes and mouth are trained further here.
        width: of the heads on features.
        layers: of FaceRes; without any, only eyes and mouth are judged.
    """

    def __init__(self, critic: PortraitCritic, width: int, layers: Sequence[int] = FEATURE_LAYERS) -> None:
        super().__init__()
        # Without spectral norms, with which such a discriminator learns nothing in so few steps.
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(_WIDTHS[layer], 8 * width, 1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(8 * width, 4 * width, 3, padding=1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(4 * width, 1, 1),
            )
            for layer in layers
        )
        self.critic = critic
        # In a list: it is not trained, and not saved.
        self._backbone: list[TfjsGraph] = [face_features(layers)] if layers else []

    def features(self, picture: Tensor) -> list[Tensor]:
        """Features (B, C, h, w) of pictures (B, 3, H, W) in [0, 1], of each layer."""
        if not self._backbone:
            return []
        maps = self._backbone[0](picture.permute(0, 2, 3, 1) * 255)
        return [each.permute(0, 3, 1, 2) for each in maps]

    def cut(self, picture: Tensor, parts: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Both eyes (B, 6, 64, 64), the left one mirrored, and the mouth (B, 3, 128, 128).

        ``parts`` are affine maps (B, 2, 3) from the crops' pixels to the picture's, by the parts' names.
        """
        right, left, mouth = (cut_out(picture, parts[part.name], part.pixels) for part in DISCRIMINATED_PARTS)
        return torch.cat([right, left], 1), mouth

    def forward(self, seen: list[Tensor], eyes: Tensor, mouth: Tensor) -> list[Tensor]:
        """Scores of what :meth:`features` and :meth:`cut` gave, high for photographs."""
        scores: list[Tensor] = [head(each) for head, each in zip(self.heads, seen, strict=True)]
        return [*scores, self.critic.eyes(eyes), self.critic.mouth(mouth)]
