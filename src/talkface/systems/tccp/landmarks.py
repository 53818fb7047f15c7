"""Stage 1, compact: where the hidden head is and how it turns, from what is visible around it.

Only poses are predicted here. Lips come from the voice, by the lip path; gaze and brows are drawn from
TH-PAD's prior.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from talkface.face.coefficients import SHAPE_COEFFICIENTS
from talkface.hub import build_pretrained
from talkface.nn.transformer import transformer
from talkface.speech.features import sinusoids
from talkface.systems.tccp.crops import square_crop

VIEW_PIXELS = 64
"""Side of the views of the context that the network is given."""
VIEW_SIDE = 2.0
"""Side of a view, relative to the larger side of the hole."""
POSE_SIZE = 6
"""Numbers of a pose: rotation vector (radians), place (x, y, in sides of the view), and the logarithm of the
scale, in sides of the view, too."""


@dataclass(frozen=True, kw_only=True)
class LandmarkConfig:
    """Sizes of :class:`LandmarkTransformer`.

    Attributes:
        content: width of content features.
        shape: identity coefficients of the 3DMM.
        channels: of the picture encoder at each size.
        width, layers, heads: of the transformer.
        dropout: in training.
    """

    content: int = 512
    shape: int = SHAPE_COEFFICIENTS
    channels: tuple[int, ...] = (32, 64, 96, 128)
    width: int = 192
    layers: int = 4
    heads: int = 4
    dropout: float = 0.1


class LandmarkTransformer(nn.Module):
    """Masked context, audio and identity to poses.

    A token for each frame, from its view, its content features and the identity; a transformer over them.
    """

    def __init__(self, config: LandmarkConfig) -> None:
        super().__init__()
        self.config = config
        sizes = [4, *config.channels]
        self.picture = nn.Sequential(
            *(
                layer
                for given, made in itertools.pairwise(sizes)
                for layer in (nn.Conv2d(given, made, 4, 2, 1), nn.GroupNorm(8, made), nn.SiLU())
            ),
            nn.Flatten(),
            nn.Linear(sizes[-1] * (VIEW_PIXELS >> len(config.channels)) ** 2, config.width),
        )
        self.audio = nn.Sequential(nn.LayerNorm(config.content), nn.Linear(config.content, config.width))
        self.shape = nn.Linear(config.shape, config.width)
        self.margin = nn.Linear(2, config.width)
        self.body = transformer(config.width, config.heads, config.layers, config.dropout)
        self.outlet = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, POSE_SIZE))

    @classmethod
    def debug(cls) -> "LandmarkTransformer":
        """A tiny random one for tests."""
        return cls(LandmarkConfig(content=16, channels=(8, 8), width=16, layers=1, heads=2)).eval()

    @classmethod
    def from_pretrained(cls, name_or_path: str = "tccp-landmarks") -> "LandmarkTransformer":
        """Load the shipped model, or one from a directory or hub id."""
        return build_pretrained(cls, LandmarkConfig, name_or_path)

    def forward(self, context: Tensor, content: Tensor, alpha: Tensor, margin: Tensor) -> Tensor:
        """Poses (B, T, POSE_SIZE).

        Args:
            context: (B, T, 4, 64, 64) views in [-1, 1], zero where anything is hidden, and what share is.
            content: (B, T, 4, C) content features around each frame.
            alpha: (B, I) identity coefficients of the 3DMM.
            margin: (B,) by how much the hole is larger than the oval of the face; 0 where it is not known.
        """
        views: Tensor = self.picture(context.flatten(0, 1))
        seen = views.reshape(*context.shape[:2], -1)
        known = self.margin(torch.stack([margin, (margin > 0).float()], -1))
        tokens = seen + self.audio(content.mean(2)) + (self.shape(alpha) + known)[:, None]
        places = sinusoids(tokens.shape[1], self.config.width).to(tokens)
        poses: Tensor = self.outlet(self.body(tokens + places))
        return poses


def posed(points: Tensor, pose: Tensor) -> Tensor:
    """Points (V, 3) or (B, 1, V, 3) of a canonical face, in views: (B, T, V, 2), of the view's side.

    Args:
        points: canonical.
        pose: (B, T, POSE_SIZE).
    """
    turned = points @ rotations(pose[..., :3]).transpose(-1, -2)
    return turned[..., :2] * pose[..., None, 5:6].exp() + pose[..., None, 3:5]


def rotations(vector: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of rotation vectors (..., 3) (Rodrigues)."""
    angle = vector.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    x, y, z = (vector / angle).unbind(-1)
    zero = torch.zeros_like(x)
    rows = [torch.stack(row, -1) for row in ((zero, -z, y), (z, zero, -x), (-y, x, zero))]
    cross = torch.stack(rows, -2)
    angle = angle[..., None]
    eye = torch.eye(3, device=vector.device)
    matrices: Tensor = eye + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)
    return matrices


def view_matrix(box: np.ndarray) -> np.ndarray:
    """Affine map (2, 3) from a frame to the pixels of a view around a hole's box (4,)."""
    side = VIEW_SIDE * max(box[2] - box[0], box[3] - box[1], 2.0)
    corner = np.array([box[0] + box[2], box[1] + box[3]]) / 2 - side / 2
    return square_crop(corner, side, VIEW_PIXELS)
