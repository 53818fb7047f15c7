"""Losses of TH-PAD's motion model and prior."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkface.face import topology as tp
from talkface.face.model import FaceModel
from talkface.performance.lip_shape import lip_readout


def contrastive_sync(video: Tensor, audio: Tensor, temperature: Tensor) -> Tensor:
    """L_cl: symmetric InfoNCE between f_cl^v and f^a, (N, C) each, row by row (paper, Sec. 3.2)."""
    logits = F.normalize(video, dim=1) @ F.normalize(audio, dim=1).T * temperature
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def orthogonality(visual: Tensor, audio: Tensor) -> Tensor:
    """L_ol: mean squared cosine of f_ol^v and f^a, (N, C) each, centred over the batch (paper, Sec. 3.2)."""
    visual, audio = visual - visual.mean(0), audio - audio.mean(0)
    return F.cosine_similarity(visual, audio, dim=1).square().mean()


def velocity(predicted: Tensor, target: Tensor) -> Tensor:
    """L_vel: squared difference of frame-to-frame changes of (B, T, C) (paper, Eq. of the prior's loss)."""
    return (predicted.diff(dim=1) - target.diff(dim=1)).square().mean()


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation over time (B, K) of two signals (B, T, K)."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1) + 1e-6).sqrt()


class LipLoss(nn.Module):
    """Distance of lips from real ones, and 1 - correlation with them (ours; the lip decoder's loss).

    Attributes:
        readout: (M, 3) from beta_mouth to opening, width and jaw.
        usual: (3,) deviations over time from which on each of them counts fully.
        vertices: (M, V) from beta_mouth to x and y of the lips' and the chin's vertices.
        weight: (3,) of each correlation.
    """

    readout: Tensor
    usual: Tensor
    vertices: Tensor
    weight: Tensor

    def __init__(self, face: FaceModel) -> None:
        super().__init__()
        lips = np.concatenate([tp.LIPS_INNER, tp.LIPS_OUTER, [tp.CHIN]])
        vertices = face.mouth[:, lips, :2].reshape(len(face.mouth), -1)
        self.register_buffer("readout", torch.from_numpy(lip_readout(face)))
        self.register_buffer("usual", torch.tensor([0.06, 0.04, 0.06]))
        self.register_buffer("vertices", torch.from_numpy(vertices))
        self.register_buffer("weight", torch.tensor([1.0, 0.4, 0.4]))

    def forward(self, predicted: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Losses of a batch.

        Args:
            predicted: (B, T, M) mouth coefficients.
            real: (B, T, M) those of the tracked face.

        Returns:
            Distance of lip vertices (in 5 % of the inter-ocular distance), of their speed and of
            coefficients; and 1 - correlation of opening, width and jaw, less where they hardly move.
        """
        a, b = predicted @ self.vertices / 0.05, real @ self.vertices / 0.05
        distance = F.smooth_l1_loss(a, b, beta=0.5)
        coefficients = F.smooth_l1_loss(predicted, real, beta=0.5)
        speed = F.smooth_l1_loss(a.diff(dim=1), b.diff(dim=1), beta=0.5)
        r = pearson(predicted @ self.readout, real @ self.readout)
        moving = ((real @ self.readout).std(1) / self.usual).clamp(max=1.0)
        return distance + 0.2 * coefficients + speed, ((1 - r) * self.weight * moving).mean()
