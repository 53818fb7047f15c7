"""A control branch over the face LDM (ControlNet): shared by SCA and MVControlNet."""

from typing import Any, cast

from torch import nn

from talkface.diffusion.config import DiffusionConfig


def build_control(config: DiffusionConfig) -> nn.Module:
    """A ControlNet of diffusers whose hint is given as features."""
    from diffusers import ControlNetModel

    kinds = ["CrossAttn" if attention else "" for attention in config.attention]
    control: Any = ControlNetModel(
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
    return cast(nn.Module, control)
