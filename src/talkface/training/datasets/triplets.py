"""Frames of clips for SCA and MBA: a frame, a reference moved to its mesh, and the frame before.

The reference is moved to the mesh of the frame before, too: from that a video draws the frame before.

All frames of a clip are seen through the same crop, so that what is around the head stays still.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from talkface.data.arrays import kept_arrays
from talkface.data.manifest import Item, Track
from talkface.data.parallel import parallel_map
from talkface.face.crop import cut, transform
from talkface.face.portrait import PORTRAIT_PIXELS, portrait_matrix
from talkface.face.warp import MeshWarp
from talkface.nn.marks import marked
from talkface.systems.imagineid.reference_warp import move_portrait
from talkface.training.datasets.encoding import ClipSource, Examples

logger = logging.getLogger(__name__)

_LEAST_FRAMES = 4  # usable frames without which a clip is left out
_MESHES = "points", "before_points"
_ROW = "target", "moved", "before", "moved_before", *_MESHES  # columns that each frame has of its own


@dataclass(frozen=True)
class FrameTriplets(Examples):
    """Latents (N, 4, h, w) float16 of frames, and meshes (N, 478, 3) in pixels of their pictures.

    Attributes:
        target: frames to be drawn.
        moved: the reference, its pixels moved to the target's mesh.
        before: the frames before.
        moved_before: the reference, its pixels moved to the mesh of the frame before.
        points: the target's mesh.
        before_points: the mesh of the frame before.
        weight: (N,) probability with which each is drawn.
    """

    target: np.ndarray
    moved: np.ndarray
    before: np.ndarray
    moved_before: np.ndarray
    points: np.ndarray
    before_points: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, source: ClipSource, frames: int) -> "FrameTriplets":
        """``frames`` of each clip of a split at most; cut and encoded on first use and kept."""
        # Data with other columns have another name: what an older version kept is not read.
        columns = marked(" ".join(field.name for field in fields(cls)))
        path = source.file("footage", frames, f"-{columns}")
        return kept_arrays(cls, path, lambda: _collect(source, frames))


@dataclass(frozen=True)
class _CroppedClip:
    """Some frames of a clip through one crop: pictures by their numbers, and all meshes (T, 478, 3)."""

    images: dict[int, np.ndarray]
    points: np.ndarray
    neutral: np.ndarray


def _collect(source: ClipSource, frames: int) -> FrameTriplets:
    warp = source.face.mesh_warp()
    columns: dict[str, list[np.ndarray]] = {field.name: [] for field in fields(FrameTriplets)}
    usable = [i for i in source.manifest.items if i.has_video and i.usable]
    clips = source.choose(item for item in usable if item.split == source.split)

    def rows_of(number: int) -> list[tuple[np.ndarray, ...]]:
        generator = np.random.default_rng([source.seed, number])
        return list(_rows(source, clips.items[number], warp, frames, generator))

    for number, rows in enumerate(parallel_map(rows_of, range(len(clips)))):
        if not rows:
            continue
        for name, column in zip(_ROW, zip(*rows, strict=True), strict=True):
            if name in _MESHES:
                columns[name].append(np.stack(column).astype(np.float32))
            else:
                columns[name].append(source.encode(column))
        columns["weight"].append(np.full(len(rows), clips.weight(number)))
        if number % 50 == 0:
            logger.info("frames of %d of %d clips", number, len(clips))
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    joined["weight"] = joined["weight"] / joined["weight"].sum()
    return FrameTriplets(**joined)


def _rows(
    source: ClipSource, item: Item, warp: MeshWarp, frames: int, generator: np.random.Generator
) -> Iterator[tuple[np.ndarray, ...]]:
    """What :data:`_ROW` names: pictures, and meshes of the target and of the frame before."""
    track = source.manifest.track(item)
    successive = track.found[1:] & track.found[:-1] & (np.diff(track.frames) == 1)
    usable = np.flatnonzero(successive) + 1
    if len(usable) < _LEAST_FRAMES:
        return
    targets = generator.choice(usable, min(frames, len(usable)), replace=False)
    references = generator.choice(usable, len(targets))
    wanted = {int(k) for k in (*targets, *(targets - 1), *references)}
    clip = _cropped(source, item, track, wanted)
    images, points = clip.images, clip.points
    for target, reference in zip(targets.tolist(), references.tolist(), strict=True):
        before = target - 1
        if {target, before, reference} <= images.keys():
            moved, moved_before = (
                move_portrait(images[reference], points[reference], points[number], clip.neutral, warp)
                for number in (target, before)
            )
            yield images[target], moved, images[before], moved_before, points[target], points[before]


def _cropped(source: ClipSource, item: Item, track: Track, wanted: set[int]) -> _CroppedClip:
    """Cut the wanted frames through a crop that suits the median face."""
    points = track.points
    neutral = source.face.fit(points[:: max(1, len(points) // 50)]).neutral
    number = {int(track.frames[k]): k for k in wanted}
    images, matrix = {}, np.eye(2, 3)
    for index, image in source.manifest.frames(item, number):
        matrix = portrait_matrix(np.median(points, 0), image.shape[1::-1])
        images[number[index]] = cut(image, matrix, PORTRAIT_PIXELS)
    return _CroppedClip(images, np.stack([transform(one, matrix) for one in points]), neutral)
