"""The face LDM's networks: text encoder, mesh encoder and U-Net (diffusers' classes)."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from talkface.diffusion.captions import LENGTH, PSEUDO_WORDS, VOCABULARY, Tokens, tokenize
from talkface.diffusion.config import DiffusionConfig
from talkface.face.draw import MESH_CHANNELS, MESH_PIXELS
from talkface.hub import build_pretrained

_PATCH = 4  # pixels of a mesh drawing that one latent sees, along each side


class TextEncoder(nn.Module):
    """Tokens of a caption to their meaning in context."""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.words = nn.Embedding(len(VOCABULARY), config.text)
        self.places = nn.Parameter(torch.randn(LENGTH, config.text) * 0.02)
        nn.init.normal_(self.words.weight, std=0.3)
        layer = nn.TransformerEncoderLayer(
            config.text, 4, 2 * config.text, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(layer, config.text_layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(config.text)

    def embed(self, ids: Tensor) -> Tensor:
        """Words (B, LENGTH, C) of tokens (B, LENGTH), before they see each other."""
        return self.words(ids)

    def forward(self, words: Tensor) -> Tensor:
        """Meaning (B, LENGTH, C) of words (B, LENGTH, C)."""
        return self.norm(self.body(words + self.places))


class MeshEncoder(nn.Module):
    """Drawings of meshes (B, 6, H/2, W/2) to channels beside the latents (B, C, H/8, W/8)."""

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(_PATCH),
            nn.Conv2d(MESH_CHANNELS * _PATCH**2, width, 1),
            nn.SiLU(),
            nn.Conv2d(width, channels, 3, padding=1),
        )

    def forward(self, drawing: Tensor) -> Tensor:
        return self.layers(drawing)


class FaceDiffusion(nn.Module):
    """Predicts the velocity of noisy latents, from what a caption says and a mesh shows.

    The path between latents x0 and noise e is straight, x_t = (1 - t) x0 + t e, and its velocity e - x0
    (flow matching; Lipman et al., 2023).
    """

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config
        self.text = TextEncoder(config)
        self.mesh = MeshEncoder(config.mesh) if config.mesh else None
        self.unet = build_unet(config)

    @classmethod
    def debug(cls) -> "FaceDiffusion":
        """A tiny random one for tests."""
        return cls(
            DiffusionConfig(widths=(8, 16), attention=(False, True), heads=2, text=16, text_layers=1, mesh=4)
        ).eval()

    @classmethod
    def from_pretrained(cls, name_or_path: str) -> "FaceDiffusion":
        """Load the shipped model, or one from a directory or hub id."""
        return build_pretrained(cls, DiffusionConfig, name_or_path)

    def tokenize(self, prompt: str, voice: bool = False) -> Tokens:
        """Read a prompt; with ``voice``, places for pseudo-words come first."""
        return tokenize(prompt, PSEUDO_WORDS if voice else ())

    @property
    def pseudo_words(self) -> tuple[int, ...]:
        """Numbers of the pseudo-words."""
        return tuple(VOCABULARY.index(word) for word in PSEUDO_WORDS)

    def read(self, ids: Tensor) -> Tensor:
        """Meaning (B, LENGTH, C) of tokens (B, LENGTH)."""
        return self.text(self.text.embed(ids))

    def see(self, drawing: Tensor) -> Tensor:
        """Mesh channels (B, M, H/8, W/8) of drawings (B, 6, H/2, W/2)."""
        assert self.mesh is not None
        return self.mesh(drawing)

    def forward(
        self, noisy: Tensor, time: Tensor, meaning: Tensor, mesh: Tensor | None, **control: Any
    ) -> Tensor:
        """Velocity (B, 4, h, w).

        Args:
            noisy: (B, 4, h, w) latents on the way to noise.
            time: (B,) 0 for latents to 1 for noise.
            meaning: (B, LENGTH, C) from :meth:`read`.
            mesh: (B, M, h, w) from :meth:`see`; zeros show no mesh.
            control: residuals of adapters, as diffusers' U-Net takes them.
        """
        return self.unet(*self.inputs(noisy, time, mesh), meaning, return_dict=False, **control)[0]

    def inputs(self, noisy: Tensor, time: Tensor, mesh: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the U-Net takes: latents, mesh and mirrored latents, and the time as a step of a thousand."""
        parts = [noisy] if mesh is None else [noisy, mesh]
        if self.config.mirrored:
            parts.append(noisy.flip(-1))
        return torch.cat(parts, 1), time * 1000


def build_unet(config: DiffusionConfig) -> nn.Module:
    """A U-Net of diffusers."""
    from diffusers import UNet2DConditionModel

    kinds = ["CrossAttn" if attention else "" for attention in config.attention]
    unet = UNet2DConditionModel(
        sample_size=MESH_PIXELS // _PATCH,
        in_channels=config.inputs,
        out_channels=config.channels,
        layers_per_block=config.layers,
        block_out_channels=config.widths,
        down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
        up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
        cross_attention_dim=config.text,
        attention_head_dim=config.heads,
        norm_num_groups=min(32, config.widths[0]),
    )
    return cast(nn.Module, unet)
