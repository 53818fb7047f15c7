"""Parts of G4G's generator: encoders, aligned blocks, adaptive spatial transform, fusion network."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkface.nn.blocks import ModulatedBlock, pixel_shuffle
from talkface.performance.config import SPEECH_WINDOW


class AdaptiveInstanceNorm(nn.Module):
    """AdaIN: a code sets the mean and deviation of each channel."""

    def __init__(self, width: int, code: int) -> None:
        super().__init__()
        self.affine = nn.Linear(code, 2 * width)
        nn.init.normal_(self.affine.weight, std=1e-2)
        nn.init.zeros_(self.affine.bias)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Modulate x (B, width, H, W) by code (B, code)."""
        affine: Tensor = self.affine(code)[..., None, None]
        scale, shift = affine.chunk(2, 1)
        return F.instance_norm(x) * (1 + scale) + shift


class AlignedBlock(nn.Module):
    """Residual block of the intra-modal alignment: AdaIN by the mesh code on features of the masked face."""

    def __init__(self, width: int, code: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(AdaptiveInstanceNorm(width, code) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Features (B, width, H, W) aligned to the code (B, code)."""
        h = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            h = conv(F.silu(norm(h, code)))
        return x + h


class SpeechEncoder(nn.Module):
    """E_a: content and level around a frame to the speech code f_a (B, code)."""

    def __init__(self, content: int, code: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Dropout1d(0.1),
            nn.Conv1d(content + 1, 2 * code, 1),
            nn.SiLU(),
            nn.Conv1d(2 * code, 2 * code, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv1d(2 * code, code, SPEECH_WINDOW),
        )

    def forward(self, content: Tensor, level: Tensor) -> Tensor:
        """Encode content (B, 2 * SPEECH_WINDOW, C) and level (B, 2 * SPEECH_WINDOW)."""
        x = torch.cat([content, level[..., None] / 20 + 1], -1).transpose(1, 2)
        f_a: Tensor = self.body(x)[..., 0]
        return f_a


class MeshCodeEncoder(nn.Module):
    """E_m: mesh maps (B, maps, H, W) and coefficients (B, mesh) to the mesh code f_m (B, code)."""

    def __init__(self, maps: int, mesh: int, code: int) -> None:
        super().__init__()
        self.look = nn.Sequential(
            nn.Conv2d(maps, 32, 4, stride=4),
            nn.SiLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
        )
        self.join = nn.Sequential(nn.Linear(64 * 16 + mesh, code), nn.SiLU(), nn.Linear(code, code))

    def forward(self, maps: Tensor, mesh: Tensor) -> Tensor:
        """Encode what the mesh looks like and its coefficients."""
        f_m: Tensor = self.join(torch.cat([self.look(maps), mesh], 1))
        return f_m


class PictureEncoder(nn.Module):
    """E_v and E_r: a pyramid of features of a crop.

    Args:
        channels: of the crop.
        extra: channels at half its side that are joined to it.
        widths: channels at 1/2, 1/4, ... of the crop's side.
        code: size of the code that modulates.
    """

    def __init__(self, channels: int, extra: int, widths: tuple[int, ...], code: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4 * channels + extra, widths[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.blocks = nn.ModuleList(ModulatedBlock(width, code) for width in widths[1:])

    def forward(self, picture: Tensor, extra: Tensor | None, code: Tensor) -> list[Tensor]:
        """Features, finest first, of crops (B, channels, P, P) with ``extra`` (B, extra, P/2, P/2)."""
        pixels = F.pixel_unshuffle(picture, 2)
        pyramid = [self.stem(pixels if extra is None else torch.cat([pixels, extra], 1))]
        for down, block in zip(self.down, self.blocks, strict=True):
            pyramid.append(block(down(F.silu(pyramid[-1])), code))
        return pyramid


class AdaptiveSpatialTransform(nn.Module):
    """Corrects where MeshWarp puts the features of references, guided by speech, mesh and masks."""

    def __init__(self, width: int, code: int, references: int, reach: float) -> None:
        super().__init__()
        self.references, self.reach = references, reach
        self.inlet = nn.Conv2d((1 + references) * width + 2, width // 2, 1)
        self.block = ModulatedBlock(width // 2, code)
        self.flow = nn.Conv2d(width // 2, 3 * references, 3, padding=1)
        nn.init.zeros_(self.flow.weight)
        nn.init.zeros_(self.flow.get_parameter("bias"))

    def forward(
        self, face: Tensor, references: Tensor, grids: Tensor, masks: Tensor, code: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Find a flow and a share for each reference.

        Args:
            face: (B, C, H, W) aligned features of the masked face.
            references: (B, R, C, H, W).
            grids: (B, R, H, W, 2) where MeshWarp finds each cell in each reference, -1 to 1.
            masks: (B, 2, H, W) what is hidden, and the inside of the mouth.
            code: (B, code) of speech and mesh.

        Returns:
            flow (B, R, H, W, 2), to be added to the grids, and logits (B, R, H, W) of the shares.
        """
        seeded = sample(references, grids)
        h = self.inlet(torch.cat([face, seeded.flatten(1, 2), masks], 1))
        found = self.flow(F.silu(self.block(h, code)))
        flow, shares = torch.split(found, [2 * self.references, self.references], 1)
        flow = self.reach * torch.tanh(torch.unflatten(flow, 1, (self.references, 2))).movedim(2, -1)
        return flow, shares


def sample(pictures: Tensor, grids: Tensor) -> Tensor:
    """Resample pictures (B, R, C, H, W) by grids (B, R, h, w, 2), -1 to 1: (B, R, C, h, w)."""
    drawn = F.grid_sample(
        pictures.flatten(0, 1), grids.flatten(0, 1), padding_mode="border", align_corners=False
    )
    return torch.unflatten(drawn, 0, pictures.shape[:2])


class Fusion(nn.Module):
    """Corrects the tone of the drawn mouth where it meets the face around it.

    It does not decide where each of them shows: in training the face around is the real one, and a network
    that could choose would learn to show nothing else.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(4 * 7, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 4 * 3, 3, padding=1),
        )
        nn.init.normal_(self.body[-1].get_parameter("weight"), std=1e-3)
        nn.init.zeros_(self.body[-1].get_parameter("bias"))

    def forward(self, mouth: Tensor, context: Tensor, hidden: Tensor) -> Tensor:
        """What to add to the mouth (B, 3, P, P); context (B, 3, P, P) and mask ``hidden`` (B, 1, P, P)."""
        pixels = F.pixel_unshuffle(torch.cat([mouth, context, hidden], 1), 2)
        return 0.2 * torch.tanh(pixel_shuffle(self.body(pixels), 2))
