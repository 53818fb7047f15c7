"""CCF's three adapters as they were trained for one base."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from talkface.diffusion.adapter import load_adapter
from talkface.diffusion.base import Base
from talkface.hub import COMPACT, find_pretrained
from talkface.systems.imagineid.ccf import (
    MaskBlendingAdapter,
    SpatialConditionalAdapter,
    TextualInversionAdapter,
)
from talkface.systems.imagineid.config import CcfConfig
from talkface.systems.imagineid.pad import Pad


@dataclass(frozen=True)
class Adapters:
    """TIA, SCA and MBA; None where a base has none."""

    tia: TextualInversionAdapter | None = None
    sca: SpatialConditionalAdapter | None = None
    mba: MaskBlendingAdapter | None = None

    @classmethod
    def from_pretrained(
        cls, base: Base, pad: Pad, name_or_path: str = COMPACT, device: str | torch.device = "cpu"
    ) -> "Adapters":
        """Load those that are shipped for a base, or lie in a directory as imagineid-tia and so on.

        Raises:
            ModelUnavailable: a directory is damaged, or an adapter was trained over other models.
        """
        built = {
            "tia": lambda config: TextualInversionAdapter(CcfConfig(**config), base.model.config.text),
            "sca": lambda _: SpatialConditionalAdapter(base.model.config),
            "mba": lambda _: MaskBlendingAdapter(base.autoencoder.config.decoder),
        }
        given = {"base": base.model, "autoencoder": base.autoencoder, "pad": pad.faces}
        found = {
            name: _load(name_or_path, f"imagineid-{name}", build, given) for name, build in built.items()
        }
        for adapter in found.values():
            if adapter is not None:
                adapter.to(device).requires_grad_(False).eval()
        return cls(**found)

    @classmethod
    def debug(cls, base: Base) -> "Adapters":
        """Random ones for tests, without TIA."""
        return cls(
            sca=SpatialConditionalAdapter(base.model.config, base.model).eval(),
            mba=MaskBlendingAdapter(base.autoencoder.config.decoder).eval(),
        )

    def complete(self) -> bool:
        """Whether frames can be drawn by diffusion."""
        return all(getattr(self, field.name) is not None for field in fields(self))


def _load(place: str, name: str, build: Any, given: Mapping[str, nn.Module]) -> Any:
    """An adapter, or None if there is none of that name."""
    source = find_pretrained(place, name)
    return load_adapter(source, build, given) if source else None
