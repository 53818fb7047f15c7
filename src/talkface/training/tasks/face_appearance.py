"""Learns :class:`AppearanceModel`: linear discriminant analysis on flat faces, in closed form."""

import csv
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from talkface.data.manifest import Manifest
from talkface.errors import UnreadableMedia
from talkface.face import topology as tp
from talkface.face.model import FaceModel
from talkface.face.people.appearance import HEIGHT, WIDTH, Appearance, AppearanceModel, twice_area
from talkface.face.tracker import FaceTracker
from talkface.hub import save_pretrained
from talkface.media.image import load_image
from talkface.training import ClosedFormTask

logger = logging.getLogger(__name__)

_PICTURES = ("pairs.tsv", "faces.tsv")  # tables of still pictures, with the person's name


@dataclass(frozen=True, kw_only=True)
class AppearanceConfig:
    """Sizes, and what of the data is used.

    Attributes:
        dimensions: of the descriptor.
        views_per_clip: frames taken from a clip.
        clips_per_person: at most.
        pictures: weight of the differences between still pictures of a person, taken at different times,
            against those between views of a clip.
        shrinkage: of the differences within people towards a multiple of the unit matrix.
    """

    dimensions: int = 96
    views_per_clip: int = 10
    clips_per_person: int = 6
    pictures: float = 0.3
    shrinkage: float = 0.1


@dataclass(frozen=True)
class View:
    """A descriptor with its person, clip, corpus, place in the clip (0 to 1) and split."""

    appearance: Appearance
    person: str
    clip: str
    corpus: str
    place: float
    split: str


def layout(face: FaceModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the samples of a flat face lie on the mesh: ``corners``, ``weights``, ``area`` of the model."""
    from scipy.spatial import Delaunay

    flat = face.mean[: tp.FACE_VERTICES, :2].astype(np.float64)
    low, high = flat.min(0), flat.max(0)
    x, y = np.meshgrid((np.arange(WIDTH) + 0.5) / WIDTH, (np.arange(HEIGHT) + 0.5) / HEIGHT)
    samples = low + np.stack([x.ravel(), y.ravel()], 1) * (high - low)
    mesh = Delaunay(flat)
    index = mesh.find_simplex(samples)
    maps, corners = mesh.transform[index], mesh.simplices[index]
    first = np.einsum("pij,pj->pi", maps[:, :2], samples - maps[:, 2])
    weights = np.concatenate([first, 1 - first.sum(1, keepdims=True)], 1)
    weights[index < 0] = 0.0
    area = twice_area(flat[corners])
    return corners.astype(np.int32), weights.astype(np.float32), area.astype(np.float32)


def read_views(manifest: Manifest, model: AppearanceModel, config: AppearanceConfig) -> list[View]:
    """Describe frames of the clips of a prepared folder, and the pictures beside them."""
    return [*_clips(manifest, model, config), *_pictures(manifest.root, model)]


def _clips(manifest: Manifest, model: AppearanceModel, config: AppearanceConfig) -> Iterator[View]:
    seen: dict[str, int] = {}
    for item in manifest.items:
        person = f"{item.corpus} {item.speaker}"
        if not (item.has_video and item.usable) or seen.get(person, 0) >= config.clips_per_person:
            continue
        seen[person] = seen.get(person, 0) + 1
        track = manifest.track(item)
        chosen = np.linspace(0, len(track.frames) - 1, config.views_per_clip).astype(int)
        places = {int(track.frames[i]): i for i in chosen if track.found[i]}
        for index, image in manifest.frames(item, places):
            i = places[index]
            appearance = model(image, track.points[i])
            yield View(appearance, person, item.key, item.corpus, i / len(track.frames), item.split)


def _pictures(root: Path, model: AppearanceModel) -> Iterator[View]:
    tracker = FaceTracker()
    for table in (root / name for name in _PICTURES):
        if not table.is_file():
            continue
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        for row in rows:
            path = root / (row.get("face") or row["file"])
            try:
                image = load_image(path)
            except UnreadableMedia as error:
                logger.warning("%s is left out: %s", path, error)
                continue
            for mesh in tracker.track_image(image)[:1]:
                person = f"{table.stem} {row['person']}"
                split = row.get("split", "train")
                yield View(model(image, mesh.points), person, str(path), table.stem, 0.0, split)


def learn(views: list[View], config: AppearanceConfig) -> tuple[np.ndarray, np.ndarray]:
    """Mean (P,) and projection (D, P) from views whose ``face`` is the flat face itself.

    Directions are kept in which people vary most, and scaled to how little views of one person do.
    """
    people: dict[str, list[np.ndarray]] = {}
    for view in views:
        people.setdefault(view.person, []).append(view.appearance.face)
    stacks = {person: np.stack(faces) for person, faces in people.items()}
    pictured = [stack for person, stack in stacks.items() if person.startswith(_stems())]
    filmed = [stack for person, stack in stacks.items() if not person.startswith(_stems())]
    mean = np.mean([stack.mean(0) for stack in stacks.values()], 0)
    balanced = np.concatenate([(stack - mean) / np.sqrt(len(stack)) for stack in stacks.values()])
    _, _, directions = np.linalg.svd(balanced, full_matrices=False)
    basis = directions[: config.dimensions]
    share = config.pictures if any(len(stack) > 1 for stack in pictured) else 0.0
    within = (1 - share) * _within(filmed, basis)
    if share:
        within += share * _within(pictured, basis)
    within += config.shrinkage * np.trace(within) / len(within) * np.eye(len(within))
    whitening = np.linalg.cholesky(np.linalg.inv(within)).T
    return mean.astype(np.float32), (whitening @ basis).astype(np.float32)


def _stems() -> tuple[str, ...]:
    return tuple(f"{Path(name).stem} " for name in _PICTURES)


def _within(stacks: list[np.ndarray], basis: np.ndarray) -> np.ndarray:
    """Mean covariance of the views of a person."""
    covariances = [np.cov((stack @ basis.T).T) for stack in stacks if len(stack) > 1]
    mean: np.ndarray = np.mean(covariances, 0)
    return mean


@dataclass(frozen=True)
class Pairs:
    """Comparisons of means of views, each (N,): the log-odds, likeness of faces alone, what is true."""

    odds: np.ndarray
    faces: np.ndarray
    same_person: np.ndarray
    same_clip: np.ndarray


def compare(views: list[View], split: str, together: int, seed: int = 0) -> Pairs:
    """Compare means of ``together`` views of people of a split.

    First halves of clips are compared with their second halves, people with themselves in other clips, and
    with others of the same corpus.
    """
    generator = np.random.default_rng(seed)
    clips: dict[tuple[str, str, str], list[View]] = {}
    for view in views:
        if view.split == split and not view.person.startswith(_stems()):
            clips.setdefault((view.corpus, view.person, view.clip), []).append(view)

    def mean(chosen: list[View]) -> Appearance:
        picked = generator.choice(len(chosen), min(together, len(chosen)), replace=False)
        return Appearance.mean([chosen[i].appearance for i in picked])

    chosen: list[tuple[Appearance, Appearance, bool, bool]] = []
    for key, own in clips.items():
        first, second = [v for v in own if v.place < 0.5], [v for v in own if v.place >= 0.5]
        if first and second:
            chosen.append((mean(first), mean(second), True, True))
        for wanted, count in ((True, 2), (False, 4)):
            others = [k for k in clips if k[0] == key[0] and k[2] != key[2] and (k[1] == key[1]) == wanted]
            for index in generator.permutation(len(others))[:count]:
                chosen.append((mean(own), mean(clips[others[index]]), wanted, False))
    return Pairs(
        np.array([a.likeness(b) for a, b, _, _ in chosen]),
        np.array([a.compare(b)[0] for a, b, _, _ in chosen]),
        np.array([person for _, _, person, _ in chosen]),
        np.array([clip for _, _, _, clip in chosen]),
    )


def equal_error(scores: np.ndarray, same: np.ndarray) -> float:
    """Rate at which as many of the same are refused as others are accepted, scores (N,), same (N,) bool."""
    thresholds = np.sort(scores)
    refused = np.searchsorted(np.sort(scores[same]), thresholds) / same.sum()
    accepted = 1 - np.searchsorted(np.sort(scores[~same]), thresholds) / (~same).sum()
    best = int(np.abs(refused - accepted).argmin())
    return float((refused[best] + accepted[best]) / 2)


class AppearanceTask(ClosedFormTask[AppearanceConfig]):
    """Solved on the views of split "train"; its error is measured on split "val"."""

    def solve(self, output: Path) -> dict[str, float]:
        """Learn, measure and save the model in ``output``/export."""
        corners, weights, area = layout(FaceModel.from_pretrained())
        samples = HEIGHT * WIDTH
        plain = AppearanceModel(
            corners, weights, area, np.zeros(samples, np.float32), np.eye(samples, dtype=np.float32)
        )
        views = read_views(self.manifest, plain, self.config)
        mean, projection = learn([view for view in views if view.split == "train"], self.config)
        model = AppearanceModel(corners, weights, area, mean, projection)
        metrics = measure([_projected(view, model) for view in views])
        told = {"class": "AppearanceModel", "metrics": metrics}
        save_pretrained(output / "export", told, model.state(), card=None)
        return metrics


def _projected(view: View, model: AppearanceModel) -> View:
    face = model.projection @ (view.appearance.face - model.mean)
    return replace(view, appearance=replace(view.appearance, face=face))


def measure(views: list[View]) -> dict[str, float]:
    """Equal error rates on the val split, against other people of the same corpus."""
    metrics = {}
    for together in (1, 4):
        found = compare(views, "val", together)
        same = found.same_person
        for name, chosen in (("same_clip", found.same_clip | ~same), ("other_clip", ~found.same_clip)):
            for kind, scores in (("face", found.faces), ("all", found.odds)):
                key = f"val_equal_error_{name}_{kind}_{together}"
                metrics[key] = equal_error(scores[chosen], same[chosen])
    return metrics
