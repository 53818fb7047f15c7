"""Trains members of the lip path anew; the rest of the motion model stays as it is.

The whole model is trained for long, which its heads and codes need. Lips that are trained as long overfit the
speakers of half an hour of video; these members are trained for a few minutes, with noisier features and more
dropout.
"""

import logging
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from talkface.hub import save_pretrained
from talkface.nn.marks import check_built_on
from talkface.performance.model import MotionModel
from talkface.training.tasks.thpad_motion import MotionTask, MotionTrainConfig, predict

logger = logging.getLogger(__name__)

_MEMBER_MODULES = ("audio_encoder", "mlp_a2l", "lip_decoder")
"""Modules of a motion model that hold one entry a member."""


@dataclass(frozen=True, kw_only=True)
class LipsTrainConfig:
    """Settings of the training of lips alone.

    Attributes:
        motion: settings of the motion model's training; ``window``, ``batch``, ``feature_noise`` and others
            hold here as well.
        start: name or directory of the motion model.
        first: the first member that is trained anew; those before it stay.
        dropout: in the new members.
    """

    motion: MotionTrainConfig = field(default_factory=MotionTrainConfig)
    start: str = "thpad-motion"
    first: int = 1
    dropout: float = 0.4


class LipsTask(MotionTask):
    """Distance from the tracked lips and correlation with them, of some members of the lip path."""

    Config = LipsTrainConfig

    def __init__(self, config: LipsTrainConfig, data: Path, seed: int = 0, device: str = "cpu") -> None:
        before = MotionModel.from_pretrained(config.start)
        super().__init__(replace(config.motion, model=before.config), data, seed, device)
        check_built_on(config.start, self.built_on)
        torch.manual_seed(seed)
        fresh = MotionModel(replace(before.config, dropout=config.dropout)).to(self.device)
        self.model.load_state_dict(before.state_dict())
        self.spread = self._spread()
        self.model.requires_grad_(False)
        members = range(config.first, before.config.members)
        self.modules = {}
        for name in _MEMBER_MODULES:
            own, new = getattr(self.model, name), getattr(fresh, name)
            for member in members:
                own[member] = new[member]
            self.modules[name] = nn.ModuleList(own[member] for member in members)

    def training_step(self, batch: dict[str, Tensor], optimizer_index: int, step: int) -> dict[str, Tensor]:
        """Sum of the losses of the members that are trained."""
        content = batch["content"] + self.config.feature_noise * torch.randn_like(batch["content"])
        distance, correlation = torch.zeros(()), torch.zeros(())
        members = zip(*(self.modules[name] for name in _MEMBER_MODULES), strict=True)
        for encoder, a2l, decode in members:
            far, apart = self.lip_loss(decode(a2l(encoder(content, batch["level"]))), batch["beta_mouth"])
            distance, correlation = distance + far, correlation + apart
        return {"loss": distance + self.config.correlation * correlation, "lips": distance.detach()}

    def validate(self) -> dict[str, float]:
        """Correlation of the opening with the real one, by group of speakers; all members averaged."""
        self.model.eval()
        return super().validate()

    def samples(self) -> np.ndarray | None:
        """Nothing to look at."""
        return None

    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Write the motion model, scaled so that lips open as far as before on training clips."""
        self.model.eval()
        self.model.lip_gain.mul_(self.spread / self._spread())
        logger.info("lip gain %.2f", float(self.model.lip_gain))
        config = {"class": "MotionModel", "model": asdict(self.model.config), "metrics": metrics}
        save_pretrained(directory, config | {"built_on": self.built_on}, self.model.state_dict(), card=None)

    def _spread(self) -> float:
        """Mean standard deviation over time of the lips' opening on unaugmented training clips."""
        self.model.eval()
        readout = self.lip_loss.readout.cpu().numpy()[:, 0]
        unaugmented = self.examples[:: self.config.variants]
        return float(np.mean([(predict(self.model, clip) @ readout).std() for clip in unaugmented]))
