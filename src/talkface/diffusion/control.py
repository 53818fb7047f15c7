"""Control branches over the face LDM (ControlNet; Zhang et al., 2023): shared by SCA and MVControlNet."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from talkface.diffusion.config import DiffusionConfig

Residual = Tensor | Sequence[Tensor]
"""What is added to features of the U-Net, either in its middle or behind each block of its first half."""


def build_control(config: DiffusionConfig) -> nn.Module:
    """A ControlNet of diffusers that is given its condition as features, not as a picture."""
    from diffusers import ControlNetModel

    kinds = ["CrossAttn" if attention else "" for attention in config.attention]
    control_class: Any = ControlNetModel  # diffusers' constructors have no types
    control: nn.Module = control_class(
        in_channels=config.inputs,
        layers_per_block=config.layers,
        block_out_channels=config.widths,
        down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
        cross_attention_dim=config.text,
        attention_head_dim=config.heads,
        norm_num_groups=min(32, config.widths[0]),
        conditioning_embedding_out_channels=(16, 32),
    )
    control.controlnet_cond_embedding = nn.Identity()
    return control


def copy_encoder(control: nn.Module, unet: nn.Module) -> None:
    """Begin a control branch with the weights of the U-Net's first half."""
    own = control.state_dict()
    shared = {name: tensor for name, tensor in unet.state_dict().items() if name in own}
    control.load_state_dict(shared, strict=False)


def residuals(
    control: nn.Module, latents: Tensor, step: Tensor, text_embeddings: Tensor, condition: Tensor
) -> dict[str, Residual]:
    """What a control branch adds to the U-Net, as the arguments that diffusers' U-Net takes.

    Args:
        control: from :func:`build_control`.
        latents: (B, C, h, w) the U-Net's input.
        step: (B,) of its schedule.
        text_embeddings: (B, L, C) text embeddings.
        condition: (B, W, h, w) features.
    """
    down, middle = control(latents, step, text_embeddings, condition, return_dict=False)
    return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
