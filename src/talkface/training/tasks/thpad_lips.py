"""Trains further members of the lip path anew, beside a motion model that stays as it is.

The whole model trains long, for the heads and their codes; lips trained as long learn the speakers of half an
hour by heart. These members hear noisier features through more dropout, and for a few minutes only.
"""

import logging
from collections.abc import Iterator
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


@dataclass(frozen=True, kw_only=True)
class LipsTrainConfig:
    """Settings of the training of lips alone.

    Attributes:
        motion: settings of the motion model's training; ``window``, ``batch``, ``feature_noise`` and the like
            are used here as well.
        start: name or directory of the motion model.
        first: member from which on lips are trained anew.
        dropout: in these members.
    """

    motion: MotionTrainConfig = field(default_factory=MotionTrainConfig)
    start: str = "thpad-motion"
    first: int = 1
    dropout: float = 0.4


class LipsTask(MotionTask):
    """Distance from the tracked lips and correlation with them, of some members of the lip path."""

    Config = LipsTrainConfig  # type: ignore[assignment]

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
        for name in ("audio_encoder", "mlp_a2l", "lip_decoder"):
            own, new = getattr(self.model, name), getattr(fresh, name)
            for member in members:
                own[member] = new[member]
            self.modules[name] = nn.ModuleList(own[member] for member in members)

    def training_step(self, batch: dict[str, Tensor], optimizer_index: int, step: int) -> dict[str, Tensor]:
        """Losses of the members that are trained, each with its own."""
        content = batch["content"] + self.config.feature_noise * torch.randn_like(batch["content"])
        distance, correlation = torch.zeros(()), torch.zeros(())
        parts = zip(*(self.modules[n] for n in ("audio_encoder", "mlp_a2l", "lip_decoder")), strict=True)
        for encoder, a2l, decode in parts:
            far, apart = self.lip_loss(decode(a2l(encoder(content, batch["level"]))), batch["beta_mouth"])
            distance, correlation = distance + far, correlation + apart
        return {"loss": distance + self.config.correlation * correlation, "lips": distance.detach()}

    def validate(self) -> dict[str, float]:
        """Correlation of opening with the real one, by group of speakers; all members together."""
        self.model.eval()
        return super().validate()

    def samples(self) -> np.ndarray | None:
        """Nothing to look at."""
        return None

    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Write the motion model; its lips open as far as before on the training clips."""
        self.model.eval()
        self.model.lip_gain.mul_(self.spread / self._spread())
        logger.info("lip gain %.2f", float(self.model.lip_gain))
        config = {"class": "MotionModel", "model": asdict(self.model.config), "metrics": metrics}
        save_pretrained(directory, config | {"built_on": self.built_on}, self.model.state_dict(), card=None)

    def _spread(self) -> float:
        """Mean standard deviation of the opening over training clips as they are."""
        self.model.eval()
        readout = self.lip_loss.readout.cpu().numpy()[:, 0]
        return float(np.mean([(predict(self.model, clip) @ readout).std() for clip in self._plain()]))

    def _plain(self) -> Iterator:
        return iter(self.examples[:: self.config.variants])
