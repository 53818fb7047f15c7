"""Talking clips for G4G's trainings: aligned faces, speech features and mouth coefficients at 25 fps."""

import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from talkface.data.crops import CropClip, crop_clip
from talkface.data.manifest import Item, Manifest
from talkface.data.parallel import parallel_map
from talkface.face.crop import MOUTH_REGION, cut, region_matrix
from talkface.face.model import FaceModel
from talkface.training.datasets.clips import ClipReader, Example, speaker_weights

logger = logging.getLogger(__name__)


@dataclass
class TalkingClip:
    """A clip at 25 fps.

    Attributes:
        crops: T aligned frames.
        content: content features (2T, C) float16, first of the clean sound, then of augmented variants.
        level: the same variants' level (2T,), dB relative to the loudest sound.
        beta_mouth: (T, M) mouth coefficients.
        item: the clip.
    """

    crops: CropClip
    content: list[np.ndarray]
    level: list[np.ndarray]
    beta_mouth: np.ndarray
    item: Item

    def __len__(self) -> int:
        return len(self.beta_mouth)

    def mouths(self, pixels: int) -> np.ndarray:
        """Aligned mouth crops (T, pixels, pixels, 3) uint8 for the sync experts."""
        images = np.empty((len(self), pixels, pixels, 3), np.uint8)
        for k in range(len(self)):
            matrix = region_matrix(self.crops.points[k], MOUTH_REGION) * (pixels / MOUTH_REGION.pixels)
            images[k] = cut(self.crops.image(k), matrix, pixels)
        return images


def half_of(item: Item, by_clip: Sequence[str] = ()) -> str:
    """ "a" or "b": speakers are on one side; of those who fit a pattern ``by_clip``, each clip is."""
    name = item.key if item.look_up(dict.fromkeys(by_clip, True), False) else item.person
    return "ab"[zlib.crc32(name.encode()) % 2]


def read_talking(
    data: Path,
    split: str,
    model: FaceModel,
    *,
    half: str = "all",
    by_clip: Sequence[str] = (),
    variants: int = 1,
    smallest_unit: float = 0.0,
    shortest: int = 25,
    most_of_one: int = 0,
    limit: int = 0,
    seed: int = 0,
) -> list[TalkingClip]:
    """Usable talking clips of a split.

    Args:
        data: what ``talkface prepare`` wrote.
        split: "train" or "val".
        model: the 3DMM.
        half: "a" or "b" for the clips of one expert only.
        by_clip: patterns (:mod:`talkface.data.groups`) of speakers with so many clips that each is in a half.
        variants: how often the sound is encoded: the first time as it is, then augmented.
        smallest_unit: least inter-ocular distance in pixels.
        shortest: least number of frames.
        most_of_one: greatest number of clips of a speaker; 0 for all.
        limit: greatest number of clips; 0 for all.
        seed: of the augmentation.
    """
    reader, generator = ClipReader(Manifest.load(data), model), np.random.default_rng(seed)
    items = [item for item in reader.items(split) if half in ("all", half_of(item, by_clip))]
    clips: list[TalkingClip] = []
    counts: dict[str, int] = {}

    def read(row: tuple[Item, np.random.Generator]) -> tuple[TalkingClip, float]:
        examples = [reader.read(row[0], 1.0, row[1] if k else None) for k in range(variants)]
        return _talking(reader.manifest, model, examples), float(examples[0].found.mean())

    rows = list(zip(items, generator.spawn(len(items)), strict=True))
    for clip, found in parallel_map(read, rows):
        name = clip.item.person
        if most_of_one and counts.get(name, 0) >= most_of_one:
            continue
        if len(clip) < shortest or clip.crops.unit < smallest_unit or found < 0.9:
            continue
        counts[name] = counts.get(name, 0) + 1
        clips.append(clip)
        if limit and len(clips) >= limit:
            break
    minutes = sum(map(len, clips)) / 25 / 60
    logger.info("%s: %d talking clips of %d speakers, %.1f minutes", split, len(clips), len(counts), minutes)
    return clips


def _talking(manifest: Manifest, model: FaceModel, examples: list[Example]) -> TalkingClip:
    """The clip whose variants ``examples`` are, with the aligned frames at their times."""
    crops, first = crop_clip(manifest, examples[0].item, model), examples[0]
    places = np.searchsorted(crops.times, first.times - 0.5 / crops.fit.motion.fps)
    chosen = np.clip(places, 0, max(0, len(crops) - 1))
    part = crops.only(chosen) if len(chosen) else crops
    content, level = [e.content for e in examples], [e.level for e in examples]
    return TalkingClip(part, content, level, first.beta_mouth, first.item)


def clip_weights(clips: list[TalkingClip], power: float) -> np.ndarray:
    """Probability with which each clip is drawn, (N,); see :func:`speaker_weights`."""
    return speaker_weights([clip.crops.speaker for clip in clips], [len(clip) for clip in clips], power)
