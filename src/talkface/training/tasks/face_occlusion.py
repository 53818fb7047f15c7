"""Trains :class:`OcclusionNet` on real mouths, half of them with a drawn occluder in front."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from talkface.data.crops import CropClip, crop_clip
from talkface.data.manifest import Manifest
from talkface.data.occluders import LAYER_PIXELS, Layer, Textures, draw_occluder, skin_patch
from talkface.face.crop import MOUTH_REGION, cut, region_matrix, transform
from talkface.face.model import FaceModel
from talkface.face.occlusion import (
    MASK_PIXELS,
    MouthView,
    OcclusionConfig,
    OcclusionNet,
    compare,
    network_input,
)
from talkface.face.warp import MeshWarp, with_ring
from talkface.hub import save_pretrained
from talkface.training import Task
from talkface.training.batches import to_device

logger = logging.getLogger(__name__)

_CLEAN_FRAMES = 6  # of each held-out clip, on which false alarms are measured
_COVERED_FRAMES = 3  # of each held-out clip, with an occluder drawn in front

Row = dict[str, np.ndarray]
"""A mouth: the network's "input" (C, H, W), and what is "covered" (1, H, W), 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class OcclusionTrainConfig:
    """Settings of the occlusion network's training.

    Attributes:
        model: sizes of the network.
        most_of_one: clips of a speaker, at most.
        frames: of a clip, evenly spread.
        max_clips: 0 for all.
        pairs: of a batch: the same mouth clean and covered.
        false_alarm: weight of pixels that are not covered, relative to covered ones.
        dice: weight of the dice loss.
    """

    model: OcclusionConfig = field(default_factory=OcclusionConfig)
    most_of_one: int = 6
    frames: int = 48
    max_clips: int = 0
    pairs: int = 12
    false_alarm: float = 2.0
    dice: float = 0.5


def read_clips(
    manifest: Manifest, split: str, face: FaceModel, config: OcclusionTrainConfig
) -> list[CropClip]:
    """Some frames of the aligned clips of a split."""
    counts = dict[str, int]()
    clips: list[CropClip] = []
    for item in manifest.items:
        name = item.corpus + item.speaker
        wanted = item.has_video and item.usable and item.split == split
        if not wanted or counts.get(name, 0) >= config.most_of_one:
            continue
        clip = crop_clip(manifest, item, face)
        chosen = np.unique(np.linspace(0, len(clip) - 1, config.frames).astype(int))
        clips.append(clip.only(chosen))
        counts[name] = counts.get(name, 0) + 1
        if len(clips) == config.max_clips:
            break
    logger.info("%s: %d clips of %d people", split, len(clips), len(counts))
    return clips


@dataclass
class CoveredMouthMaker:
    """Makes pictures of mouths, clean and covered, each with another frame of the person as reference.

    Attributes:
        warp: of the face model.
        textures: of the occluders that are drawn.
    """

    warp: MeshWarp
    textures: Textures

    def pair(self, clip: CropClip, frame: int, other: int, generator: np.random.Generator) -> list[Row]:
        """The same mouth clean, then covered.

        Args:
            clip: of one person.
            frame: which frame.
            other: the frame that is the reference.
            generator: draws what is in front, light, blur, and how wrong the mesh is.
        """
        image, points = clip.image(frame), _disturbed(clip, frame, generator)
        matrix = region_matrix(points, MOUTH_REGION)
        crop = cut(image, matrix, LAYER_PIXELS)
        own = skin_patch(image, clip.points[frame], generator)
        layer = draw_occluder(generator, self.textures, own)
        before = layer if generator.random() < 0.5 else draw_occluder(generator, self.textures, own)
        reference = self._reference(clip, other, before if generator.random() < 0.15 else None, generator)
        view = MouthView.small(_Crop(crop, transform(with_ring(points), matrix)))
        seed, maps = compare(self.warp, view, reference)
        mirror = generator.random() < 0.5
        rows = []
        for covered in (False, True):
            picture = layer.over(crop, generator) if covered else crop.astype(np.float32)
            seen = _small(_shot(picture, generator))
            alpha = (
                cv2.resize(layer.alpha, (MASK_PIXELS, MASK_PIXELS), interpolation=cv2.INTER_AREA) * covered
            )
            given = network_input(seen, seed, maps)
            rows.append(_row(given, alpha, mirror))
        return rows

    def _reference(
        self, clip: CropClip, frame: int, layer: Layer | None, generator: np.random.Generator
    ) -> MouthView:
        """Another frame in light of its own, with an occluder in front if one is given."""
        image, points = clip.image(frame), clip.points[frame]
        matrix = region_matrix(points, MOUTH_REGION)
        crop = cut(image, matrix, LAYER_PIXELS).astype(np.float32)
        if layer is not None:
            crop = layer.over(crop, generator)
        seen = _Crop(_shot(crop, generator), transform(with_ring(points), matrix))
        return MouthView.small(seen)

    def clean(self, clip: CropClip, frame: int, other: int) -> Row:
        """A frame and its reference as they are."""
        view, reference = (MouthView.of(clip.image(k), clip.points[k]) for k in (frame, other))
        given = network_input(view.crop, *compare(self.warp, view, reference))
        return _row(given, np.zeros((MASK_PIXELS, MASK_PIXELS), np.float32), False)


@dataclass(frozen=True)
class _Crop:
    crop: np.ndarray
    points: np.ndarray


def _row(given: np.ndarray, covered: np.ndarray, mirror: bool) -> Row:
    if mirror:
        given, covered = given[..., ::-1].copy(), covered[..., ::-1]
        given[9] *= -1  # the normal's x
    return {"input": given, "covered": np.ascontiguousarray(covered, np.float32)[None]}


def _small(crop: np.ndarray) -> np.ndarray:
    small: np.ndarray = cv2.resize(crop, (MASK_PIXELS, MASK_PIXELS), interpolation=cv2.INTER_AREA)
    return small


def _disturbed(clip: CropClip, frame: int, generator: np.random.Generator) -> np.ndarray:
    """The mesh as a tracker gives it of a covered face: a little off, at times of another frame."""
    points: np.ndarray = clip.points[frame].copy()
    if generator.random() < 0.35:
        near = int(np.clip(frame + generator.integers(-2, 3), 0, len(clip) - 1))
        points = clip.points[near].copy()
        points += (clip.points[frame] - points).mean(0)
    center, size = points.mean(0), np.ptp(points[:, 0])
    points = center + (points - center) * (1 + 0.015 * generator.normal())
    points[:, :2] += 0.01 * size * generator.normal(size=2)
    return points.astype(np.float32)


def _shot(picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A picture (H, W, 3) in 0 to 255 in random light, with shadows, blur, noise and compression; uint8."""
    height, width = picture.shape[:2]
    picture = picture * (generator.uniform(0.7, 1.3) * generator.uniform(0.92, 1.08, 3))
    y, x = np.mgrid[:height, :width].astype(np.float32) / height - 0.5
    turn = generator.uniform(0, 2 * np.pi)
    across = x * np.cos(turn) + y * np.sin(turn)
    if generator.random() < 0.4:  # from the side
        picture *= (1 + across * generator.uniform(0, 0.8))[..., None]
    if generator.random() < 0.3:  # the edge of a shadow
        edge = (across - generator.uniform(-0.4, 0.4)) / generator.uniform(0.02, 0.25)
        picture *= (1 - generator.uniform(0.1, 0.6) / (1 + np.exp(-4 * edge)))[..., None]
    if generator.random() < 0.1:
        picture = np.repeat(picture.mean(2, keepdims=True), 3, 2)
    if generator.random() < 0.4:
        small = int(height * generator.uniform(0.3, 0.8))
        picture = cv2.resize(picture.astype(np.float32), (small, small), interpolation=cv2.INTER_AREA)
    if generator.random() < 0.3:
        picture = picture + generator.normal(size=picture.shape) * generator.uniform(1, 7)
    shown = np.clip(picture, 0, 255).astype(np.uint8)
    if generator.random() < 0.5:
        quality = int(generator.integers(25, 90))
        data = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert decoded is not None  # we compressed it
        shown = decoded
    resized: np.ndarray = cv2.resize(shown, (width, height), interpolation=cv2.INTER_LINEAR)
    return resized


class OcclusionTask(Task[OcclusionTrainConfig]):
    """Cross-entropy and dice loss; the best weights are chosen by IoU and false alarms."""

    metric, mode = "val_quality", "max"

    def prepare(self, data: Path, seed: int) -> None:
        """Load the clips and build the network."""
        face, generator = FaceModel.from_pretrained(), np.random.default_rng(seed)
        self.clips = read_clips(self.manifest, "train", face, self.config)
        self.held_out = read_clips(self.manifest, "val", face, self.config)
        speakers = [clip.speaker for clip in self.clips]
        weights = np.array([1 / speakers.count(name) ** 0.5 for name in speakers])
        self.weights = weights / weights.sum()
        warp = face.mesh_warp()
        self.make = CoveredMouthMaker(warp, Textures.of(self.clips, generator))
        self.net = OcclusionNet(self.config.model).to(self.device)
        self.modules = {"net": self.net}
        self.clean, self.covered = self._fixed(warp, generator)

    def _fixed(self, warp: MeshWarp, generator: np.random.Generator) -> tuple[list[Row], list[Row]]:
        """Held-out mouths, as they are and covered."""
        make = CoveredMouthMaker(warp, Textures.of(self.held_out, generator))
        clean, covered = list[Row](), list[Row]()
        for clip in self.held_out:
            for frame in generator.permutation(len(clip))[:_CLEAN_FRAMES]:
                clean.append(make.clean(clip, int(frame), int(generator.integers(len(clip)))))
            for frame in generator.permutation(len(clip))[:_COVERED_FRAMES]:
                covered.append(make.pair(clip, int(frame), int(generator.integers(len(clip))), generator)[1])
        return clean, covered

    def draw(self, generator: np.random.Generator) -> Row:
        """Stacked pairs of mouths, each clean and covered."""
        rows = []
        for index in generator.choice(len(self.clips), self.config.pairs, p=self.weights):
            clip = self.clips[index]
            frame, other = (int(k) for k in generator.integers(0, len(clip), 2))
            rows += self.make.pair(clip, frame, other, generator)
        return _stacked(rows)

    def training_step(self, batch: dict[str, Tensor], optimizer_index: int, step: int) -> dict[str, Tensor]:
        """The loss."""
        logits, target = self.net(batch["input"]), batch["covered"]
        each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        weight = target + self.config.false_alarm * (1 - target)
        entropy = (each * weight).mean()
        found, some = torch.sigmoid(logits), target.sum((1, 2, 3)) > 0
        both = (found * target).sum((1, 2, 3))
        dice = 1 - (2 * both + 1) / (found.sum((1, 2, 3)) + target.sum((1, 2, 3)) + 1)
        dice = (dice * some).sum() / some.sum().clamp(min=1)
        return {"loss": entropy + self.config.dice * dice, "entropy": entropy.detach(), "dice": dice.detach()}

    @torch.no_grad()
    def _found(self, rows: list[Row]) -> Tensor:
        """Probabilities (N, MASK_PIXELS, MASK_PIXELS)."""
        parts = [rows[k : k + 32] for k in range(0, len(rows), 32)]
        logits = [self.net(to_device(_stacked(part), self.device)["input"])[:, 0] for part in parts]
        return torch.sigmoid(torch.cat(logits)).cpu()

    def validate(self) -> dict[str, float]:
        """How well occluders are found, and how often something is found on free mouths.

        Returns:
            ``val_iou`` of covered mouths; ``val_false_alarm``, share of free mouths' pixels that are taken
            for covered; ``val_alarmed_frames``, share of free mouths with over 1 % such pixels; and
            ``val_quality``, IoU less five times the false alarms.
        """
        found = self._found(self.covered) > 0.5
        truth = torch.from_numpy(np.stack([row["covered"][0] for row in self.covered])) > 0.5
        iou = (found & truth).sum((1, 2)) / (found | truth).sum((1, 2)).clamp(min=1)
        wrong = (self._found(self.clean) > 0.5).float().mean((1, 2))
        return {
            "val_quality": float(iou.mean() - 5 * wrong.mean()),
            "val_iou": float(iou.mean()),
            "val_false_alarm": float(wrong.mean()),
            "val_alarmed_frames": float((wrong > 0.01).float().mean()),
        }

    def samples(self) -> np.ndarray:
        """Rows of frame, reference, truth and prediction: of covered mouths and the worst free ones."""
        wrong = self._found(self.clean).mean((1, 2))
        worst = [self.clean[int(k)] for k in wrong.argsort(descending=True)[:12]]
        rows = self.covered[:: max(1, len(self.covered) // 36)][:36] + worst
        cells = [_cells(row, p.numpy()) for row, p in zip(rows, self._found(rows), strict=True)]
        columns = min(4, len(cells))
        cells = cells[: len(cells) // columns * columns]
        return np.concatenate([np.concatenate(cells[k::columns], 0) for k in range(columns)], 1)

    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Write the network as the hub reads it."""
        config = self.net.config_dict() | {"metrics": metrics}
        save_pretrained(directory, config, self.net.state_dict(), card=None)


def _cells(row: Row, found: np.ndarray) -> np.ndarray:
    frame, seed = (row["input"][k : k + 3].transpose(1, 2, 0) for k in (0, 3))
    marks = [
        frame * (1 - 0.7 * m[..., None]) + 0.7 * m[..., None] * [1, 0, 1] for m in (row["covered"][0], found)
    ]
    return (np.concatenate([frame, seed, *marks], 1).clip(0, 1) * 255).astype(np.uint8)


def _stacked(rows: list[Row]) -> Row:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
