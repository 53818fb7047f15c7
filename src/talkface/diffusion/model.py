"""The face LDM's networks: text encoder, mesh encoder and U-Net (diffusers' classes)."""

from typing import Any

import torch
from torch import Tensor, nn

from talkface.diffusion.captions import CAPTION_LENGTH, PSEUDO_WORDS, VOCABULARY, Tokens, tokenize
from talkface.diffusion.config import DiffusionConfig
from talkface.diffusion.control import Residual
from talkface.face.draw import MESH_CHANNELS, MESH_PIXELS
from talkface.hub import build_pretrained
from talkface.nn.transformer import transformer

_PATCH = 4  # pixels of a mesh drawing that one latent covers, along each side


class TextEncoder(nn.Module):
    """Tokens of a caption to text embeddings."""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.words = nn.Embedding(len(VOCABULARY), config.text)
        self.places = nn.Parameter(torch.randn(CAPTION_LENGTH, config.text) * 0.02)
        nn.init.normal_(self.words.weight, std=0.3)
        self.body = transformer(config.text, heads=4, layers=config.text_layers)
        self.norm = nn.LayerNorm(config.text)

    def embed(self, ids: Tensor) -> Tensor:
        """Words (B, L, C) of tokens (B, L), before attention; L is CAPTION_LENGTH."""
        words: Tensor = self.words(ids)
        return words

    def forward(self, words: Tensor) -> Tensor:
        """Text embeddings (B, L, C) of words (B, L, C)."""
        embeddings: Tensor = self.norm(self.body(words + self.places))
        return embeddings


class MeshDrawingEncoder(nn.Module):
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
        """Channels (B, C, H/8, W/8) of drawings (B, 6, H/2, W/2)."""
        channels: Tensor = self.layers(drawing)
        return channels


class FaceDiffusion(nn.Module):
    """Predicts the velocity of noisy latents, given a caption and a drawing of a mesh.

    The path between latents x0 and noise e is straight, x_t = (1 - t) x0 + t e, and its velocity e - x0
    (flow matching; Lipman et al., 2023).
    """

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config
        self.text = TextEncoder(config)
        self.mesh = MeshDrawingEncoder(config.mesh) if config.mesh else None
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
        """Tokens of a prompt; with ``voice``, those of the pseudo-words come first."""
        return tokenize(prompt, PSEUDO_WORDS if voice else ())

    @property
    def pseudo_words(self) -> tuple[int, ...]:
        """Token ids of the pseudo-words."""
        return tuple(VOCABULARY.index(word) for word in PSEUDO_WORDS)

    def encode_text(self, ids: Tensor) -> Tensor:
        """Text embeddings (B, CAPTION_LENGTH, C) of tokens (B, CAPTION_LENGTH)."""
        embeddings: Tensor = self.text(self.text.embed(ids))
        return embeddings

    def encode_mesh(self, drawing: Tensor) -> Tensor:
        """Mesh channels (B, M, H/8, W/8) of drawings (B, 6, H/2, W/2)."""
        assert self.mesh is not None
        channels: Tensor = self.mesh(drawing)
        return channels

    def forward(
        self, noisy: Tensor, time: Tensor, text_embeddings: Tensor, mesh: Tensor | None, **control: Residual
    ) -> Tensor:
        """Velocity (B, 4, h, w).

        Args:
            noisy: (B, 4, h, w) latents on the way to noise.
            time: (B,) 0 for latents to 1 for noise.
            text_embeddings: (B, CAPTION_LENGTH, C) text embeddings from :meth:`encode_text`.
            mesh: (B, M, h, w) from :meth:`encode_mesh`; zeros show no mesh.
            control: residuals of adapters, as diffusers' U-Net takes them.
        """
        inputs = self.inputs(noisy, time, mesh)
        velocity: Tensor = self.unet(*inputs, text_embeddings, return_dict=False, **control)[0]
        return velocity

    def inputs(self, noisy: Tensor, time: Tensor, mesh: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the U-Net takes: latents, mesh and mirrored latents, and the time as one of 1000 steps."""
        parts = [noisy] if mesh is None else [noisy, mesh]
        if self.config.mirrored:
            parts.append(noisy.flip(-1))
        return torch.cat(parts, 1), time * 1000


def build_unet(config: DiffusionConfig) -> nn.Module:
    """A U-Net of diffusers."""
    from diffusers import UNet2DConditionModel

    kinds = ["CrossAttn" if attention else "" for attention in config.attention]
    unet_class: Any = UNet2DConditionModel  # diffusers' constructors have no types
    unet: nn.Module = unet_class(
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
    return unet
