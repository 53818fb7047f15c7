"""CCF, controllable coherent frames: three adapters over the frozen face LDM (paper, Sec. 3.2).

* TIA, the textual inversion adapter, turns identity and mood into words of the caption.
* SCA, the spatial conditional adapter, shows the U-Net the mesh, the reference and the frame before.
* MBA, the mask blending adapter, lets the decoder keep what is around the face.

They are trained one after another; the LDM stays frozen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkface.diffusion.autoencoder import FaceAutoencoder
from talkface.diffusion.captions import PSEUDO_WORDS
from talkface.diffusion.config import DiffusionConfig
from talkface.diffusion.control import Residual, build_control, copy_encoder, residuals
from talkface.diffusion.model import FaceDiffusion, MeshDrawingEncoder
from talkface.diffusion.stable import StableAutoencoder, StableDiffusion
from talkface.systems.imagineid.config import CcfConfig


class TextualInversionAdapter(nn.Module):
    """TIA: semantic embedding and mood to pseudo-words, which stand in the caption like other words."""

    def __init__(self, config: CcfConfig, width: int) -> None:
        super().__init__()
        given = config.semantic + config.emotion
        self.body = nn.Sequential(
            nn.Linear(given, config.hidden),
            nn.SiLU(),
            nn.Linear(config.hidden, len(PSEUDO_WORDS) * width),
        )

    def forward(self, semantic: Tensor, emotion: Tensor) -> Tensor:
        """Pseudo-words (B, 4, C) of semantic embeddings (B, S) and emotion embeddings (B, E)."""
        words: Tensor = self.body(torch.cat([semantic, emotion], -1))
        return words.reshape(len(words), len(PSEUDO_WORDS), -1)


def with_pseudo_words(words: Tensor, ids: Tensor, pseudo: Tensor, numbers: Sequence[int]) -> Tensor:
    """Words (B, L, C) in which pseudo-words (B, 4, C) replace those of the tokens ``numbers``.

    Args:
        words: embeddings of the tokens.
        ids: (B, L) the tokens.
        pseudo: from TIA.
        numbers: token ids of the pseudo-words.
    """
    for place, number in enumerate(numbers):
        words = torch.where((ids == number)[..., None], pseudo[:, place, None], words)
    return words


@dataclass(frozen=True)
class SpatialCondition:
    """What SCA is conditioned on, at the latents' size.

    Attributes:
        drawing: (B, 6, H/2, W/2) the mesh of the frame.
        reference: (B, 4, h, w) latents of the reference, moved to the frame's mesh.
        before: (B, 4, h, w) latents of the frame before; zero inside the face.
        hidden: (B, 1, h, w) 1 where the face is.
        known: (B, 2) whether there is a reference and a frame before, 0 or 1.
    """

    drawing: Tensor
    reference: Tensor
    before: Tensor
    hidden: Tensor
    known: Tensor

    def expanded(self, count: int) -> "SpatialCondition":
        """The same condition for ``count`` pictures."""
        parts = (getattr(self, field.name) for field in fields(self))
        return SpatialCondition(*(part.expand(count, *part.shape[1:]) for part in parts))


class SpatialConditionalAdapter(nn.Module):
    """SCA: a ControlNet, that is a copy of the U-Net's first half, joined through zero convolutions."""

    def __init__(self, config: DiffusionConfig, base: FaceDiffusion | StableDiffusion | None = None) -> None:
        super().__init__()
        self.mesh = MeshDrawingEncoder(16)
        self.inlet = nn.Sequential(
            nn.Conv2d(16 + 2 * config.channels + 1 + 2, config.widths[0], 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(config.widths[0], config.widths[0], 3, padding=1),
        )
        for parameter in self.inlet[2].parameters():
            nn.init.zeros_(parameter)
        self.control = build_control(config)
        if base is not None:
            copy_encoder(self.control, base.unet)

    @classmethod
    def from_pretrained(
        cls, base: FaceDiffusion | StableDiffusion, name_or_path: str = "imagineid-sca"
    ) -> "SpatialConditionalAdapter":
        """Load the shipped adapter, or one from a directory or hub id, over its LDM."""
        from talkface.diffusion.adapter import load_adapter

        return load_adapter(name_or_path, lambda _: cls(base.config), {"base": base})

    def forward(
        self, given: Tensor, step: Tensor, text_embeddings: Tensor, condition: SpatialCondition
    ) -> dict[str, Residual]:
        """Residuals for the base's forward; ``given`` and ``step`` are its ``inputs``."""
        known = condition.known[..., None, None].expand(-1, -1, *condition.hidden.shape[2:])
        shown = torch.cat(
            [
                self.mesh(condition.drawing),
                condition.reference * known[:, :1],
                condition.before * known[:, 1:],
                condition.hidden,
                known,
            ],
            1,
        )
        return residuals(self.control, given, step, text_embeddings, self.inlet(shown))


class MaskBlendingAdapter(nn.Module):
    """MBA: at each size of the decoder h <- m h + (1 - m) conv(h_background)."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for width in widths)
        for convolution in self.convolutions:  # untrained, they leave the background as it is
            weight, bias = convolution.parameters()
            nn.init.dirac_(weight)
            nn.init.zeros_(bias)

    @classmethod
    def from_pretrained(
        cls, autoencoder: FaceAutoencoder | StableAutoencoder, name_or_path: str = "imagineid-mba"
    ) -> "MaskBlendingAdapter":
        """Load the shipped adapter, or one from a directory or hub id, over its autoencoder."""
        from talkface.diffusion.adapter import load_adapter

        widths = autoencoder.config.decoder
        return load_adapter(name_or_path, lambda _: cls(widths), {"autoencoder": autoencoder})

    def blend(self, level: int, inside: Tensor, background: Tensor, mask: Tensor) -> Tensor:
        """Features (B, C, h, w): the face's where ``mask`` (B, 1, H, W) is 1, else the background's."""
        small = F.interpolate(mask, size=inside.shape[2:], mode="area")
        beside: Tensor = self.convolutions[level](background)
        return small * inside + (1 - small) * beside


def decode_blended(
    autoencoder: FaceAutoencoder | StableAutoencoder,
    adapter: MaskBlendingAdapter,
    latents: Tensor,
    background: Tensor,
    mask: Tensor,
) -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1] of latents (B, 4, h, w) inside ``mask`` and of others beside it.

    Args:
        autoencoder: frozen.
        adapter: MBA.
        latents: of the frame.
        background: (B, 4, h, w) latents of the same frame's surroundings.
        mask: (B, 1, H, W) 1 where the face is.
    """
    inside, beside = autoencoder.unscale(latents), autoencoder.unscale(background)
    level = 0
    for stage in autoencoder.stages():
        inside, beside = stage(inside), stage(beside)
        if level < len(adapter.convolutions):
            inside = adapter.blend(level, inside, beside, mask)
            level += 1
    return (inside * 0.5 + 0.5).clamp(0, 1)
