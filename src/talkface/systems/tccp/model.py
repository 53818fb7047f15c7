"""MVControlNet: one class for both stages (paper, Sec. 3).

A video diffusion branch, which is the face LDM's U-Net with attention over time, is told latent-type signals
(audio, lips, identity) by cross-attention; a control branch, a copy of its first half joined through zero
convolutions, sees video-type signals (masked context, drawings of landmarks).
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from talkface.diffusion.control import build_control
from talkface.diffusion.model import FaceDiffusion, MeshEncoder
from talkface.diffusion.stable import StableDiffusion
from talkface.systems.tccp.config import PLANES, MVControlNetConfig

_DRAWN = 16  # channels of a drawing beside the planes


@dataclass(frozen=True)
class Signal:
    """A window's video-type signal.

    Attributes:
        drawing: (B, T, 6, H/2, W/2) landmarks as :func:`talkface.face.draw.draw_mesh` draws them; None where
            they are to be found.
        planes: (B, T, 15, h, w) at the latents' size: latents of the context, its mask (1 is hidden), latents
            of the reference and whether there is one, latents of frames that are known and whether they are.
    """

    drawing: Tensor | None
    planes: Tensor

    @classmethod
    def of(
        cls,
        context: Tensor,
        hidden: Tensor,
        drawing: Tensor | None = None,
        reference: Tensor | None = None,
        known: Tensor | None = None,
        given: Tensor | None = None,
    ) -> "Signal":
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

    def without_context(self) -> "Signal":
        """The same, with all of the context hidden."""
        planes = self.planes.clone()
        planes[:, :, :4], planes[:, :, 4:5] = 0, 1
        return replace(self, planes=planes)

    def flat(self) -> "Signal":
        """Frames (B T, ...) one after another."""
        return Signal(None if self.drawing is None else self.drawing.flatten(0, 1), self.planes.flatten(0, 1))


class IdentityEncoder(nn.Module):
    """Latents of portraits (B, N, 4, 32, 32) to tokens (B, 16, C): what a person looks like."""

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
        tokens = self.layers(portraits.flatten(0, 1)).flatten(2).transpose(1, 2)
        return tokens.unflatten(0, portraits.shape[:2]).mean(1) + self.places


class FrameTokens(nn.Module):
    """What is said around a frame (B, T, N, W) to as many tokens (B, T, N, C)."""

    def __init__(self, given: int, words: int, width: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.LayerNorm(given), nn.Linear(given, width))
        self.places = nn.Parameter(torch.randn(words, width) * 0.02)

    def forward(self, signal: Tensor) -> Tensor:
        return self.project(signal) + self.places


class MVControlNet(nn.Module):
    """Predicts the velocity of a window's noisy latents.

    The base stays as it is, its cross-attention apart, of which this network has its own; so only what was
    trained is saved.

    Args:
        config: what the stage is conditioned on.
        base: the LDM it stands on; copied.
    """

    def __init__(self, config: MVControlNetConfig, base: FaceDiffusion | StableDiffusion) -> None:
        super().__init__()
        self.config = config
        self._base = [deepcopy(base).requires_grad_(False)]  # in a list: not a part of what is saved
        self._frames, self._joined = 1, torch.zeros(())
        own, unet = base.config, self.base.unet
        self.audio = FrameTokens(config.audio, config.words, own.text) if config.audio else None
        self.lips = FrameTokens(config.lips, config.words, own.text) if config.lips else None
        self.identity = IdentityEncoder(own.channels, config.identity, own.text)
        self.mesh = MeshEncoder(_DRAWN) if config.drawing else None
        seen = PLANES + (_DRAWN if config.drawing else 0)
        self.inlet = nn.Sequential(
            nn.Conv2d(seen, own.widths[0], 3, padding=1),
            nn.SiLU(),
            _silent(nn.Conv2d(own.widths[0], own.widths[0], 3, padding=1)),
        )
        self.branch: nn.Module | None = None
        if config.control:
            self.branch = build_control(own)
            copied = {k: v for k, v in unet.state_dict().items() if k in self.branch.state_dict()}
            self.branch.load_state_dict(copied, strict=False)
        else:
            cast(nn.Module, unet.conv_in).register_forward_hook(lambda _m, _i, out: out + self._joined)
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

    def tell(
        self, portraits: Tensor, audio: Tensor | None = None, lips: Tensor | None = None, prompt: str = ""
    ) -> Tensor:
        """Tokens (B, T, L, C) of the latent-type signals.

        Args:
            portraits: (B, N, 4, h, w) latents of pictures of the person.
            audio: (B, T, words, W) content features around each frame.
            lips: (B, T, words, M) mouth coefficients around each frame.
            prompt: for the base's own words.
        """
        each = [part(given) for part, given in ((self.audio, audio), (self.lips, lips)) if part is not None]
        frames = each[0].shape[1]
        ids = torch.from_numpy(self.base.tokenize(prompt).ids)[None].to(portraits.device)
        same = [self.base.read(ids).expand(len(portraits), -1, -1), self.identity(portraits)]
        return torch.cat([part[:, None].expand(-1, frames, -1, -1) for part in same] + each, 2)

    def forward(self, noisy: Tensor, time: Tensor, tokens: Tensor, signal: Signal) -> Tensor:
        """Velocity (B, T, 4, h, w).

        Args:
            noisy: (B, T, 4, h, w) latents on the way to noise.
            time: (B,) 0 for latents to 1 for noise.
            tokens: (B, T, L, C) from :meth:`tell`.
            signal: the video-type signal.
        """
        shape = noisy.shape[:2]
        self._frames = shape[1]
        frames, signal = noisy.flatten(0, 1), signal.flat()
        each, meaning = time.repeat_interleave(shape[1]), tokens.flatten(0, 1)
        seen = [signal.planes]
        if self.mesh is not None and signal.drawing is not None:
            seen.append(self.mesh(signal.drawing))
        joined, mesh = self.inlet(torch.cat(seen, 1)), self._seen_by_base(signal, frames)
        control: dict[str, Any] = {}
        if self.branch is None:
            self._joined = joined
        else:
            given, step = self.base.inputs(frames, each, mesh)
            down, middle = self.branch(given, step, meaning, joined, return_dict=False)
            control = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        return self.base(frames, each, meaning, mesh, **control).unflatten(0, shape)

    def _seen_by_base(self, signal: Signal, frames: Tensor) -> Tensor | None:
        """The mesh as the base sees it; nothing where there is none."""
        if not self.base.mesh:
            return None
        if signal.drawing is not None:
            return self.base.see(signal.drawing)
        return frames.new_zeros(len(frames), self.base.config.mesh, *frames.shape[2:])

    def _inflate(self, block: nn.Module) -> nn.Module:
        """Attention over time behind a block of the U-Net, without effect at first."""
        from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D

        width = cast(int, cast(Any, block).out_channels)
        layer: Any = AnimateDiffTransformer3D(
            num_attention_heads=self.config.heads,
            attention_head_dim=width // self.config.heads,
            in_channels=width,
            norm_num_groups=min(32, width // 2),
            activation_fn="gelu",
            positional_embeddings="sinusoidal",
            num_positional_embeddings=self.config.frames,
        )
        _silent(layer.proj_out)
        block.register_forward_hook(lambda _m, _i, out: layer(out, num_frames=self._frames))
        return cast(nn.Module, layer)


def _silent(layer: nn.Module) -> nn.Module:
    """A layer that gives zeros until it is trained."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _cross_attention(unet: nn.Module) -> Iterator[nn.Module]:
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            yield module


def _last_blocks(unet: Any) -> Iterator[nn.Module]:
    """The last residual block at each size, on the way down, in the middle and up."""
    for stage in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        yield stage.resnets[-1]
