"""Trains the refiner on pairs of frames of one clip: the first is warped to the second and refined."""

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from talkface.data.crops import FACE_REGION, CropClip, crop_clip
from talkface.data.manifest import Item, Manifest
from talkface.data.parallel import parallel_map
from talkface.face import topology as tp
from talkface.face.crop import MOUTH_REGION, FaceRegion, face_regions, fineness
from talkface.face.draw import MAP_CHANNELS
from talkface.face.model import FaceModel
from talkface.hub import save_pretrained
from talkface.nn.adversarial import PatchDiscriminator
from talkface.nn.marks import state_mark
from talkface.nn.picture import gradient_loss, weighted_l1
from talkface.rendering.refiner import Refiner, RefinerConfig
from talkface.training import OptimizerSpec, Task
from talkface.training.batches import to_device
from talkface.training.datasets.crop_pairs import Pair, PairMaker, augmented, mean_mouth, stacked_pairs
from talkface.training.patch_gan import discriminator_loss, generator_losses, zero_loss
from talkface.training.samples import in_columns

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RefinerTrainConfig:
    """Settings of the refiner's training."""

    model: RefinerConfig = field(default_factory=RefinerConfig)
    face_model: str = "face"
    frames_per_clip: int = 60
    frames_of: dict[str, int] = field(default_factory=dict)  # the same for clips that fit patterns
    smallest_unit: float = 64.0  # inter-ocular pixels; smaller faces would teach blur
    mouths: int = 8  # per batch
    eyes: int = 8
    adversarial_start: int = 1200  # steps of plain reconstruction first
    adversarial: float = 0.1
    matching: float = 0.5
    gradient: float = 2.0
    inner: float = 12.0  # extra weight of what warping cannot draw: inside the lips and the lids
    max_clips: int = 0  # 0: all


class RefinerTask(Task[RefinerTrainConfig]):
    """Reconstruction + multi-scale gradients + PatchGAN with feature matching."""

    metric, mode = "val_quality", "max"

    def prepare(self, data: Path, seed: int) -> None:
        """Cut the clips, take their mean mouth and build refiner and discriminator."""
        config = self.config
        self.mouth, *self.eyes = face_regions(config.model.pixels)
        self.finer = fineness(config.model.pixels)
        self.model = FaceModel.from_pretrained(config.face_model)
        self.refiner = Refiner(config.model).to(self.device)
        levels = 1 + self.finer.bit_length()  # as much of the face is judged, however fine the crop
        self.discriminator = PatchDiscriminator(MAP_CHANNELS, levels=levels).to(self.device)
        self.modules = {"refiner": self.refiner, "discriminator": self.discriminator}
        self.clips = self._load(self.manifest, "train")
        mouth = mean_mouth(self.clips)
        self.refiner.mean_mouth.copy_(torch.from_numpy(mouth))
        self.make = PairMaker(self.model.mesh_warp(), mouth)
        self.held_out = self._load(self.manifest, self.manifest.choosing, 12)
        self.weights = self._clip_weights()

    def optimizers_spec(self) -> list[OptimizerSpec]:
        """The refiner's and the discriminator's optimizers."""
        return [OptimizerSpec(modules=("refiner",)), OptimizerSpec(modules=("discriminator",), lr=2.0)]

    def _load(self, manifest: Manifest, split: str, frames: int | None = None) -> list[CropClip]:
        """Usable clips of a split, at most ``frames`` frames of each."""
        items = [i for i in manifest.items if i.has_video and i.usable and i.split == split]
        cut_out = parallel_map(lambda item: self._cut(manifest, item, frames), items)
        clips = list(islice((clip for clip in cut_out if clip), self.config.max_clips or None))
        logger.info("%s: %d clips, %d frames", split, len(clips), sum(len(c.images) for c in clips))
        return clips

    def _cut(self, manifest: Manifest, item: Item, frames: int | None) -> CropClip | None:
        """Frames of a clip at even distances; None where it is too short, or its face too small."""
        track = manifest.track(item)
        if np.median(tp.inter_ocular(track.points)) < self.config.smallest_unit or len(track.points) < 25:
            return None
        count = frames or item.look_up(self.config.frames_of, self.config.frames_per_clip)
        clip = crop_clip(manifest, item, self.model, self.finer * FACE_REGION.pixels)
        return clip.only(np.linspace(0, len(clip) - 1, min(count, len(clip))).astype(int))

    def _clip_weights(self) -> np.ndarray:
        """Probability of each clip: speakers count about alike, larger faces more, up to the crops' size."""
        speakers, sharp = [clip.speaker for clip in self.clips], 130 * self.finer
        weight = np.array([min(c.unit, sharp) / sharp / speakers.count(c.speaker) ** 0.7 for c in self.clips])
        weight /= weight.sum()
        return weight

    def _pick(self, clip: CropClip, part: FaceRegion, generator: np.random.Generator) -> tuple[int, int]:
        """Source and target; every other source has its mouth closed (or eyes open), as portraits have."""
        count = len(clip.images)
        source, target = (int(v) for v in generator.integers(0, count, 2))
        if generator.random() < 0.5:
            of_mouth = part.code == MOUTH_REGION.code
            state = tp.aperture(clip.points) if of_mouth else -tp.eye_openness(clip.points).mean(-1)
            order = np.argsort(state)
            source = int(order[int(generator.integers(0, max(1, count // 4)))])
            if generator.random() < 0.5:
                target = int(order[int(generator.integers(count // 2, count))])
        return source, target

    def _pair(self, part: FaceRegion, generator: np.random.Generator) -> Pair:
        """A random pair of a part, augmented."""
        clip = self.clips[int(generator.choice(len(self.clips), p=self.weights))]
        pair = self.make(clip, *self._pick(clip, part, generator), part)
        return augmented(pair, generator)

    def draw(self, generator: np.random.Generator) -> list[dict[str, np.ndarray]]:
        """Mouths and eyes, each a dict of stacked arrays."""
        mouths = [self._pair(self.mouth, generator) for _ in range(self.config.mouths)]
        eyes = [self._pair(self.eyes[int(generator.integers(2))], generator) for _ in range(self.config.eyes)]
        return [stacked_pairs(mouths), stacked_pairs(eyes)]

    def _generate(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Composed crops and the loss weight: the face, and more inside of lips and lids."""
        inputs = [batch[name] for name in ("warped", "reference", "maps", "motion", "part")]
        image = self.refiner(*inputs).compose(batch["warped"])
        face, inner = batch["maps"][:, 6:7], batch["maps"][:, 3:4] + batch["maps"][:, 4:5]
        inner = F.max_pool2d(inner, 4 * self.finer + 1, 1, 2 * self.finer)
        weight = F.interpolate(face * (1 + self.config.inner * inner), scale_factor=2.0, mode="nearest")
        return image, weight

    def training_step(
        self, batch: list[dict[str, Tensor]], optimizer_index: int, step: int
    ) -> dict[str, Tensor]:
        """Generator (0) or discriminator (1)."""
        adversarial = step >= self.config.adversarial_start
        losses = [self._step(part, optimizer_index, adversarial) for part in batch]
        return {name: (losses[0][name] + losses[1][name]) / 2 for name in losses[0]}

    def _step(self, batch: dict[str, Tensor], optimizer_index: int, adversarial: bool) -> dict[str, Tensor]:
        """Losses of one kind of parts."""
        config, target = self.config, batch["target"]
        if optimizer_index == 1:
            return {"loss": self._judge(batch) if adversarial else zero_loss(self.discriminator)}
        fake, weight = self._generate(batch)
        scales = 2 + self.finer.bit_length()  # down to the same size on the face for all crop sizes
        out = {
            "l1": weighted_l1(fake, target, weight),
            "gradient": gradient_loss(fake, target, weight, scales),
        }
        loss = out["l1"] + config.gradient * out["gradient"]
        if adversarial:
            seen = (weight > 0).float()
            out |= generator_losses(self.discriminator, fake * seen, target * seen, batch["maps"], weight)
            loss = loss + config.adversarial * out["adversarial"] + config.matching * out["matching"]
        return {"loss": loss} | {name: value.detach() for name, value in out.items()}

    def _judge(self, batch: dict[str, Tensor]) -> Tensor:
        """The discriminator's loss."""
        with torch.no_grad():
            fake, weight = self._generate(batch)
        seen = (weight > 0).float()
        target = batch["target"] * seen
        return discriminator_loss(self.discriminator, fake * seen, target, batch["maps"], weight)

    def _fixed_pairs(self) -> Iterator[Pair]:
        """Held-out pairs: the first frame as portrait, mouths and eyes of later frames; 3 clips a speaker."""
        make = PairMaker(self.make.warp, self.refiner.mean_mouth.cpu().numpy())
        seen: dict[str, int] = {}
        for clip in self.held_out:
            seen[clip.speaker] = seen.get(clip.speaker, 0) + 1
            if seen[clip.speaker] > 3:
                continue
            openings = np.argsort(-tp.aperture(clip.points))
            for target in {int(openings[0]), int(openings[len(openings) // 3])} - {0}:
                yield make(clip, 0, target, self.mouth)
            lids = np.argsort(tp.eye_openness(clip.points).mean(-1))
            yield make(clip, int(lids[-1]), int(lids[0]), self.eyes[0])

    @torch.no_grad()
    def _held_out_crops(self) -> Iterator[tuple[Pair, np.ndarray, np.ndarray]]:
        """Held-out pairs, refined crops (3, P, P) and loss weights (P, P)."""
        for pair in self._fixed_pairs():
            image, weight = self._generate(to_device(stacked_pairs([pair]), self.device))
            yield pair, image[0].clamp(0, 1).cpu().numpy(), weight[0, 0].cpu().numpy()

    def validate(self) -> dict[str, float]:
        """PSNR inside of mouths and eyes, that of the warp alone, and sharpness relative to real crops."""
        errors, baseline, ratios = [], [], []
        for pair, image, weight in self._held_out_crops():
            inner = weight > 1.5
            if inner.sum() < 20:
                continue
            errors.append(np.square(image - pair.target)[:, inner].mean())
            baseline.append(np.square(pair.warped - pair.target)[:, inner].mean())
            if pair.part == MOUTH_REGION.code:
                ratios.append(_sharpness(image, inner) / (_sharpness(pair.target, inner) + 1e-6))
        psnr = float(np.mean([-10 * np.log10(e + 1e-8) for e in errors]))
        warp_psnr = float(np.mean([-10 * np.log10(e + 1e-8) for e in baseline]))
        sharpness = float(np.median(ratios))
        quality = psnr - 6 * abs(np.log(sharpness))
        return {
            "val_quality": quality,
            "val_psnr": psnr,
            "val_psnr_warp_only": warp_psnr,
            "val_sharpness": sharpness,
        }

    def samples(self) -> np.ndarray:
        """Rows of reference, warped, refined, real for held-out mouths and eyes."""
        cells, size = [], (4 * self.mouth.pixels, self.mouth.pixels)
        whole = list(self._held_out_crops())
        for pair, image, _ in whole[:: max(1, len(whole) // 40)]:
            row = np.concatenate([pair.reference, pair.warped, image, pair.target], 2).transpose(1, 2, 0)
            row = cv2.resize(row, size, interpolation=cv2.INTER_LINEAR)
            cells.append((row.clip(0, 1) * 255).astype(np.uint8))
        return in_columns(cells)

    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Write the refiner as the hub reads it."""
        config = {"class": "Refiner", "model": asdict(self.config.model), "metrics": metrics}
        config["built_on"] = {"face": state_mark(self.model.state())}
        save_pretrained(directory, config, self.refiner.state_dict(), card=None)


def _sharpness(image: np.ndarray, where: np.ndarray) -> float:
    """Mean absolute Laplacian of grey values of a picture (3, H, W) at some places (H, W)."""
    return float(np.abs(cv2.Laplacian(image.mean(0).astype(np.float32), cv2.CV_32F))[where].mean())
