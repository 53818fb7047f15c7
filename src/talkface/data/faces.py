"""Portrait crops for the face LDM, from stills and from frames of prepared clips; cut once and kept.

``out/faces.npz`` holds JPEG-compressed crops and the mesh in their pixels, as :class:`Portrait` does.
"""

import csv
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from talkface.data.arrays import keep_arrays
from talkface.data.manifest import Item, Manifest
from talkface.errors import UnreadableMedia
from talkface.face import topology as tp
from talkface.face.crop import cut, face_unit, transform
from talkface.face.portrait import PORTRAIT_PIXELS, portrait_matrix

logger = logging.getLogger(__name__)

_FRAMES = 6  # of a clip
_FRAMES_OF_ONE = 24  # at most, of one person's clips together
CLEAR = 3.6  # least sharpness of portraits that teach the face LDM
_GENERATED = 0.4  # how much a generated picture counts: they are many, all with a plain look and background
_SMALLEST = 0.5  # pixels of the picture for one of the crop; what has fewer is left out
_QUALITY = 95
# Lists of stills, and the column of their files.
_LISTS = {"pairs.tsv": "face", "faces.tsv": "file", "faces2.tsv": "file"}
_ROOM = -0.03  # a face's distance to its picture's edge, in face heights; what has less is cut off
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


@dataclass(frozen=True)
class Portrait:
    """A crop in which a face is at a usual place, as upright as in its picture.

    Attributes:
        key: names the picture.
        person: whose face it is, as far as the data tell.
        split: "train", "dev" or "val".
        jpeg: the crop, compressed.
        points: (478, 3) mesh in crop pixels.
        sharpness: mean absolute Laplacian of the face, 0 to 255.
        generated: whether the picture is synthetic, as far as the data tell.
    """

    key: str
    person: str
    split: str
    jpeg: np.ndarray
    points: np.ndarray
    sharpness: float
    generated: bool = False

    def image(self) -> np.ndarray:
        """RGB crop (256, 256, 3) uint8."""
        crop = cv2.imdecode(self.jpeg, cv2.IMREAD_COLOR)
        assert crop is not None  # we compressed it
        return cv2.cvtColor(crop, cv2.COLOR_BGR2RGB)


@dataclass(frozen=True)
class _Source:
    """A picture that is to be cut: ``points`` of a frame; a still's are found."""

    key: str
    person: str
    split: str
    image: np.ndarray
    points: np.ndarray | None = None
    generated: bool = False


def portraits(manifest: Manifest) -> list[Portrait]:
    """All portraits of a prepared folder; cut on first use and kept."""
    path = manifest.directory / "faces.npz"
    if not path.is_file():
        keep(path, list(_cut_all(manifest)))
    with np.load(path) as arrays:
        images = np.split(arrays["jpeg"], np.cumsum(arrays["lengths"])[:-1])
        columns = [arrays[name].tolist() for name in ("key", "person", "split")]
        generated = arrays.get("generated", np.zeros(len(images), bool))
        columns += [images, arrays["points"], arrays["sharpness"].tolist(), generated.tolist()]
        rows = zip(*columns, strict=True)
        return [Portrait(*row) for row in rows]


def weights(album: list[Portrait], power: float = 0.7) -> np.ndarray:
    """How often each portrait is to be drawn (N,): people count more alike than pictures, sharp ones more.

    Generated ones count less than photographs.
    """
    counts = Counter(portrait.person for portrait in album)
    typical = float(np.median([portrait.sharpness for portrait in album]))
    weight = np.array(
        [
            counts[portrait.person] ** -power
            * np.clip(portrait.sharpness / typical, 0.25, 1.25)
            * (_GENERATED if portrait.generated else 1.0)
            for portrait in album
        ]
    )
    chance: np.ndarray = weight / weight.sum()
    return chance


def held_out(album: list[Portrait], count: int, split: str = "val") -> list[Portrait]:
    """A split's portraits of people who are in no training portrait, spread over the list."""
    known = {portrait.person for portrait in album if portrait.split == "train"}
    strangers = [p for p in album if p.split == split and p.person not in known]
    return strangers[:: max(1, len(strangers) // count)][:count]


def _cut_all(manifest: Manifest) -> Iterator[Portrait]:
    from talkface.face.tracker import FaceTracker

    tracker = FaceTracker(threads=1)
    for source in _sources(manifest):
        points = source.points
        if points is None:
            faces = tracker.track_image(source.image)
            if not faces:
                continue
            points = max((face.points for face in faces), key=face_unit)
        matrix = portrait_matrix(points, source.image.shape[1::-1])
        if matrix[0, 0] > 1 / _SMALLEST:
            continue
        crop = cut(source.image, matrix, PORTRAIT_PIXELS)
        jpeg = cv2.imencode(".jpg", crop[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].ravel()
        moved = transform(points, matrix)
        named = source.key, source.person, source.split
        yield Portrait(*named, jpeg, moved, _sharpness(crop, moved), source.generated)


def _sources(manifest: Manifest) -> Iterator[_Source]:
    yield from _stills(manifest.root, _unusable(manifest.root) | _unusable(manifest.directory))
    left = Counter[str]()
    for item in manifest.items:
        person = item.person
        if item.has_video and item.usable and left[person] < _FRAMES_OF_ONE:
            for source in _frames(manifest, item):
                left[person] += 1
                yield source


def _stills(root: Path, unusable: set[str]) -> Iterator[_Source]:
    """Pictures of the lists but for some sources, or of the whole folder where there is no list."""
    from talkface.media.image import load_image  # needs PyAV, which a machine that reads packs may lack

    lists = [(root / name, column) for name, column in _LISTS.items() if (root / name).is_file()]
    rows: list[tuple[str, str, str, bool]] = []
    for path, column in lists:
        with path.open(newline="") as file:
            rows += [
                (row[column], row["person"], row.get("split") or "train", row.get("kind") == "generated")
                for row in csv.DictReader(file, delimiter="\t")
                if _is_shown(row) and row.get("source") not in unusable
            ]
    if not lists:
        files = [path for path in sorted(root.rglob("*")) if path.suffix.lower() in _SUFFIXES]
        names = [path.relative_to(root) for path in files]
        rows = [(str(name), str(name.with_suffix("")), "train", False) for name in names]
    for name, person, split, generated in dict.fromkeys(rows):
        try:
            image = load_image(root / name)
        except UnreadableMedia as error:
            logger.warning("%s is left out: %s", name, error)
            continue
        yield _Source(str(Path(name).with_suffix("")), person, split, image, generated=generated)


def _is_shown(row: dict[str, str]) -> bool:
    """Whether a list's picture holds the whole of a face, as far as the list tells."""
    return float(row.get("room") or 0) >= _ROOM


def _unusable(folder: Path) -> set[str]:
    """Sources of stills that a folder's ``sources.tsv`` says are not usable."""
    path = folder / "sources.tsv"
    if not path.is_file():
        return set()
    with path.open(newline="") as file:
        return {row["source"] for row in csv.DictReader(file, delimiter="\t") if row["usable"] == "0"}


def _frames(manifest: Manifest, item: Item) -> Iterator[_Source]:
    """Frames of a clip at even distances."""
    track = manifest.track(item)
    found = np.flatnonzero(track.found)
    chosen = found[np.linspace(0, len(found) - 1, min(_FRAMES, len(found))).round().astype(int)]
    place = {int(track.frames[k]): k for k in chosen}
    for number, image in manifest.frames(item, place):
        points, key = track.points[place[number]], f"{item.key}@{number}"
        yield _Source(key, item.person, item.split, image, points)


def _sharpness(crop: np.ndarray, points: np.ndarray) -> float:
    """Mean absolute Laplacian inside the face at half the crop's size, where compression hardly counts."""
    small = cv2.resize(crop, (PORTRAIT_PIXELS // 2, PORTRAIT_PIXELS // 2), interpolation=cv2.INTER_AREA)
    outline = np.round(points[tp.FACE_OVAL, :2] / 2).astype(np.int32)
    mask = cv2.fillConvexPoly(np.zeros(small.shape[:2], np.uint8), outline, 1)
    edges = np.abs(cv2.Laplacian(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), cv2.CV_32F))
    return float(edges[mask > 0].mean()) if mask.any() else 0.0


def keep(path: Path, album: list[Portrait]) -> None:
    """Write portraits as :func:`portraits` reads them."""
    keep_arrays(
        path,
        jpeg=np.concatenate([portrait.jpeg for portrait in album]),
        lengths=np.array([len(portrait.jpeg) for portrait in album]),
        points=np.stack([portrait.points for portrait in album]).astype(np.float32),
        sharpness=np.array([portrait.sharpness for portrait in album]),
        key=np.array([portrait.key for portrait in album]),
        person=np.array([portrait.person for portrait in album]),
        split=np.array([portrait.split for portrait in album]),
        generated=np.array([portrait.generated for portrait in album]),
    )
