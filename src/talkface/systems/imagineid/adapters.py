"""CCF's three adapters for one base."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

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

Adapter = TypeVar("Adapter", bound=nn.Module)


@dataclass(frozen=True)
class Adapters:
    """TIA, SCA and MBA; None where a base has none."""

    tia: TextualInversionAdapter | None = None
    sca: SpatialConditionalAdapter | None = None
    mba: MaskBlendingAdapter | None = None

    @classmethod
    def from_pretrained(
        cls,
        base: Base,
        pad: Pad,
        places: Sequence[str] = (COMPACT,),
        device: str | torch.device = "cpu",
    ) -> "Adapters":
        """Load those that are shipped for a base, or lie in a directory as imagineid-tia and so on.

        Each is taken from the first of the ``places`` that has it.

        Raises:
            ModelUnavailable: a directory is damaged, or an adapter was trained over other models.
        """
        given = {"base": base.model, "autoencoder": base.autoencoder, "pad": pad.faces}

        def load(name: str, build: Callable[[Any], Adapter]) -> Adapter | None:
            found = [source for place in places if (source := find_pretrained(place, name))]
            if not found:
                return None
            source = found[0]
            return load_adapter(source, build, given).to(device).requires_grad_(False).eval()

        text, widths = base.model.config.text, base.autoencoder.config.decoder
        return cls(
            tia=load("imagineid-tia", lambda sizes: TextualInversionAdapter(CcfConfig(**sizes), text)),
            sca=load("imagineid-sca", lambda _: SpatialConditionalAdapter(base.model.config)),
            mba=load("imagineid-mba", lambda _: MaskBlendingAdapter(widths)),
        )

    @classmethod
    def debug(cls, base: Base, pad: Pad) -> "Adapters":
        """Random ones for tests."""
        semantic, emotion = pad.config.semantic, pad.config.emotion
        sizes = CcfConfig(semantic=semantic, emotion=emotion, hidden=16)
        return cls(
            tia=TextualInversionAdapter(sizes, base.model.config.text).eval(),
            sca=SpatialConditionalAdapter(base.model.config, base.model).eval(),
            mba=MaskBlendingAdapter(base.autoencoder.config.decoder).eval(),
        )

    def complete(self) -> bool:
        """Whether frames can be drawn by diffusion."""
        return all(getattr(self, field.name) is not None for field in fields(self))
