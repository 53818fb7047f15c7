"""Trains PAD's stages all at once: an ablation of the progressive training."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from talkface.training.tasks.imagineid_content import ContentTask
from talkface.training.tasks.imagineid_emotion import EmotionTask
from talkface.training.tasks.imagineid_identity import IdentityTask
from talkface.training.tasks.imagineid_pad import PadTask, PadTrainConfig


class JointTask(PadTask):
    """All stages at once, with gradients of every loss in all of them."""

    stage = "joint"
    metric, mode = "val_joint", "max"

    def __init__(self, config: PadTrainConfig, data: Path, seed: int = 0, device: str = "cpu") -> None:
        super().__init__(config, data, seed, device)
        for part in self.parts:
            part.joint = True
            self.modules |= part.modules
        for module in self.modules.values():  # each part has frozen those before it
            module.requires_grad_(True)

    def read_data(self, generator: np.random.Generator) -> None:
        """What each of the stages is trained on."""
        given = self.config, self.manifest.directory, int(generator.integers(2**31)), str(self.device)
        kinds = (IdentityTask, ContentTask, EmotionTask)
        self.parts: list[PadTask] = [kind(*given, pad=self.pad) for kind in kinds]

    def trained(self) -> dict[str, nn.Module]:
        """Nothing of its own: the parts bring their modules."""
        return {}

    def batches(self, generator: np.random.Generator) -> Iterator[tuple[Any, ...]]:
        """Endless batches of all parts."""
        yield from zip(*(part.batches(generator) for part in self.parts), strict=True)

    def training_step(self, batch: tuple[Any, ...], optimizer_index: int, step: int) -> dict[str, Tensor]:
        """The sum of the stages' losses."""
        losses = [
            part.training_step(own, optimizer_index, step)["loss"]
            for part, own in zip(self.parts, batch, strict=True)
        ]
        return {"loss": torch.stack(losses).sum()}

    def validate(self) -> dict[str, float]:
        """The stages' scores, and the sum of what each is chosen by."""
        found: dict[str, float] = {}
        for part in self.parts:
            part.pad.eval()
            found |= part.validate()
        return {"val_joint": sum(found[part.metric] for part in self.parts), **found}
