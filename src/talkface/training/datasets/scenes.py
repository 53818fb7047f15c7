"""Windows of clips with a hole where the face is: what both stages of TCCP learn from.

A window's frames are seen through the same crop; the hole may be larger or smaller, follow the face or not.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
import torch

from talkface.data.arrays import kept_arrays
from talkface.data.manifest import Item, Manifest
from talkface.data.side_by_side import side_by_side
from talkface.diffusion.autoencoder import FaceAutoencoder
from talkface.diffusion.base import Base
from talkface.diffusion.stable import StableAutoencoder
from talkface.face.crop import cut, transform
from talkface.face.model import FaceModel
from talkface.face.motion import FaceMotion
from talkface.face.portrait import PIXELS, portrait_matrix
from talkface.nn.marks import latents_mark, weights_mark
from talkface.nn.picture import enlarged, pictures
from talkface.rendering.portrait import PortraitRenderer
from talkface.rendering.refiner import Refiner
from talkface.systems.tccp.config import WINDOW
from talkface.systems.tccp.drawing import landmark_picture
from talkface.systems.tccp.guess import REVISION, first_guess
from talkface.systems.tccp.holes import beside, box_hole, cells, covered, face_hole
from talkface.systems.tccp.windows import AROUND, around, around_audio, scene_matrix
from talkface.training.datasets.clips import ClipReader

logger = logging.getLogger(__name__)

_COMPOSED = 0.25  # share of clips beside which there is somebody else


@dataclass(frozen=True)
class Scenes:
    """N windows of T frames; latents are float16.

    Attributes:
        target: (N, T, 4, h, w) the frames.
        context: (N, T, 4, h, w) the frames with the hole covered.
        drawn: (N, T, 4, h, w) pictures of the landmarks.
        moved: (N, T, 4, h, w) first guesses: the reference, moved to each frame's mesh by TH-PAD's generator,
            over the context continued into the hole.
        portrait: (N, 4, h, w) the reference as it is.
        hidden: (N, T, h, w) float16, what share of each latent is covered.
        points: (N, T, 478, 3) float32 meshes in pixels of the pictures.
        lips: (N, T, 5, M) float16 mouth coefficients around each frame.
        audio: (N, T, 4, C) float16 content features around each frame; C is 0 for who does not hear.
        weight: (N,) how often each is to be drawn.
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

    def __len__(self) -> int:
        return len(self.target)

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        split: str,
        face: FaceModel,
        autoencoder: FaceAutoencoder | StableAutoencoder,
        refiner: Refiner,
        windows: int,
        mark: str,
        seed: int = 0,
        pixels: int = PIXELS,
        hears: bool = True,
    ) -> "Scenes":
        """Windows of all talking clips of a split; cut and encoded on first use and kept.

        Those of people who are in the training split, too, are left out of the validation split.

        Args:
            manifest: the prepared folder.
            split: "train" or "val".
            face: the 3DMM.
            autoencoder: frozen.
            refiner: of TH-PAD's generator, which moves the references.
            windows: of each clip.
            mark: tells all of these from others.
            seed: of windows, holes and references.
            pixels: side of the pictures that are encoded; meshes stay in pixels of the portraits.
            hears: whether content features are wanted.
        """
        name = f"scenes{REVISION}-{split}-{windows}-{seed}-{pixels}-{mark}{'' if hears else '-deaf'}.npz"
        given = (manifest, split, face, autoencoder, refiner, windows, seed, pixels, hears)
        return kept_arrays(cls, manifest.directory / name, lambda: _collect(*given))


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
    mark = f"{latents_mark(base.autoencoder)}-{weights_mark(refiner)}"
    given = (face, base.autoencoder, refiner, windows, mark, seed, base.pixels, hears)
    return Scenes.of(manifest, "train", *given), Scenes.of(manifest, manifest.choosing, *given)


@dataclass(frozen=True)
class _Take:
    """A stretch of a clip: which frames, through which crop, with which hole, and another frame."""

    frames: list[int]
    reference: int
    zoom: float
    shift: np.ndarray
    margin: np.ndarray
    kind: str


def _draw_take(generator: np.random.Generator, first: int, reference: int) -> _Take:
    return _Take(
        frames=list(range(first, first + WINDOW)),
        reference=reference,
        zoom=float(generator.uniform(1.0, 1.35)),
        shift=generator.uniform(-0.06, 0.06, 2),
        margin=generator.uniform(0.12, 0.55, 4),
        kind=str(generator.choice(["moving", "still", "box", "moving box"], p=[0.4, 0.25, 0.2, 0.15])),
    )


def draw_hole(points: np.ndarray, middle: np.ndarray, take: _Take) -> np.ndarray:
    """The hole (H, W) of a frame with mesh (478, 3); ``middle`` is the mesh that a still hole is made for."""
    mesh = points if take.kind.startswith("moving") else middle
    size = (PIXELS, PIXELS)
    if take.kind in ("moving", "still"):
        extra = 0.15 if take.kind == "still" else 0.0
        return face_hole(mesh, size, float(take.margin[0]) + extra)
    low, high = mesh[:, :2].min(0), mesh[:, :2].max(0)
    extent = high - low
    box = (*(low - take.margin[:2] * 0.5 * extent), *(high + take.margin[2:] * 0.5 * extent))
    return box_hole(box, size)


def _collect(
    manifest: Manifest,
    split: str,
    face: FaceModel,
    autoencoder: FaceAutoencoder | StableAutoencoder,
    refiner: Refiner,
    windows: int,
    seed: int,
    pixels: int,
    hears: bool,
) -> Scenes:
    reader = ClipReader(manifest, face, "student" if hears else "none")
    chosen = manifest.apart(reader.items(split))
    speakers = [item.corpus + item.speaker for item in chosen]
    columns: dict[str, list[np.ndarray]] = {field.name: [] for field in fields(Scenes)}

    def windows_of(number: int) -> list[dict]:
        generator = np.random.default_rng([seed, number])
        count = _some(speakers.count(speakers[number]), windows, generator)
        composed = number and generator.random() < _COMPOSED
        others = _strangers(manifest, chosen[number - 1]) if composed else None
        return list(_rows(manifest, chosen[number], face, refiner, reader, count, generator, others))

    for number, rows in enumerate(side_by_side(windows_of, range(len(chosen)))):
        for row in rows:
            pictures_of = {
                name: row.pop(name) for name in ("target", "context", "drawn", "moved", "portrait")
            }
            encoded = _encoded(autoencoder, pictures_of, pixels)
            for name, value in {**row, **encoded}.items():
                columns[name].append(value)
            columns["weight"].append(np.array(speakers.count(speakers[number]) ** -0.7, np.float32))
        if number % 50 == 0:
            logger.info("scenes of %d of %d clips", number, len(chosen))
    joined = {name: np.stack(parts) for name, parts in columns.items()}
    joined["weight"] = joined["weight"] / joined["weight"].sum()
    return Scenes(**joined)


def _strangers(manifest: Manifest, item: Item) -> list[np.ndarray] | None:
    """Frames of somebody else's clip, to be seen beside a face; None where there are too few."""
    track = manifest.track(item)
    if len(track.frames) < WINDOW:
        return None
    middle, wanted = np.median(track.points[:WINDOW], 0), set(track.frames[:WINDOW].tolist())
    images = [image for _, image in manifest.frames(item, wanted)]
    if len(images) < WINDOW:
        return None
    matrix = scene_matrix(middle, images[0].shape[1::-1], 1.2)
    return [cut(image, matrix, PIXELS) for image in images]


def _some(clips: int, windows: int, generator: np.random.Generator) -> int:
    """Windows of a clip whose speaker has so many: fewer of each where there are many."""
    wanted = windows * min(1.0, 24 / clips)
    return int(wanted) + int(generator.random() < wanted % 1)


def _encoded(
    autoencoder: FaceAutoencoder | StableAutoencoder, given: dict[str, list[np.ndarray]], pixels: int
) -> dict[str, np.ndarray]:
    device = next(autoencoder.parameters()).device
    flat = [enlarged(image, pixels) for images in given.values() for image in images]
    with torch.inference_mode():
        latents = autoencoder.encode(pictures(flat, device)).half().cpu().numpy()
    parts = np.split(latents, np.cumsum([len(images) for images in given.values()])[:-1])
    named = dict(zip(given, parts, strict=True))
    return {**named, "portrait": named["portrait"][0]}


def _rows(
    manifest: Manifest,
    item: Item,
    face: FaceModel,
    refiner: Refiner,
    reader: ClipReader,
    windows: int,
    generator: np.random.Generator,
    strangers: list[np.ndarray] | None,
) -> Iterator[dict]:
    """Windows of one clip, as pictures; with frames of strangers, somebody else is beside."""
    track = manifest.track(item)
    steady = track.found[1:] & track.found[:-1] & (np.diff(track.frames) == 1)
    if not windows or len(steady) < WINDOW:
        return
    runs = np.lib.stride_tricks.sliding_window_view(steady, WINDOW - 1).all(1)
    firsts = np.flatnonzero(runs)
    if len(firsts) < 4:
        return
    example = reader.read(item)
    lips, audio = around(example.beta_mouth, AROUND), around_audio(example.content)
    if not len(lips):
        return
    seen = np.flatnonzero(track.found)
    takes = [
        _draw_take(generator, int(first), int(generator.choice(seen)))
        for first in generator.choice(firsts, min(windows, len(firsts)), replace=False)
    ]
    number = {int(track.frames[k]): k for take in takes for k in (*take.frames, take.reference)}
    images = {number[index]: image for index, image in manifest.frames(item, number)}
    motion = face.fit(track.points).motion
    for take in takes:
        if {*take.frames, take.reference} <= images.keys():
            place = [int(np.abs(example.times - track.times[k]).argmin()) for k in take.frames]
            pictures_of = _window(images, track.points, motion, take, face, refiner, generator, strangers)
            yield pictures_of | {
                "lips": lips[place].astype(np.float16),
                "audio": audio[place].astype(np.float16),
            }


def _window(
    images: dict[int, np.ndarray],
    points: np.ndarray,
    motion: FaceMotion,
    take: _Take,
    face: FaceModel,
    refiner: Refiner,
    generator: np.random.Generator,
    strangers: list[np.ndarray] | None,
) -> dict:
    middle = np.median(points[take.frames], 0)
    matrix = scene_matrix(middle, images[take.reference].shape[1::-1], take.zoom, take.shift)
    meshes = np.stack([transform(points[k], matrix) for k in take.frames])
    frames = [cut(images[k], matrix, PIXELS) for k in take.frames]
    holes = [draw_hole(mesh, transform(middle, matrix), take) for mesh in meshes]
    if strangers is not None:
        frames = _composed(frames, strangers, beside(np.stack(holes)))
    own = points[take.reference]
    table = _light(generator)
    upright = portrait_matrix(own, images[take.reference].shape[1::-1])
    portrait = cv2.LUT(cut(images[take.reference], upright, PIXELS), table)
    source = transform(own, upright)
    talking = PortraitRenderer(portrait, source, face, refiner, whole=True)
    moved = talking.at(meshes, motion[take.frames[0] : take.frames[-1] + 1])
    return {
        "target": frames,
        "context": [covered(frame, hole) for frame, hole in zip(frames, holes, strict=True)],
        "drawn": [landmark_picture(talking.warp, mesh) for mesh in meshes],
        "moved": [first_guess(*row) for row in zip(frames, holes, moved, meshes, strict=True)],
        "portrait": [portrait],
        "hidden": np.stack([cells(hole, PIXELS // 8) for hole in holes]).astype(np.float16),
        "points": meshes.astype(np.float32),
    }


def _composed(frames: list[np.ndarray], strangers: list[np.ndarray], place: slice | None) -> list[np.ndarray]:
    """Frames with somebody else's head, or half of it, in some of their columns."""
    if place is None:
        return frames
    width = place.stop - place.start
    first = (PIXELS - width) // 2
    for frame, stranger in zip(frames, strangers, strict=True):
        frame[:, place] = stranger[:, first : first + width]
    return frames


def _light(generator: np.random.Generator) -> np.ndarray:
    """A table for another light and other colours: an identity's picture was not taken in the scene."""
    gain = generator.normal(1, 0.07, 3) * generator.normal(1, 0.12)
    gamma = np.exp(generator.normal(0, 0.18))
    table = 255 * np.clip(np.linspace(0, 1, 256)[:, None] ** gamma * gain, 0, 1)
    return table.round().astype(np.uint8)[None]
