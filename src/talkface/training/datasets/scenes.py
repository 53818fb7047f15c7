"""Windows of clips with a hole where the face is: what both stages of TCCP learn from.

A window's frames are seen through the same crop; the hole may be larger or smaller, follow the face or not.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from talkface.data.arrays import kept_arrays
from talkface.data.manifest import Item, Manifest
from talkface.data.parallel import parallel_map
from talkface.diffusion.autoencoder import LATENT_FACTOR
from talkface.diffusion.base import Base
from talkface.face.crop import cut, transform
from talkface.face.model import FaceModel
from talkface.face.motion import FaceMotion
from talkface.face.portrait import PORTRAIT_PIXELS, portrait_matrix
from talkface.hub import COMPACT
from talkface.nn.marks import latents_mark, weights_mark
from talkface.rendering.portrait import PortraitRenderer
from talkface.rendering.refiner import Refiner
from talkface.systems.tccp.config import WINDOW_FRAMES
from talkface.systems.tccp.crops import scene_matrix
from talkface.systems.tccp.drawing import landmark_picture
from talkface.systems.tccp.estimate import REVISION, initial_estimate
from talkface.systems.tccp.holes import beside, box_hole, cells, covered, face_hole
from talkface.systems.tccp.neighbours import LIP_CONTEXT_FRAMES, content_neighbours, neighbours
from talkface.training.datasets.clips import ClipReader
from talkface.training.datasets.encoding import ClipSource, Examples
from talkface.training.datasets.latents import light_table

logger = logging.getLogger(__name__)

_COMPOSED = 0.25  # share of clips beside whose hole somebody else is seen
_WINDOWS_OF_ONE = 24  # clips of a speaker from which on fewer windows are taken of each
_ENCODED = "target", "context", "drawn", "moved", "portrait"  # what is kept as latents


@dataclass(frozen=True, kw_only=True)
class SceneSettings:
    """Settings that every training on scenes has.

    Attributes:
        base: name or directory of the frozen LDM in whose latents scenes are kept.
        face_model: name or directory of the 3DMM.
        refiner: name or directory of the refiner of TH-PAD's generator, which moves the references.
        windows: of each clip.
    """

    base: str = COMPACT
    face_model: str = "face"
    refiner: str = "thpad-refiner"
    windows: int = 4


@dataclass(frozen=True)
class Scenes(Examples):
    """N windows of T frames; latents are float16.

    Attributes:
        target: (N, T, 4, h, w) the frames.
        context: (N, T, 4, h, w) the frames with the hole covered.
        drawn: (N, T, 4, h, w) pictures of the landmarks.
        moved: (N, T, 4, h, w) initial estimates: the reference, moved to each frame's mesh by TH-PAD's
            generator, over the context continued into the hole.
        portrait: (N, 4, h, w) the reference as it is.
        hidden: (N, T, h, w) float16, what share of each latent is covered.
        points: (N, T, 478, 3) float32 meshes in pixels of the pictures.
        lips: (N, T, 5, M) float16 mouth coefficients around each frame.
        audio: (N, T, 4, C) float16 content features around each frame; C is 0 if they are not wanted.
        weight: (N,) probability with which each is drawn.
    """

    target: np.ndarray
    context: np.ndarray
    drawn: np.ndarray
    moved: np.ndarray
    portrait: np.ndarray
    hidden: np.ndarray
    points: np.ndarray
    lips: np.ndarray
    audio: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, source: ClipSource, refiner: Refiner, windows: int, hears: bool = True) -> "Scenes":
        """Windows of all talking clips of a split; cut and encoded on first use and kept.

        Args:
            source: the clips; its mark tells the refiner from others, too.
            refiner: of TH-PAD's generator, which moves the references.
            windows: of each clip.
            hears: whether content features are wanted.
        """
        path = source.file(f"scenes{REVISION}", windows, "" if hears else "-deaf")
        return kept_arrays(cls, path, lambda: _collect(source, refiner, windows, hears))


def of_both_splits(
    data: Path,
    base: Base,
    face: FaceModel,
    refiner: Refiner,
    windows: int,
    seed: int = 0,
    hears: bool = True,
) -> tuple[Scenes, Scenes]:
    """Windows of a prepared folder's training and validation clips, in the latents of a base."""
    manifest = Manifest.load(data)
    train = ClipSource(
        manifest=manifest,
        split="train",
        face=face,
        autoencoder=base.autoencoder,
        mark=f"{latents_mark(base.autoencoder)}-{weights_mark(refiner)}",
        seed=seed,
        pixels=base.pixels,
    )
    splits = train, replace(train, split=manifest.choosing)
    first, second = (Scenes.of(source, refiner, windows, hears) for source in splits)
    return first, second


@dataclass(frozen=True)
class _WindowPlan:
    """What is drawn at random of a window.

    Attributes:
        frames: numbers of its frames.
        reference: number of the frame that shows the identity.
        zoom, shift: of the crop, as in :func:`~talkface.systems.tccp.crops.scene_matrix`.
        margin: (4,) by how much the hole is larger than the face.
        kind: of the hole: "moving", "still", "box" or "moving box".
    """

    frames: list[int]
    reference: int
    zoom: float
    shift: np.ndarray
    margin: np.ndarray
    kind: str


def _draw_plan(generator: np.random.Generator, first: int, reference: int) -> _WindowPlan:
    return _WindowPlan(
        frames=list(range(first, first + WINDOW_FRAMES)),
        reference=reference,
        zoom=float(generator.uniform(1.0, 1.35)),
        shift=generator.uniform(-0.06, 0.06, 2),
        margin=generator.uniform(0.12, 0.55, 4),
        kind=str(generator.choice(["moving", "still", "box", "moving box"], p=[0.4, 0.25, 0.2, 0.15])),
    )


def draw_hole(points: np.ndarray, middle: np.ndarray, plan: _WindowPlan) -> np.ndarray:
    """The hole (H, W) of a frame with mesh (478, 3); ``middle`` is the mesh that a still hole is made for."""
    mesh = points if plan.kind.startswith("moving") else middle
    size = (PORTRAIT_PIXELS, PORTRAIT_PIXELS)
    if plan.kind in ("moving", "still"):
        extra = 0.15 if plan.kind == "still" else 0.0
        return face_hole(mesh, size, float(plan.margin[0]) + extra)
    low, high = mesh[:, :2].min(0), mesh[:, :2].max(0)
    extent = high - low
    box = (*(low - plan.margin[:2] * 0.5 * extent), *(high + plan.margin[2:] * 0.5 * extent))
    return box_hole(box, size)


def _collect(source: ClipSource, refiner: Refiner, windows: int, hears: bool) -> Scenes:
    manifest = source.manifest
    reader = ClipReader(manifest, source.face, "student" if hears else "none")
    clips = source.choose(reader.items(source.split))
    columns: dict[str, list[np.ndarray]] = {field.name: [] for field in fields(Scenes)}

    def windows_of(number: int) -> list[dict[str, Any]]:
        generator = np.random.default_rng([source.seed, number])
        count = _some(clips.of_same_speaker(number), windows, generator)
        composed = number and generator.random() < _COMPOSED
        others = _strangers(manifest, clips.items[number - 1]) if composed else None
        maker = _WindowMaker(source.face, refiner, generator, others)
        return list(_rows(manifest, clips.items[number], reader, count, maker))

    for number, rows in enumerate(parallel_map(windows_of, range(len(clips)))):
        for row in rows:
            encoded = _encoded(source, {name: row.pop(name) for name in _ENCODED})
            for name, value in {**row, **encoded}.items():
                columns[name].append(value)
            columns["weight"].append(np.array(clips.weight(number), np.float32))
        if number % 50 == 0:
            logger.info("scenes of %d of %d clips", number, len(clips))
    joined = {name: np.stack(parts) for name, parts in columns.items()}
    joined["weight"] = joined["weight"] / joined["weight"].sum()
    return Scenes(**joined)


def _strangers(manifest: Manifest, item: Item) -> list[np.ndarray] | None:
    """Frames of somebody else's clip, to be seen beside a face; None where there are too few."""
    track = manifest.track(item)
    if len(track.frames) < WINDOW_FRAMES:
        return None
    middle, wanted = np.median(track.points[:WINDOW_FRAMES], 0), set(track.frames[:WINDOW_FRAMES].tolist())
    images = [image for _, image in manifest.frames(item, wanted)]
    if len(images) < WINDOW_FRAMES:
        return None
    matrix = scene_matrix(middle, images[0].shape[1::-1], 1.2)
    return [cut(image, matrix, PORTRAIT_PIXELS) for image in images]


def _some(clips: int, windows: int, generator: np.random.Generator) -> int:
    """Windows of a clip whose speaker has so many: fewer of each where there are many."""
    wanted = windows * min(1.0, _WINDOWS_OF_ONE / clips)
    return int(wanted) + int(generator.random() < wanted % 1)


def _encoded(source: ClipSource, given: dict[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
    """Latents of named lists of pictures; of the portrait only one."""
    latents = source.encode([image for images in given.values() for image in images])
    parts = np.split(latents, np.cumsum([len(images) for images in given.values()])[:-1])
    named = dict(zip(given, parts, strict=True))
    return {**named, "portrait": named["portrait"][0]}


def _rows(
    manifest: Manifest, item: Item, reader: ClipReader, windows: int, maker: "_WindowMaker"
) -> Iterator[dict[str, Any]]:
    """Windows of one clip, as pictures."""
    track = manifest.track(item)
    steady = track.found[1:] & track.found[:-1] & (np.diff(track.frames) == 1)
    if not windows or len(steady) < WINDOW_FRAMES:
        return
    runs = np.lib.stride_tricks.sliding_window_view(steady, WINDOW_FRAMES - 1).all(1)
    firsts = np.flatnonzero(runs)
    if len(firsts) < 4:
        return
    example = reader.read(item)
    lips, audio = neighbours(example.beta_mouth, LIP_CONTEXT_FRAMES), content_neighbours(example.content)
    if not len(lips):
        return
    seen = np.flatnonzero(track.found)
    plans = [
        _draw_plan(maker.generator, int(first), int(maker.generator.choice(seen)))
        for first in maker.generator.choice(firsts, min(windows, len(firsts)), replace=False)
    ]
    number = {int(track.frames[k]): k for plan in plans for k in (*plan.frames, plan.reference)}
    images = {number[index]: image for index, image in manifest.frames(item, number)}
    motion = maker.face.fit(track.points).motion
    for plan in plans:
        if {*plan.frames, plan.reference} <= images.keys():
            place = [int(np.abs(example.times - track.times[k]).argmin()) for k in plan.frames]
            yield maker(images, track.points, motion, plan) | {
                "lips": lips[place].astype(np.float16),
                "audio": audio[place].astype(np.float16),
            }


@dataclass(frozen=True)
class _WindowMaker:
    """Cuts windows of one clip.

    Attributes:
        face: the 3DMM.
        refiner: of TH-PAD's generator.
        generator: draws the light of references.
        strangers: frames of somebody else, who is seen beside the hole; None for nobody.
    """

    face: FaceModel
    refiner: Refiner
    generator: np.random.Generator
    strangers: list[np.ndarray] | None

    def __call__(
        self, images: dict[int, np.ndarray], points: np.ndarray, motion: FaceMotion, plan: _WindowPlan
    ) -> dict[str, Any]:
        """Pictures, holes and meshes of a window.

        Args:
            images: frames of the clip by their numbers, those of the plan among them.
            points: (F, 478, 3) meshes of all its frames, pixels.
            motion: of all its frames.
            plan: of the window.
        """
        size = images[plan.reference].shape[1::-1]
        middle = np.median(points[plan.frames], 0)
        matrix = scene_matrix(middle, size, plan.zoom, plan.shift)
        meshes = np.stack([transform(points[k], matrix) for k in plan.frames])
        frames = [cut(images[k], matrix, PORTRAIT_PIXELS) for k in plan.frames]
        holes = [draw_hole(mesh, transform(middle, matrix), plan) for mesh in meshes]
        if self.strangers is not None:
            frames = _composed(frames, self.strangers, beside(np.stack(holes)))
        own = points[plan.reference]
        upright = portrait_matrix(own, size)
        portrait = cut(images[plan.reference], upright, PORTRAIT_PIXELS)
        portrait = cv2.LUT(portrait, _light(self.generator))
        talking = PortraitRenderer(portrait, transform(own, upright), self.face, self.refiner, whole=True)
        moved = talking.at(meshes, motion[plan.frames[0] : plan.frames[-1] + 1])
        latent_side = PORTRAIT_PIXELS // LATENT_FACTOR
        return {
            "target": frames,
            "context": [covered(frame, hole) for frame, hole in zip(frames, holes, strict=True)],
            "drawn": [landmark_picture(talking.warp, mesh) for mesh in meshes],
            "moved": [initial_estimate(*row) for row in zip(frames, holes, moved, meshes, strict=True)],
            "portrait": [portrait],
            "hidden": np.stack([cells(hole, latent_side) for hole in holes]).astype(np.float16),
            "points": meshes.astype(np.float32),
        }


def _composed(frames: list[np.ndarray], strangers: list[np.ndarray], place: slice | None) -> list[np.ndarray]:
    """Frames with somebody else's head, or half of it, in some of their columns."""
    if place is None:
        return frames
    width = place.stop - place.start
    first = (PORTRAIT_PIXELS - width) // 2
    for frame, stranger in zip(frames, strangers, strict=True):
        frame[:, place] = stranger[:, first : first + width]
    return frames


def _light(generator: np.random.Generator) -> np.ndarray:
    """A table of random light and colours: an identity's picture is not taken in the scene."""
    gain = generator.normal(1, 0.07, 3) * generator.normal(1, 0.12)
    return light_table(gain, float(np.exp(generator.normal(0, 0.18))))
