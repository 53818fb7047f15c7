"""MVControlNet: one class for both stages (paper, Sec. 3).

A video diffusion branch, which is the face LDM's U-Net with attention over time, is given latent-type signals
(audio, lips, identity) by cross-attention; a control branch, a copy of its first half joined through zero
convolutions, sees video-type signals (masked context, drawings of landmarks).
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from talkface.diffusion.control import Residual, build_control, copy_encoder, residuals
from talkface.diffusion.model import FaceDiffusion, MeshDrawingEncoder
from talkface.diffusion.stable import StableDiffusion
from talkface.systems.tccp.config import SIGNAL_CHANNELS, MVControlNetConfig

_DRAWING_CHANNELS = 16  # of an encoded drawing, beside those of the maps
_REFERENCE = slice(5, 10)  # channels of the maps that show the reference, and whether there is one


@dataclass(frozen=True)
class VideoSignal:
    """A window's video-type signal.

    Attributes:
        drawing: (B, T, 6, H/2, W/2) landmarks as :func:`talkface.face.draw.draw_mesh` draws them; None in
            stage 1, which finds them.
        maps: (B, T, 15, h, w) at the latents' size: latents of the context, its mask (1 is hidden), latents
            of the reference and whether there is one, latents of frames that are known and whether they are.
    """

    drawing: Tensor | None
    maps: Tensor

    @classmethod
    def of(
        cls,
        context: Tensor,
        hidden: Tensor,
        drawing: Tensor | None = None,
        reference: Tensor | None = None,
        known: Tensor | None = None,
        given: Tensor | None = None,
    ) -> "VideoSignal":
        """Stack the parts.

        Args:
            context: (B, T, 4, h, w) latents of frames whose face was covered before they were encoded.
            hidden: (B, T, 1, h, w) 1 where it was covered.
            drawing: landmarks.
            reference: (B, T, 4, h, w) latents of the identity, moved to the landmarks.
            known: (B, T, 4, h, w) latents of finished frames.
            given: (B, T) 1 for frames that are known.
        """
        one, nothing = torch.ones_like(hidden), torch.zeros_like(hidden)
        seen = [torch.zeros_like(context), nothing] if reference is None else [reference, one]
        done = [torch.zeros_like(context), nothing]
        if known is not None and given is not None:
            flag = given[:, :, None, None, None] * one
            done = [known * flag, flag]
        return cls(drawing, torch.cat([context, hidden, *seen, *done], 2))

    def without_context(self) -> "VideoSignal":
        """The same, with all of the context hidden."""
        maps = self.maps.clone()
        maps[:, :, :4], maps[:, :, 4:5] = 0, 1
        return replace(self, maps=maps)

    def with_reference_shown(self, shown: Tensor) -> "VideoSignal":
        """The same, in which only windows with 1 in ``shown`` (B,) have a reference."""
        maps = self.maps.clone()
        maps[:, :, _REFERENCE] *= shown[:, None, None, None, None]
        return replace(self, maps=maps)

    def flat(self) -> "VideoSignal":
        """Frames (B T, ...) one after another."""
        drawing = None if self.drawing is None else self.drawing.flatten(0, 1)
        return VideoSignal(drawing, self.maps.flatten(0, 1))


class PortraitTokenEncoder(nn.Module):
    """Latents of portraits (B, N, 4, h, w) to tokens (B, 16, C) of the person's looks."""

    def __init__(self, channels: int, hidden: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, 2, 1),
            nn.SiLU(),
            nn.Conv2d(hidden, 2 * hidden, 3, 2, 1),
            nn.SiLU(),
            nn.Conv2d(2 * hidden, width, 3, 2, 1),
            nn.AdaptiveAvgPool2d(4),
        )
        self.places = nn.Parameter(torch.randn(16, width) * 0.02)

    def forward(self, portraits: Tensor) -> Tensor:
        """Tokens, the mean over N portraits."""
        cells: Tensor = self.layers(portraits.flatten(0, 1))
        tokens = cells.flatten(2).transpose(1, 2)
        each = tokens.reshape(*portraits.shape[:2], *tokens.shape[1:])
        return each.mean(1) + self.places


class FrameTokens(nn.Module):
    """Features around each frame (B, T, N, W) to as many tokens (B, T, N, C)."""

    def __init__(self, given: int, words: int, width: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.LayerNorm(given), nn.Linear(given, width))
        self.places = nn.Parameter(torch.randn(words, width) * 0.02)

    def forward(self, signal: Tensor) -> Tensor:
        """Tokens, each with an embedding of its place."""
        tokens: Tensor = self.project(signal)
        return tokens + self.places


class MVControlNet(nn.Module):
    """Predicts the velocity of a window's noisy latents.

    Of the base only the cross-attention is trained, and only what was trained is saved.

    Args:
        config: what the stage is conditioned on.
        base: the frozen LDM; copied.
    """

    def __init__(self, config: MVControlNetConfig, base: FaceDiffusion | StableDiffusion) -> None:
        super().__init__()
        self.config = config
        self._base = [deepcopy(base).requires_grad_(False)]  # in a list, so that it is not saved
        self._frames, self._joined = 1, torch.zeros(())
        own, unet = base.config, self.base.unet
        self.audio = FrameTokens(config.audio, config.words, own.text) if config.audio else None
        self.lips = FrameTokens(config.lips, config.words, own.text) if config.lips else None
        self.identity = PortraitTokenEncoder(own.channels, config.identity, own.text)
        self.mesh = MeshDrawingEncoder(_DRAWING_CHANNELS) if config.drawing else None
        seen = SIGNAL_CHANNELS + (_DRAWING_CHANNELS if config.drawing else 0)
        self.inlet = nn.Sequential(
            nn.Conv2d(seen, own.widths[0], 3, padding=1),
            nn.SiLU(),
            _zeroed(nn.Conv2d(own.widths[0], own.widths[0], 3, padding=1)),
        )
        self.branch: nn.Module | None = None
        if config.control:
            self.branch = build_control(own)
            copy_encoder(self.branch, unet)
        else:
            inlet = cast(nn.Module, unet.conv_in)  # attributes of modules are modules or tensors to mypy
            inlet.register_forward_hook(lambda _m, _i, out: out + self._joined)
        self.attention = nn.ModuleList(_cross_attention(unet))
        for attention in self.attention:
            attention.requires_grad_(True)
        self.over_time = nn.ModuleList(self._inflate(block) for block in _last_blocks(unet))

    @classmethod
    def from_pretrained(
        cls, base: FaceDiffusion | StableDiffusion, name_or_path: str = "tccp-video"
    ) -> "MVControlNet":
        """Load the shipped stage 2, or either stage from a directory or hub id, over its base."""
        from talkface.diffusion.adapter import load_adapter

        return load_adapter(
            name_or_path, lambda sizes: cls(MVControlNetConfig(**sizes), base), {"base": base}
        )

    @property
    def base(self) -> FaceDiffusion | StableDiffusion:
        """The LDM."""
        return self._base[0]

    def condition_tokens(
        self, portraits: Tensor, audio: Tensor | None = None, lips: Tensor | None = None, prompt: str = ""
    ) -> Tensor:
        """Tokens (B, T, L, C) of the latent-type signals.

        Args:
            portraits: (B, N, 4, h, w) latents of pictures of the person.
            audio: (B, T, words, W) content features around each frame.
            lips: (B, T, words, M) mouth coefficients around each frame.
            prompt: a caption for the base.
        """
        each = [part(given) for part, given in ((self.audio, audio), (self.lips, lips)) if part is not None]
        frames = each[0].shape[1]
        ids = torch.from_numpy(self.base.tokenize(prompt).ids)[None].to(portraits.device)
        same = [self.base.encode_text(ids).expand(len(portraits), -1, -1), self.identity(portraits)]
        return torch.cat([part[:, None].expand(-1, frames, -1, -1) for part in same] + each, 2)

    def forward(self, noisy: Tensor, time: Tensor, tokens: Tensor, signal: VideoSignal) -> Tensor:
        """Velocity (B, T, 4, h, w).

        Args:
            noisy: (B, T, 4, h, w) latents on the way to noise.
            time: (B,) 0 for latents to 1 for noise.
            tokens: (B, T, L, C) from :meth:`condition_tokens`.
            signal: the video-type signal.
        """
        shape = noisy.shape[:2]
        self._frames = shape[1]
        frames, signal = noisy.flatten(0, 1), signal.flat()
        each, text_embeddings = time.repeat_interleave(shape[1]), tokens.flatten(0, 1)
        seen = [signal.maps]
        if self.mesh is not None and signal.drawing is not None:
            seen.append(self.mesh(signal.drawing))
        joined, mesh = self.inlet(torch.cat(seen, 1)), self._seen_by_base(signal, frames)
        control: dict[str, Residual] = {}
        if self.branch is None:
            self._joined = joined
        else:
            given, step = self.base.inputs(frames, each, mesh)
            control = residuals(self.branch, given, step, text_embeddings, joined)
        velocity: Tensor = self.base(frames, each, text_embeddings, mesh, **control)
        return velocity.reshape(*shape, *velocity.shape[1:])

    def _seen_by_base(self, signal: VideoSignal, frames: Tensor) -> Tensor | None:
        """Mesh channels for the base, zero without a drawing; None for a base without a mesh encoder."""
        if not self.base.mesh:
            return None
        if signal.drawing is not None:
            return self.base.encode_mesh(signal.drawing)
        return frames.new_zeros(len(frames), self.base.config.mesh, *frames.shape[2:])

    def _inflate(self, block: nn.Module) -> nn.Module:
        """Attention over time behind a block of the U-Net; untrained, it changes nothing."""
        from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D

        width: int = cast(Any, block).out_channels  # diffusers' blocks have no types
        transformer_class: Any = AnimateDiffTransformer3D  # diffusers' constructors have no types
        layer: nn.Module = transformer_class(
            num_attention_heads=self.config.heads,
            attention_head_dim=width // self.config.heads,
            in_channels=width,
            norm_num_groups=min(32, width // 2),
            activation_fn="gelu",
            positional_embeddings="sinusoidal",
            num_positional_embeddings=self.config.frames,
        )
        _zeroed(layer.get_submodule("proj_out"))
        block.register_forward_hook(lambda _m, _i, out: layer(out, num_frames=self._frames))
        return layer


def _zeroed(layer: nn.Module) -> nn.Module:
    """The layer with all its weights zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _cross_attention(unet: nn.Module) -> Iterator[nn.Module]:
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            yield module


def _last_blocks(unet: nn.Module) -> Iterator[nn.Module]:
    """The last residual block at each size, on the way down, in the middle and up."""
    parts = cast(Any, unet)  # diffusers' U-Nets have no types
    for stage in (*parts.down_blocks, parts.mid_block, *parts.up_blocks):
        yield stage.resnets[-1]
