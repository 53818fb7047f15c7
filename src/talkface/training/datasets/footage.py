"""Frames of clips for the adapters: a reference moved to another frame's mesh, that frame, the one before.

The reference is moved to the mesh of the frame before, too: from that a video draws the frame before.

All frames of a clip are seen through the same window, so that what is around the head stays still.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import torch

from talkface.data.arrays import kept_arrays
from talkface.data.manifest import Item, Manifest, Track
from talkface.data.side_by_side import side_by_side
from talkface.diffusion.autoencoder import FaceAutoencoder
from talkface.diffusion.stable import StableAutoencoder
from talkface.face.crop import cut, transform
from talkface.face.model import FaceModel
from talkface.face.portrait import PIXELS, portrait_matrix
from talkface.face.warp import MeshWarp
from talkface.nn.marks import marked
from talkface.nn.picture import enlarged, pictures
from talkface.systems.imagineid.moving import move_portrait

logger = logging.getLogger(__name__)

_MESHES = "points", "before_points"
_ROW = "target", "moved", "before", "moved_before", *_MESHES  # columns that each frame has of its own


@dataclass(frozen=True)
class Footage:
    """Latents (N, 4, h, w) float16 of frames, and meshes (N, 478, 3) in pixels of their pictures.

    Attributes:
        target: frames to be drawn.
        moved: the reference, its pixels moved to the target's mesh.
        before: the frames before.
        moved_before: the reference, its pixels moved to the mesh of the frame before.
        points: the target's mesh.
        before_points: the mesh of the frame before.
        weight: (N,) how often each is to be drawn.
    """

    target: np.ndarray
    moved: np.ndarray
    before: np.ndarray
    moved_before: np.ndarray
    points: np.ndarray
    before_points: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.target)

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        split: str,
        face: FaceModel,
        autoencoder: FaceAutoencoder | StableAutoencoder,
        frames: int,
        mark: str,
        seed: int = 0,
        pixels: int = PIXELS,
    ) -> "Footage":
        """Frames of all clips of a split; cut and encoded on first use and kept.

        Those of people who are in the training split, too, are left out of the validation split.

        Args:
            manifest: the prepared folder.
            split: "train" or "val".
            face: the 3DMM.
            autoencoder: frozen.
            frames: of each clip.
            mark: tells autoencoder and 3DMM from others.
            seed: of the choice of frames.
            pixels: side of the pictures that are encoded; meshes stay in pixels of the portraits.
        """
        # Footage with other columns is other footage: what an older version kept is not read.
        kind = marked(" ".join(field.name for field in fields(cls)))
        path = manifest.directory / f"footage-{split}-{frames}-{seed}-{pixels}-{mark}-{kind}.npz"
        make = partial(_collect, manifest, split, face, autoencoder, frames, seed, pixels)
        return kept_arrays(cls, path, make)


@dataclass(frozen=True)
class _ClipFrames:
    """Some frames of a clip through one window: images by their numbers, and all meshes (T, 478, 3)."""

    images: dict[int, np.ndarray]
    points: np.ndarray
    neutral: np.ndarray


def _collect(
    manifest: Manifest,
    split: str,
    face: FaceModel,
    autoencoder: FaceAutoencoder | StableAutoencoder,
    frames: int,
    seed: int,
    pixels: int,
) -> Footage:
    warp = face.mesh_warp()
    columns: dict[str, list[np.ndarray]] = {field.name: [] for field in fields(Footage)}
    usable = [i for i in manifest.items if i.has_video and i.usable]
    chosen = manifest.apart(item for item in usable if item.split == split)
    speakers = [item.person for item in chosen]

    def rows_of(number: int) -> list[tuple[np.ndarray, ...]]:
        generator = np.random.default_rng([seed, number])
        return list(_rows(manifest, chosen[number], face, warp, frames, generator))

    for number, rows in enumerate(side_by_side(rows_of, range(len(chosen)))):
        if not rows:
            continue
        for name, column in zip(_ROW, zip(*rows, strict=True), strict=True):
            if name in _MESHES:
                columns[name].append(np.stack(column).astype(np.float32))
            else:
                columns[name].append(_encoded(list(column), autoencoder, pixels))
        columns["weight"].append(np.full(len(rows), speakers.count(speakers[number]) ** -0.7))
        if number % 50 == 0:
            logger.info("footage of %d of %d clips", number, len(chosen))
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    joined["weight"] = joined["weight"] / joined["weight"].sum()
    return Footage(**joined)


def _encoded(
    images: list[np.ndarray], autoencoder: FaceAutoencoder | StableAutoencoder, pixels: int
) -> np.ndarray:
    """Latents (N, 4, h, w) float16 of pictures (H, W, 3) that are enlarged to ``pixels``."""
    device = next(autoencoder.parameters()).device
    with torch.inference_mode():
        found = autoencoder.encode(pictures([enlarged(image, pixels) for image in images], device))
    return found.half().cpu().numpy()


def _rows(
    manifest: Manifest,
    item: Item,
    face: FaceModel,
    warp: MeshWarp,
    frames: int,
    generator: np.random.Generator,
) -> Iterator[tuple[np.ndarray, ...]]:
    """What :data:`_ROW` names: pictures, and meshes of the target and of the frame before."""
    track = manifest.track(item)
    usable = np.flatnonzero(track.found[1:] & track.found[:-1] & (np.diff(track.frames) == 1)) + 1
    if len(usable) < 4:
        return
    targets = generator.choice(usable, min(frames, len(usable)), replace=False)
    references = generator.choice(usable, len(targets))
    wanted = {int(k) for k in (*targets, *(targets - 1), *references)}
    seen = _windowed(manifest, item, track, wanted, face)
    for target, reference in zip(targets.tolist(), references.tolist(), strict=True):
        if {target, target - 1, reference} <= seen.images.keys():
            shown = seen.images[reference], seen.points[reference]
            moved, moved_before = (
                move_portrait(*shown, seen.points[number], seen.neutral, warp)
                for number in (target, target - 1)
            )
            yield (
                seen.images[target],
                moved,
                seen.images[target - 1],
                moved_before,
                seen.points[target],
                seen.points[target - 1],
            )


def _windowed(manifest: Manifest, item: Item, track: Track, wanted: set[int], face: FaceModel) -> _ClipFrames:
    """Cut the wanted frames through a window that suits the median face."""
    points = track.points
    neutral = face.fit(points[:: max(1, len(points) // 50)]).neutral
    number = {int(track.frames[k]): k for k in wanted}
    images, matrix = {}, np.eye(2, 3)
    for index, image in manifest.frames(item, number):
        matrix = portrait_matrix(np.median(points, 0), image.shape[1::-1])
        images[number[index]] = cut(image, matrix, PIXELS)
    return _ClipFrames(images, np.stack([transform(one, matrix) for one in points]), neutral)
