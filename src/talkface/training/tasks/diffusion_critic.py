"""Trains the critic to tell good drawings of LDM and restorer from bad ones, and from mixed eyes.

A draft from a low noise level keeps the photograph's eyes and mouth, one from a high level does not; the
restorer gives both the same texture. Photographs themselves are no examples of good drawings: the critic
would recognise them by their texture. Mixed eyes are one of a person and one of somebody else.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from scipy.stats import mannwhitneyu
from torch import Tensor
from torch.nn import functional as F

from talkface.data.faces import Portrait
from talkface.diffusion.base import Base
from talkface.diffusion.critic import CriticConfig, PortraitCritic, PortraitViews
from talkface.errors import InvalidOption, ModelUnavailable
from talkface.face.draw import draw_mesh
from talkface.face.portrait import PORTRAIT_PIXELS
from talkface.hub import save_pretrained
from talkface.media.prefetch import prefetched
from talkface.training import Task
from talkface.training.datasets.drafts import Drafts, DraftSettings, DraftSplits, varied_one

_VALIDATION_SCALE = 0.6  # of full size, at which portraits are shown in validation


@dataclass(frozen=True, kw_only=True)
class CriticTrainConfig(DraftSettings):
    """Settings of the critic's training, which uses the restorer's drafts again; the base has a restorer.

    Attributes:
        sound: noise level up to which restored drafts are examples of good drawings; 0 takes photographs
            themselves.
        spoilt: noise level from which they are examples of bad ones.
        batch: good portraits a step, and as many bad ones.
        model: sizes.
        coarsest: smallest scale, of full size, at which pictures are shown.
        grain: largest standard deviation of noise on them; their values are 0 to 1.
        mixed: weight of the loss of mixed eyes.
    """

    sound: float = 0.55
    spoilt: float = 0.8
    batch: int = 24
    model: CriticConfig = field(default_factory=CriticConfig)
    coarsest: float = 0.3
    grain: float = 0.04
    mixed: float = 0.5
    held_out: int = 96


class CriticTask(Task[CriticTrainConfig]):
    """Logistic regression with two small networks, one for eyes and one for the mouth.

    The network of the eyes learns to tell mixed pairs from real ones, too.
    """

    metric, mode = "val_auc", "max"

    def prepare(self, data: Path, seed: int) -> None:
        """Draw drafts, restore them, and cut eyes and mouths out of them."""
        config = self.config
        splits = DraftSplits.of(config, data, seed, self.device)
        if splits.base.restorer is None:
            raise ModelUnavailable(f"the base {splits.base.name} has no face-restorer; train one first")
        self.warp, time = splits.warp, splits.drafts.time
        sets = [splits.clear & (time <= config.sound), splits.clear & (time >= config.spoilt)]
        if (config.sound and not sets[0].any()) or not sets[1].any():
            raise InvalidOption(
                f"no drafts up to time {config.sound:g} or from {config.spoilt:g} on: raise config.drafts"
            )
        chosen = [(splits.drafts, np.flatnonzero(some)) for some in sets]
        self.examples = self._views(splits.base, splits.album, chosen)
        everyone = np.arange(len(splits.held_out))
        self.unseen = self._views(splits.base, splits.held_out, [(each, everyone) for each in splits.unseen])
        torch.manual_seed(seed)
        self.critic = PortraitCritic(config.model).to(self.device)
        self.modules = {"critic": self.critic}

    # -- data --------------------------------------------------------------------------------------

    def _views(
        self, base: Base, album: list[Portrait], sets: list[tuple[Drafts, np.ndarray]]
    ) -> tuple[PortraitViews, PortraitViews]:
        """PortraitViews of good and of bad portraits, uint8 to fit in memory."""
        sound, spoilt = (
            [_small(self._restored(base, album, drafts, int(index))) for index in chosen]
            for drafts, chosen in sets
        )
        if not self.config.sound:
            drafts, chosen = sets[1]
            sound = [_small(self._restored(None, album, drafts, int(index))) for index in chosen]
        return _joined(sound), _joined(spoilt)

    @torch.inference_mode()
    def _restored(
        self, base: Base | None, album: list[Portrait], drafts: Drafts, index: int
    ) -> PortraitViews:
        """Views of a draft that a base restores; with no base, of its photograph."""
        image, points = varied_one(album[drafts.portrait[index]], drafts.variant[index])
        if base is not None:
            drawing = torch.from_numpy(draw_mesh(self.warp, points, PORTRAIT_PIXELS))[None].to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16):
                image = base.restore(drafts.image(index), points, drawing)
        return PortraitViews.of([image], [points], "cpu")

    def batches(
        self, generator: np.random.Generator
    ) -> Iterator[tuple[PortraitViews, PortraitViews, Tensor]]:
        """Endless batches: good portraits, bad ones, and mixed pairs of eyes (B, 6, 64, 64)."""
        sound, spoilt = self.examples

        def draw() -> Iterator[tuple[PortraitViews, PortraitViews, Tensor]]:
            while True:
                size = float(generator.uniform(self.config.coarsest, 1.2))
                grain = float(generator.uniform(0, self.config.grain))
                shown = []
                for views in (sound, spoilt):
                    chosen = generator.choice(len(views.eyes), self.config.batch)
                    coarse = _picked(views, chosen, self.device).at_scale(size)
                    shown.append(_varied(coarse, grain, generator))
                yield shown[0], shown[1], _mixed(shown[0].eyes)

        yield from prefetched(draw())

    # -- losses ------------------------------------------------------------------------------------

    def training_step(
        self, batch: tuple[PortraitViews, PortraitViews, Tensor], optimizer_index: int, step: int
    ) -> dict[str, Tensor]:
        """Binary cross-entropy of each part."""
        sound, spoilt, mixed = batch
        yes, no = F.softplus(-self.critic(sound)).mean(0), F.softplus(self.critic(spoilt)).mean(0)
        strange = F.softplus(self.critic.eyes(mixed)).mean()
        names = "eyes", "mouth"
        parts = {name: value.detach() for name, value in zip(names, yes + no, strict=True)}
        loss = (yes + no).sum() + self.config.mixed * strange
        return {"loss": loss, "mixed": strange.detach(), **parts}

    # -- validation --------------------------------------------------------------------------------

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Area under the ROC curve on held-out people: good portraits against bad ones, and mixed eyes."""
        everyone = np.arange(len(self.unseen[0].eyes))
        sound, spoilt = (
            _picked(views, everyone, self.device).at_scale(_VALIDATION_SCALE) for views in self.unseen
        )
        yes, no = self.critic(sound).cpu().numpy(), self.critic(spoilt).cpu().numpy()
        strange = self.critic.eyes(_mixed(sound.eyes)).cpu().numpy()
        found = {"val_auc": _area(yes.sum(1), no.sum(1)), "val_auc_mixed": _area(yes[:, 0], strange)}
        names = "eyes", "mouth"
        return found | {f"val_auc_{name}": _area(yes[:, k], no[:, k]) for k, name in enumerate(names)}

    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Write the model as the hub reads it."""
        config = {"class": "PortraitCritic", "model": asdict(self.config.model), "metrics": metrics}
        save_pretrained(directory, config, self.critic.state_dict(), card=None)


def _small(views: PortraitViews) -> PortraitViews:
    return PortraitViews(*((view * 255).round().byte() for view in views))


def _joined(views: list[PortraitViews]) -> PortraitViews:
    return PortraitViews(*(torch.cat(part) for part in zip(*views, strict=True)))


def _picked(views: PortraitViews, rows: np.ndarray, device: torch.device) -> PortraitViews:
    return PortraitViews(*(view[torch.from_numpy(rows)].to(device).float() / 255 for view in views))


def _varied(views: PortraitViews, grain: float, generator: np.random.Generator) -> PortraitViews:
    """Mirrored or not, in other light, with grain."""
    count = len(views.eyes)
    flip = torch.from_numpy(generator.random(count) < 0.5).to(views.eyes.device)[:, None, None, None]
    light = torch.from_numpy(generator.normal(0, 0.06, (count, 1, 1, 1))).to(views.eyes)
    swapped = torch.cat([views.eyes[:, 3:], views.eyes[:, :3]], 1)
    turned = swapped, views.mouth.flip(-1)
    out = []
    for plain, mirrored in zip(views, turned, strict=True):
        noise = torch.from_numpy(generator.standard_normal(plain.shape, np.float32)).to(plain)
        out.append(torch.where(flip, mirrored, plain) + light + grain * noise)
    return PortraitViews(*out)


def _mixed(eyes: Tensor) -> Tensor:
    """One eye of a person and one of the next person in the batch, in the first one's colours."""
    own, other = eyes[:, :3], eyes[:, 3:].roll(1, 0)
    mean, spread = (f(own.flatten(2), -1)[..., None, None] for f in (torch.mean, torch.std))
    middle, width = (f(other.flatten(2), -1)[..., None, None] for f in (torch.mean, torch.std))
    return torch.cat([own, (other - middle) / (width + 1e-3) * spread + mean], 1)


def _area(high: np.ndarray, low: np.ndarray) -> float:
    """Area under the ROC curve: how often one of ``high`` is above one of ``low``."""
    return float(mannwhitneyu(high, low).statistic / (len(high) * len(low)))
