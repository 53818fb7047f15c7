"""Clips in low resolution, with more around the head than portraits have, for TCCP's stage 1."""

import logging
from dataclasses import dataclass

import numpy as np

from talkface.data.arrays import kept_arrays
from talkface.data.faces import Portrait, portraits, weights
from talkface.data.manifest import Item, Manifest
from talkface.face.crop import cut, face_unit, transform
from talkface.face.model import FaceModel, Pose, estimate_pose
from talkface.face.portrait import PORTRAIT_PIXELS
from talkface.systems.tccp.landmarks import LandmarkConfig, view_matrix
from talkface.systems.tccp.neighbours import content_neighbours
from talkface.systems.tccp.views import context_view, pose_in_view
from talkface.training.datasets.clips import ClipReader
from talkface.training.datasets.encoding import Examples

logger = logging.getLogger(__name__)

CONTEXT_PIXELS = 96
"""Side of the pictures kept."""
_ROOM = 4.2  # their side, in inter-ocular distances
_MOST_SECONDS = 8.0  # of a clip
_LEAST_FRAMES = 30  # of a clip
_CONTENT = LandmarkConfig().content
_FRAME_MARK = "@"  # in the key of a portrait that is a frame of a clip
_MOST_CLIPS = 60  # of one speaker


@dataclass(frozen=True)
class Contexts(Examples):
    """N clips of F frames in all, at 25 fps.

    Attributes:
        starts: (N + 1,) where each clip's frames begin and the last one's end.
        images: (F, 96, 96, 3) uint8.
        points: (F, 478, 3) float16 meshes in pixels of these.
        rotation, scale, translation: (F, ...) poses of the meshes, as :class:`~talkface.face.model.Pose`.
        audio: (F, 4, C) float16 content features.
        alpha: (N, I) identity coefficients.
        weight: (N,) probability with which each clip is drawn.
    """

    starts: np.ndarray
    images: np.ndarray
    points: np.ndarray
    rotation: np.ndarray
    scale: np.ndarray
    translation: np.ndarray
    audio: np.ndarray
    alpha: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, manifest: Manifest, split: str, face: FaceModel) -> "Contexts":
        """All talking clips of a split; cut on first use and kept. Validation is on unseen people only."""
        path = manifest.directory / f"contexts-{split}.npz"
        return kept_arrays(cls, path, lambda: cls(**_collect(manifest, split, face)))

    @classmethod
    def of_stills(cls, manifest: Manifest, split: str, face: FaceModel) -> "Contexts | None":
        """Stills of a split as clips of one frame without a voice; None if there are none."""
        album = [one for one in portraits(manifest) if one.split == split and _FRAME_MARK not in one.key]
        if not album:
            return None
        path = manifest.directory / f"contexts-stills-{split}.npz"
        return kept_arrays(cls, path, lambda: cls(**_collect_stills(album, face)))

    def view(self, frames: np.ndarray, outlines: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What is seen of frames around holes.

        Args:
            frames: (T,) their numbers.
            outlines: (T, K, 2) convex outlines of the holes, in pixels of ``images``.

        Returns:
            (T, 4, 64, 64) float32 views as stage 1 takes them, (T, 6) poses, and (T,) pixels per unit.
        """
        views, poses, units = [], [], []
        for index, outline in zip(frames.tolist(), outlines, strict=True):
            box = np.concatenate([outline.min(0), outline.max(0)])
            matrix = view_matrix(box)
            views.append(context_view(self.images[index], outline, matrix))
            pose = Pose(*(getattr(self, name)[index][None] for name in ("rotation", "scale", "translation")))
            poses.append(pose_in_view(pose, matrix))
            units.append(self.scale[index] * matrix[0, 0])
        return np.stack(views), np.stack(poses), np.array(units, np.float32)


def _collect(manifest: Manifest, split: str, face: FaceModel) -> dict[str, np.ndarray]:
    reader = ClipReader(manifest, face)
    items = manifest.apart(reader.items(split))
    seen: dict[str, int] = {}
    clips: list[dict[str, np.ndarray]] = []
    speakers = []
    for number, item in enumerate(items):
        speaker = item.corpus + item.speaker
        seen[speaker] = seen.get(speaker, 0) + 1
        clip = _clip(manifest, item, face, reader) if seen[speaker] <= _MOST_CLIPS else None
        if clip is not None:
            clips.append(clip)
            speakers.append(speaker)
        if number % 50 == 0:
            logger.info("contexts of %d of %d clips", number, len(items))
    lengths = [len(clip["images"]) for clip in clips]
    weight = np.array([n * speakers.count(s) ** -0.5 for n, s in zip(lengths, speakers, strict=True)])
    joined = {name: np.concatenate([clip[name] for clip in clips]) for name in clips[0] if name != "alpha"}
    return joined | {
        "starts": np.concatenate([[0], np.cumsum(lengths)]),
        "alpha": np.stack([clip["alpha"] for clip in clips]),
        "weight": weight / weight.sum(),
    }


def _collect_stills(album: list[Portrait], face: FaceModel) -> dict[str, np.ndarray]:
    matrix = np.concatenate([np.eye(2), np.zeros((2, 1))], 1) * (CONTEXT_PIXELS / PORTRAIT_PIXELS)
    matrix[:, 2] = (CONTEXT_PIXELS / PORTRAIT_PIXELS - 1) / 2
    rows = []
    for portrait in album:
        mesh = transform(portrait.points, matrix)[None]
        fit = face.fit(mesh)
        pose = estimate_pose(mesh, fit.neutral)
        image = cut(portrait.image(), matrix, CONTEXT_PIXELS)
        rows.append((image, mesh[0], pose.rotation[0], pose.scale[0], pose.translation[0], fit.alpha))
    images, points, rotation, scale, translation, alpha = (np.stack(part) for part in zip(*rows, strict=True))
    return {
        "starts": np.arange(len(album) + 1),
        "images": images,
        "points": points.astype(np.float16),
        "rotation": rotation,
        "scale": scale,
        "translation": translation,
        "audio": np.zeros((len(album), 4, _CONTENT), np.float16),
        "alpha": alpha,
        "weight": weights(album),
    }


def _clip(
    manifest: Manifest, item: Item, face: FaceModel, reader: ClipReader
) -> dict[str, np.ndarray] | None:
    track, example = manifest.track(item), reader.read(item)
    times = example.times[example.times - example.times[:1] < _MOST_SECONDS]
    if len(times) < _LEAST_FRAMES:
        return None
    place = np.array([int(np.abs(track.times - time).argmin()) for time in times])
    if not track.found[place].mean() > 0.95:
        return None
    middle = np.median(track.points, 0)
    side = _ROOM * face_unit(middle)
    matrix = np.concatenate([np.eye(2), (side / 2 - middle[1, :2])[:, None]], 1) * (CONTEXT_PIXELS / side)
    wanted = {int(track.frames[k]) for k in place}
    images = {index: cut(image, matrix, CONTEXT_PIXELS) for index, image in manifest.frames(item, wanted)}
    if not wanted <= images.keys():
        return None
    fit = face.fit(track.points[:: max(1, len(track.points) // 60)])
    meshes = np.stack([transform(track.points[k], matrix) for k in place])
    pose = estimate_pose(meshes, fit.neutral)
    return {
        "images": np.stack([images[int(track.frames[k])] for k in place]),
        "points": meshes.astype(np.float16),
        "rotation": pose.rotation,
        "scale": pose.scale,
        "translation": pose.translation,
        "audio": content_neighbours(example.content)[: len(times)].astype(np.float16),
        "alpha": fit.alpha,
    }
