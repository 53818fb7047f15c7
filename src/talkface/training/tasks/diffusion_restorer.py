"""Trains the restorer on drafts: reconstruction where a draft still shows its photograph, and PatchGANs."""

from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from talkface.data.attributes import FaceRes
from talkface.data.faces import Portrait
from talkface.diffusion.critic import CriticConfig, PortraitCritic, at_scale
from talkface.diffusion.restorer import FaceRestorer, RestorerConfig
from talkface.face.crop import RIGHT_EYE_REGION, FaceRegion, region_matrix
from talkface.face.draw import draw_mesh
from talkface.face.portrait import PORTRAIT_PIXELS
from talkface.face.texture import FaceTexture
from talkface.hub import save_pretrained
from talkface.media.prefetch import prefetched
from talkface.nn.adversarial import hinge_discriminator, hinge_generator
from talkface.nn.picture import cut_out, detail, gradient_loss, pictures, weighted_l1
from talkface.training import OptimizerSpec, Task
from talkface.training.datasets.drafts import (
    VALIDATION_NOISE,
    Drafts,
    DraftSettings,
    DraftSplits,
    varied_one,
)
from talkface.training.perceptual import DISCRIMINATED_PARTS, FEATURE_LAYERS, PortraitDiscriminators

_REMEMBERED = 16  # batches that the discriminators may see again


@dataclass(frozen=True, kw_only=True)
class RestorerTrainConfig(DraftSettings):
    """Settings of the restorer's training.

    Attributes:
        model: sizes.
        faithful: noise levels between which the weight of reconstruction falls from 1 to ``stranger``, as
            drafts lose their photograph.
        stranger: weight of reconstruction above them.
        batch: drafts a step.
        noisy: power of a draft's noise level with which it is drawn more often.
        face: how much more the face counts than what is around it.
        crop: side in pixels of the crop that a step is shown, centred from left to right.
        gradient, tone, perceptual, adversarial: weights of the losses beside the L1 distance.
        layers: of FaceRes, whose features pictures are compared and judged by; none for neither.
        critic: name or directory of the critic whose weights the discriminators of eyes and mouth begin
            with; empty for random ones.
        texture: name or directory of the model that finds the plausible faces behind drafts.
        discriminator_width: of the discriminators of features.
        coarsest: smallest scale, of full size, at which eyes and mouth are shown to them.
    """

    model: RestorerConfig = field(default_factory=RestorerConfig)
    faithful: tuple[float, float] = (0.55, 0.9)
    stranger: float = 0.08
    batch: int = 8
    noisy: float = 1.0
    face: float = 2.0
    crop: int = 192
    gradient: float = 0.5
    tone: float = 0.5
    perceptual: float = 0.25
    adversarial: float = 0.035
    layers: tuple[int, ...] = FEATURE_LAYERS
    critic: str = "portrait-critic"
    texture: str = "face-texture"
    discriminator_width: int = 32
    coarsest: float = 0.4


class JudgedViews(NamedTuple):
    """What the discriminators are shown of pictures: features, eyes and mouth."""

    seen: list[Tensor]
    eyes: Tensor
    mouth: Tensor


class RestorerTask(Task[RestorerTrainConfig]):
    """As GFPGAN, without its generative prior: reconstruction, discriminators of the whole and of parts."""

    metric, mode = "val_quality", "max"

    def prepare(self, data: Path, seed: int) -> None:
        """Draw drafts, and build restorer and discriminators."""
        config = self.config
        self.data = DraftSplits.of(config, data, seed, self.device)
        self.texture = FaceTexture.from_pretrained(config.texture, config.face_model)
        torch.manual_seed(seed)
        self.restorer = FaceRestorer(config.model).to(self.device)
        critic = (
            PortraitCritic.from_pretrained(config.critic) if config.critic else PortraitCritic(CriticConfig())
        )
        discriminators = PortraitDiscriminators(critic, config.discriminator_width, config.layers)
        self.discriminators = discriminators.to(self.device)
        for module in (self.restorer, self.discriminators):
            # The memory format is missing in the types of Module.to.
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # "judges" is the name in checkpoints.
        self.modules = {"restorer": self.restorer, "judges": self.discriminators}
        self.drawn: deque[tuple[JudgedViews, JudgedViews]] = deque(maxlen=_REMEMBERED)

    def optimizers_spec(self) -> list[OptimizerSpec]:
        """The restorer's and the discriminators' optimizers."""
        return [OptimizerSpec(modules=("restorer",)), OptimizerSpec(modules=("judges",), lr=2.0)]

    @cached_property
    def look(self) -> FaceRes:
        """Describes faces, to compare them."""
        return FaceRes()

    # -- data --------------------------------------------------------------------------------------

    def batches(self, generator: np.random.Generator) -> Iterator[dict[str, Tensor]]:
        """Endless batches: drafts, photographs (B, 3, H, W), drawings, matrices of parts, and "trust" (B,).

        The last is the weight of reconstruction.
        """
        clear = np.flatnonzero(self.data.clear)
        share = self.data.drafts.time[clear] ** self.config.noisy
        share /= share.sum()

        def draw() -> Iterator[dict[str, Tensor]]:
            while True:
                chosen = generator.choice(clear, self.config.batch, replace=False, p=share)
                rows = [self._row(self.data.album, self.data.drafts, int(k)) for k in chosen]
                yield self._batch([self._cropped(row, generator) for row in rows])

        yield from prefetched(draw())

    def _row(self, album: list[Portrait], drafts: Drafts, index: int) -> dict[str, np.ndarray]:
        image, points = varied_one(album[drafts.portrait[index]], drafts.variant[index])
        row = {"draft": self.texture.plausible(drafts.image(index), points), "photograph": image}
        row["drawing"] = draw_mesh(self.data.warp, points, PORTRAIT_PIXELS)
        row |= {part.name: matrix_of(points, part) for part in DISCRIMINATED_PARTS}
        low, high = self.config.faithful
        lost = np.clip((drafts.time[index] - low) / (high - low), 0, 1)
        row["trust"] = np.array(1 - (1 - self.config.stranger) * lost, np.float32)
        return row

    def _cropped(self, row: dict[str, np.ndarray], generator: np.random.Generator) -> dict[str, np.ndarray]:
        """A row's crop, centred from left to right, so that the crop of a mirrored picture is mirrored."""
        side = self.config.crop
        left, top = (
            (PORTRAIT_PIXELS - side) // 2,
            int(generator.integers((PORTRAIT_PIXELS - side) // 2 + 1)) * 2,
        )
        place = slice(top, top + side), slice(left, left + side)
        half = slice(top // 2, (top + side) // 2), slice(left // 2, (left + side) // 2)
        out = row | {name: row[name][place] for name in ("draft", "photograph")}
        out["drawing"] = row["drawing"][:, half[0], half[1]]
        shift = np.array([[0, 0, left], [0, 0, top]], np.float32)
        return out | {part.name: row[part.name] - shift for part in DISCRIMINATED_PARTS}

    def _batch(self, rows: list[dict[str, np.ndarray]]) -> dict[str, Tensor]:
        images = {"draft", "photograph"}
        batch = {name: pictures([row[name] for row in rows], self.device) for name in images}
        others = {name for name in rows[0] if name not in images}
        return batch | {
            name: torch.from_numpy(np.stack([row[name] for row in rows])).to(self.device) for name in others
        }

    # -- losses ------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Tensor], optimizer_index: int, step: int) -> dict[str, Tensor]:
        """The restorer (0), or its discriminators (1) on what it has just made."""
        if optimizer_index == 1:
            return self._judge()
        config, real, trust = self.config, batch["photograph"], batch["trust"][:, None, None, None]
        made = self.restorer(batch["draft"], batch["drawing"]).float()
        on_face = F.interpolate(batch["drawing"][:, :3].square().sum(1, keepdim=True), scale_factor=2.0)
        weight = trust * (1 + config.face * on_face)
        out = {
            "l1": weighted_l1(made, real, weight) * trust.mean(),
            "gradient": gradient_loss(made, real, weight) * trust.mean(),
            "tone": F.l1_loss(F.avg_pool2d(made, 16), F.avg_pool2d(batch["draft"], 16)),
        }
        scale = float(torch.empty(()).uniform_(config.coarsest, 1.3))
        shown = self._views(made, batch, scale)
        with torch.no_grad():
            example = self._views(real, batch, scale)
        self.drawn.append((example, _detached(shown)))
        out["perceptual"] = _apart(shown.seen, example.seen, batch["trust"], real)
        scores = self.discriminators(shown.seen, shown.eyes, shown.mouth)
        judged = torch.stack([hinge_generator(score, torch.ones_like(score)) for score in scores])
        out["adversarial"] = judged.mean()
        loss = out["l1"] + config.gradient * out["gradient"] + config.tone * out["tone"]
        loss = loss + config.perceptual * out["perceptual"] + config.adversarial * out["adversarial"]
        kept = out | {f"fooled_{number}": value for number, value in enumerate(judged)}
        return {"loss": loss} | {name: value.detach() for name, value in kept.items()}

    def _views(self, picture: Tensor, batch: dict[str, Tensor], scale: float) -> JudgedViews:
        parts = {part.name: batch[part.name] for part in DISCRIMINATED_PARTS}
        eyes, mouth = self.discriminators.cut(picture, parts)
        seen = self.discriminators.features(picture)
        return JudgedViews(seen, at_scale(eyes, scale), at_scale(mouth, scale))

    def _judge(self) -> dict[str, Tensor]:
        """Losses of the discriminators, on the last batch and on an earlier one."""
        past = self.drawn[int(torch.randint(len(self.drawn), ()))]
        losses = torch.stack([self._judged(*pair) for pair in (self.drawn[-1], past)]).mean(0)
        named = {f"judge_{number}": value.detach() for number, value in enumerate(losses)}
        return {"loss": losses.mean()} | named

    def _judged(self, example: JudgedViews, made: JudgedViews) -> Tensor:
        """Hinge losses of the discriminators."""
        scores = [self.discriminators(view.seen, view.eyes, view.mouth) for view in (example, made)]
        each = [hinge_discriminator(a, b, torch.ones_like(a)) for a, b in zip(*scores, strict=True)]
        return torch.stack(each)

    # -- validation --------------------------------------------------------------------------------

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """On drafts of held-out people: likeness to their photographs, and detail relative to theirs.

        The likeness is the cosine of FaceRes's features, which the restorer is trained with, too: it serves
        to choose weights, and is higher than other face recognisers find it.
        """
        found: dict[str, float] = {}
        for time, drafts in zip(VALIDATION_NOISE, self.data.unseen, strict=True):
            likeness: list[float] = []
            ratios: dict[str, list[float]] = {"face": [], "eyes": []}
            for index, portrait in enumerate(self.data.held_out):
                made = self._restored(drafts, index)
                real = pictures([portrait.image()], self.device)
                likeness.append(self._likeness(made, portrait))
                ratios["face"].append(detail(made) / detail(real))
                eye = matrix_of(portrait.points, RIGHT_EYE_REGION)
                cut = [
                    cut_out(p, torch.from_numpy(eye)[None].to(p), RIGHT_EYE_REGION.pixels)
                    for p in (made, real)
                ]
                ratios["eyes"].append(detail(cut[0]) / detail(cut[1]))
            found[f"val_likeness_{time:g}"] = float(np.mean(likeness))
            found |= {f"val_detail_{n}_{time:g}": float(np.median(r)) for n, r in ratios.items()}
        lacking = [abs(np.log(value)) for name, value in found.items() if "detail" in name]
        alike = [value for name, value in found.items() if "likeness" in name]
        return {"val_quality": float(np.mean(alike) - 0.2 * np.mean(lacking)), **found}

    def _restored(self, drafts: Drafts, index: int) -> Tensor:
        row = self._batch([self._row(self.data.held_out, drafts, index)])
        picture: Tensor = self.restorer(row["draft"], row["drawing"])
        return picture.clamp(0, 1)

    def _likeness(self, made: Tensor, portrait: Portrait) -> float:
        image = (made[0].permute(1, 2, 0) * 255).round().byte().cpu().numpy()
        a, b = (self.look(np.ascontiguousarray(i), portrait.points) for i in (image, portrait.image()))
        return float(a.features @ b.features / np.linalg.norm(a.features) / np.linalg.norm(b.features))

    @torch.no_grad()
    def samples(self) -> np.ndarray:
        """For each noise level: drafts of held-out people, above the restored ones."""
        rows = []
        for drafts in self.data.unseen:
            made = [self._restored(drafts, index)[0] for index in range(min(8, len(drafts)))]
            drawn = pictures([drafts.image(index) for index in range(len(made))], self.device)
            rows += [torch.cat(list(drawn), 2), torch.cat(made, 2)]
        return (torch.cat(rows, 1).permute(1, 2, 0).cpu().numpy() * 255).astype(np.uint8)

    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Write the model as the hub reads it."""
        config = {"class": "FaceRestorer", "model": asdict(self.config.model), "metrics": metrics}
        save_pretrained(directory, config, self.restorer.state_dict(), card=None)


def matrix_of(points: np.ndarray, part: FaceRegion) -> np.ndarray:
    """Affine map (2, 3) from a part's crop to the picture, float32, pixels."""
    return cv2.invertAffineTransform(region_matrix(points, part)).astype(np.float32)


def _apart(made: list[Tensor], real: list[Tensor], trust: Tensor, like: Tensor) -> Tensor:
    """Distance of features, each relative to the mean of its map, weighted by ``trust`` (B,)."""
    total = like.new_zeros(())
    for a, b in zip(made, real, strict=True):
        each = (a - b).abs().flatten(1).mean(1) / (b.abs().mean() + 1e-6)
        total = total + (each * trust).mean()
    return total


def _detached(views: JudgedViews) -> JudgedViews:
    seen = [each.detach() for each in views.seen]
    return JudgedViews(seen, views.eyes.detach(), views.mouth.detach())
