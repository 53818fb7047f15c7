"""Trains the restorer on drafts: reconstruction as far as a draft is still its photograph, and PatchGANs."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from talkface.data.faces import PIXELS, Portrait, held_out, portraits
from talkface.data.prepare import Manifest
from talkface.diffusion.base import COMPACT, Base
from talkface.diffusion.drafts import Drafts, varied_one
from talkface.diffusion.restorer import FaceRestorer, RestorerConfig
from talkface.diffusion.train import clear_ones
from talkface.face.attributes import FaceRes, described
from talkface.face.crop import LEFT_EYE, MOUTH, RIGHT_EYE, Part, part_matrix
from talkface.face.draw import MESH_CHANNELS, draw_mesh
from talkface.face.model import FaceModel
from talkface.nn.adversarial import PatchDiscriminator, hinge_discriminator, hinge_generator
from talkface.nn.picture import cut_out, detail, gradient_loss, pictures, weighted_l1
from talkface.prefetch import prefetched
from talkface.training import OptimizerSpec, Task

_VALIDATED = (0.5, 0.9)  # how noisy the drafts of held-out people were
Scored = dict[str, tuple[Tensor, list[Tensor]]]


@dataclass(frozen=True, kw_only=True)
class RestorerTrainConfig:
    """Settings of the restorer's training.

    Attributes:
        model: sizes.
        base: directory of the LDM that draws, or "compact".
        face_model: name or directory of the 3DMM.
        drafts: how many are drawn, once.
        times: how noisy photographs are made before they are drawn anew.
        faithful: time from which a draft is less and less its photograph, and the time by which it is not.
        stranger: what reconstruction counts then.
        batch: drafts a step.
        sharpness, turned: see the face LDM's; ``sharp``: quantile of sharpness above which photographs are
            examples to the discriminators.
        face: how much more the face counts than what is around it.
        gradient, tone, matching, adversarial: weights of the losses beside the L1 distance; judges learn at
            every second step.
        discriminator_width: of the first layers.
        held_out: portraits on which it is validated.
    """

    model: RestorerConfig = field(default_factory=RestorerConfig)
    base: str = COMPACT
    face_model: str = "face"
    drafts: int = 4000
    times: tuple[float, float] = (0.4, 0.96)
    faithful: tuple[float, float] = (0.55, 0.9)
    stranger: float = 0.08
    batch: int = 8
    sharpness: float = 3.6
    turned: float = 0.9
    sharp: float = 0.2
    face: float = 2.0
    gradient: float = 0.5
    tone: float = 0.5
    matching: float = 0.5
    adversarial: float = 0.03
    discriminator_width: int = 32
    held_out: int = 48


class Judges(torch.nn.ModuleDict):
    """PatchGANs of the whole picture with its mesh, at two sizes, of both eyes together, and of the mouth."""

    def __init__(self, width: int) -> None:
        super().__init__(
            {
                "whole": PatchDiscriminator(MESH_CHANNELS, width),
                "small": PatchDiscriminator(MESH_CHANNELS, width),
                "eyes": PatchDiscriminator(0, width, channels=6),
                "mouth": PatchDiscriminator(0, width),
            }
        )

    def forward(self, picture: Tensor, drawing: Tensor, parts: dict[str, Tensor]) -> Scored:
        """Scores and features of pictures (B, 3, H, W) with drawings, and matrices (B, 2, 3) of parts."""
        # The left eye is mirrored by its matrix: what is unlike stands in the same place.
        eyes = [cut_out(picture, parts[part.name], part.pixels) for part in (RIGHT_EYE, LEFT_EYE)]
        mouth = cut_out(picture, parts[MOUTH.name], MOUTH.pixels)
        none = mouth.new_zeros(len(mouth), 0, 1, 1)
        seen = {
            "whole": (picture, drawing),
            "small": (F.avg_pool2d(picture, 2), F.avg_pool2d(drawing, 2)),
            "eyes": (torch.cat(eyes, 1), none.expand(-1, -1, RIGHT_EYE.pixels // 2, RIGHT_EYE.pixels // 2)),
            "mouth": (mouth, none.expand(-1, -1, MOUTH.pixels // 2, MOUTH.pixels // 2)),
        }
        return {name: self[name](*given) for name, given in seen.items()}


class RestorerTask(Task):
    """GFPGAN's recipe without a generator to lean on: reconstruction, judges of the whole and of parts."""

    Config = RestorerTrainConfig
    metric, mode = "val_quality", "max"

    def __init__(self, config: RestorerTrainConfig, data: Path, seed: int = 0, device: str = "cpu") -> None:
        self.config, self.device = config, torch.device(device)
        manifest = Manifest.load(data)
        album = portraits(manifest)
        face = FaceModel.from_pretrained(config.face_model)
        usable = clear_ones(album, face, config.sharpness, config.turned)
        known = described(manifest, usable)
        self.warp = face.mesh_warp()
        self.album = [portrait for portrait in usable if portrait.split == "train"]
        bar = np.quantile([portrait.sharpness for portrait in self.album], config.sharp)
        self.sharp = np.array([portrait.sharpness >= bar for portrait in self.album])
        base = Base.from_pretrained(config.base, self.device)
        folder = manifest.directory
        given = (known, base, self.warp)
        self.drafts = Drafts.of(self.album, *given, config.drafts, config.times, folder, seed=seed)
        self.held_out = held_out(usable, config.held_out)
        count = len(self.held_out)
        self.fixed = [
            Drafts.of(self.held_out, *given, count, (time, time), folder, varied=False) for time in _VALIDATED
        ]
        torch.manual_seed(seed)
        self.restorer = FaceRestorer(config.model).to(self.device)
        self.judges = Judges(config.discriminator_width).to(self.device)
        for module in (self.restorer, self.judges):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.modules = {"restorer": self.restorer, "judges": self.judges}
        self.drawn: Tensor | None = None

    def optimizers_spec(self) -> list[OptimizerSpec]:
        """The restorer's and the judges' optimizers."""
        return [OptimizerSpec(modules=("restorer",)), OptimizerSpec(modules=("judges",))]

    @cached_property
    def look(self) -> FaceRes:
        """Tells how alike two faces are."""
        return FaceRes()

    # -- data --------------------------------------------------------------------------------------

    def batches(self, generator: np.random.Generator) -> Iterator[dict[str, Tensor]]:
        """Endless batches: drafts and photographs (B, 3, H, W), their drawings, matrices of parts, trust."""
        clear = np.flatnonzero(self.sharp[self.drafts.portrait])

        def draw() -> Iterator[dict[str, Tensor]]:
            while True:
                chosen = generator.choice(clear, self.config.batch, replace=False)
                yield self._batch([self._row(self.album, self.drafts, int(k)) for k in chosen])

        yield from prefetched(draw())

    def _row(self, album: list[Portrait], drafts: Drafts, index: int) -> dict[str, np.ndarray]:
        image, points = varied_one(album[drafts.portrait[index]], drafts.variant[index])
        row = {"draft": drafts.image(index), "photograph": image}
        row["drawing"] = draw_mesh(self.warp, points, PIXELS)
        row |= {part.name: matrix_of(points, part) for part in (RIGHT_EYE, LEFT_EYE, MOUTH)}
        low, high = self.config.faithful
        lost = np.clip((drafts.time[index] - low) / (high - low), 0, 1)
        row["trust"] = np.array(1 - (1 - self.config.stranger) * lost, np.float32)
        return row

    def _batch(self, rows: list[dict[str, np.ndarray]]) -> dict[str, Tensor]:
        images = {"draft", "photograph"}
        batch = {name: pictures([row[name] for row in rows], self.device) for name in images}
        others = {name for name in rows[0] if name not in images}
        return batch | {
            name: torch.from_numpy(np.stack([row[name] for row in rows])).to(self.device) for name in others
        }

    # -- losses ------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Tensor], optimizer_index: int, step: int) -> dict[str, Tensor]:
        """The restorer (0), or its judges (1) of what it has just made."""
        if optimizer_index == 1:
            return self._judge(batch, step % 2 == 0)
        config, real, trust = self.config, batch["photograph"], batch["trust"][:, None, None, None]
        made = self.restorer(batch["draft"], batch["drawing"]).float()
        self.drawn = made.detach()
        on_face = F.interpolate(batch["drawing"][:, :3].square().sum(1, keepdim=True), scale_factor=2.0)
        weight = trust * (1 + config.face * on_face)
        out = {
            "l1": weighted_l1(made, real, weight) * trust.mean(),
            "gradient": gradient_loss(made, real, weight) * trust.mean(),
            "tone": F.l1_loss(F.avg_pool2d(made, 16), F.avg_pool2d(batch["draft"], 16)),
        }
        parts = self._parts(batch)
        scored = self.judges(made, batch["drawing"], parts)
        with torch.no_grad():
            examples = self.judges(real, batch["drawing"], parts)
        judged = {n: hinge_generator(s, torch.ones_like(s)) for n, (s, _) in scored.items()}
        matched = [_matching(scored[n][1], examples[n][1], batch["trust"]) for n in scored]
        out["adversarial"] = sum(judged.values(), real.new_zeros(()))
        out["matching"] = sum(matched, real.new_zeros(()))
        loss = out["l1"] + config.gradient * out["gradient"] + config.tone * out["tone"]
        loss = loss + config.adversarial * out["adversarial"] + config.matching * out["matching"]
        kept = out | {f"fooled_{name}": value for name, value in judged.items()}
        return {"loss": loss} | {name: value.detach() for name, value in kept.items()}

    def _judge(self, batch: dict[str, Tensor], wanted: bool) -> dict[str, Tensor]:
        if not wanted:  # keeps the graph alive without training anything
            heads = [judge.get_submodule("head").get_parameter("bias") for judge in self.judges.values()]
            return {"loss": torch.stack([head.sum() for head in heads]).sum() * 0.0}
        assert self.drawn is not None  # by the step before
        parts = self._parts(batch)
        both = [self.judges(p, batch["drawing"], parts) for p in (batch["photograph"], self.drawn)]
        losses = {
            name: hinge_discriminator(both[0][name][0], both[1][name][0], torch.ones_like(both[0][name][0]))
            for name in both[0]
        }
        total = sum(losses.values(), batch["draft"].new_zeros(()))
        return {"loss": total} | {name: value.detach() for name, value in losses.items()}

    @staticmethod
    def _parts(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {part.name: batch[part.name] for part in (RIGHT_EYE, LEFT_EYE, MOUTH)}

    # -- validation --------------------------------------------------------------------------------

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """On drafts of held-out people: likeness (FaceRes) to their photographs, detail over theirs."""
        found: dict[str, float] = {}
        for time, drafts in zip(_VALIDATED, self.fixed, strict=True):
            likeness: list[float] = []
            ratios: dict[str, list[float]] = {"face": [], "eyes": []}
            for index, portrait in enumerate(self.held_out):
                made = self._restored(drafts, index)
                real = pictures([portrait.image()], self.device)
                likeness.append(self._likeness(made, portrait))
                ratios["face"].append(detail(made) / detail(real))
                eye = matrix_of(portrait.points, RIGHT_EYE)
                cut = [cut_out(p, torch.from_numpy(eye)[None].to(p), RIGHT_EYE.pixels) for p in (made, real)]
                ratios["eyes"].append(detail(cut[0]) / detail(cut[1]))
            found[f"val_likeness_{time:g}"] = float(np.mean(likeness))
            found |= {f"val_detail_{n}_{time:g}": float(np.median(r)) for n, r in ratios.items()}
        lacking = [abs(np.log(value)) for name, value in found.items() if "detail" in name]
        alike = [value for name, value in found.items() if "likeness" in name]
        return {"val_quality": float(np.mean(alike) - 0.2 * np.mean(lacking)), **found}

    def _restored(self, drafts: Drafts, index: int) -> Tensor:
        row = self._batch([self._row(self.held_out, drafts, index)])
        return self.restorer(row["draft"], row["drawing"]).clamp(0, 1)

    def _likeness(self, made: Tensor, portrait: Portrait) -> float:
        image = (made[0].permute(1, 2, 0) * 255).round().byte().cpu().numpy()
        a, b = (self.look(np.ascontiguousarray(i), portrait.points) for i in (image, portrait.image()))
        return float(a.features @ b.features / np.linalg.norm(a.features) / np.linalg.norm(b.features))

    @torch.no_grad()
    def samples(self) -> np.ndarray:
        """For each time: drafts of held-out people, and what is made of them."""
        rows = []
        for drafts in self.fixed:
            made = [self._restored(drafts, index)[0] for index in range(min(8, len(drafts)))]
            drawn = pictures([drafts.image(index) for index in range(len(made))], self.device)
            rows += [torch.cat(list(drawn), 2), torch.cat(made, 2)]
        return (torch.cat(rows, 1).permute(1, 2, 0).cpu().numpy() * 255).astype(np.uint8)

    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Write the model as the hub reads it."""
        from talkface.hub import save_pretrained

        config = {"class": "FaceRestorer", "model": asdict(self.config.model), "metrics": metrics}
        save_pretrained(directory, config, self.restorer.state_dict(), card=None)


def matrix_of(points: np.ndarray, part: Part) -> np.ndarray:
    """Affine map (2, 3) from a part's crop to the picture, float32, pixels."""
    return cv2.invertAffineTransform(part_matrix(points, part)).astype(np.float32)


def _matching(made: list[Tensor], real: list[Tensor], trust: Tensor) -> Tensor:
    """Feature matching of each example as far as its draft is still its photograph."""
    each = [(a - b).abs().flatten(1).mean(1) for a, b in zip(made, real, strict=True)]
    return (torch.stack(each).mean(0) * trust).mean()
