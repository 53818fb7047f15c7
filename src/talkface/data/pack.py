"""A prepared folder made small enough to travel to a machine with a GPU, and back.

A pack is one file that holds what trainings need and nothing else: clips around the face as H.264, sound as
Opus, tracks as few whole numbers, portraits as WebP with what they look like, and weights that are started
from. :mod:`talkface.data.unpack` makes a prepared folder of it that every training reads as any other.

Where the prepared folder has no split "dev", some of the people who train become it; "val" never travels.
The same folder gives the same bytes.
"""

import io
import json
import logging
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from talkface.data.arrays import packed_arrays
from talkface.data.faces import CLEAR, Portrait, portraits
from talkface.data.manifest import Item, Manifest, Track
from talkface.data.meshes import MeshCodec
from talkface.errors import InvalidOption
from talkface.face import topology as tp
from talkface.face.crop import face_unit
from talkface.hub import CONFIG, WEIGHTS, bundled_directory

logger = logging.getLogger(__name__)

_RATE = 16_000
_CRF, _OPUS, _WEBP = 22, 24_000, 70  # measured: what is lost is far below what trainings add as noise
_ONE_IN = 8  # people to split "dev"
_MOST_OF_DEV = 0.05  # share of the clips that a person of split "dev" may have
_OLD = (1980, 1, 1, 0, 0, 0)  # the least date of a zip: bytes do not tell when they were made
DESCRIBED, SYNC, MESHES, TABLE, IMAGES = (
    "attributes.json",
    "sync.json",
    "meshes.npz",
    "portraits/table.json",
    "portraits/images.webp",
)
"""Names of what is in a pack."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What trainings need of a prepared folder and of the package.

    Attributes:
        portraits: pictures of faces, with what they look like.
        density: pixels of an inter-ocular distance in the clips' pictures; 0 for no pictures.
        room: inter-ocular distances to each side of the nose that they show.
        speech: the clips' sound.
        silent: clips without speech, too.
        seconds: of each clip, from its middle.
        of_one: clips of one person, at most.
        smallest: least inter-ocular distance of a clip in its own pixels.
        weights: names of shipped models.
        wheels: what is imported beyond what machines with torch have.
    """

    portraits: bool = False
    density: float = 0.0
    room: float = 1.6
    speech: bool = False
    silent: bool = False
    seconds: float = 60.0
    of_one: int = 1000
    smallest: float = 0.0
    weights: tuple[str, ...] = ()
    wheels: tuple[str, ...] = ()

    @property
    def clips(self) -> bool:
        """Whether there are clips."""
        return self.speech or self.density > 0

    def __or__(self, other: "Contents") -> "Contents":
        """What serves both."""
        if self.clips and other.clips:
            wider: dict[str, Any] = {
                name: max(getattr(self, name), getattr(other, name))
                for name in ("density", "room", "speech", "silent", "seconds", "of_one")
            }
            wider["smallest"] = min(self.smallest, other.smallest)
        else:
            clips = self if self.clips else other
            names = ("density", "room", "speech", "silent", "seconds", "of_one", "smallest")
            wider = {name: getattr(clips, name) for name in names}
        wider |= {
            name: tuple(dict.fromkeys(getattr(self, name) + getattr(other, name)))
            for name in ("weights", "wheels")
        }
        return Contents(portraits=self.portraits or other.portraits, **wider)


def pack(prepared: Path, target: Path, contents: Contents, wheels: Iterable[Path] = ()) -> dict[str, int]:
    """Write a pack of a prepared folder.

    Args:
        prepared: what ``talkface prepare`` wrote, with ``sync.json`` where sync was measured.
        target: the pack, replaced as a whole.
        contents: what is to be in it.
        wheels: of packages that go along.

    Returns:
        Bytes of each kind in the pack.

    Raises:
        InvalidOption: there is nothing to train on.
    """
    whole = Manifest.load(prepared)
    manifest = _with_dev(whole)
    album = list(_album(whole, manifest)) if contents.portraits else []
    chosen = list(_chosen(manifest, contents))
    if contents.clips and not any(item.split == "train" for item, _ in chosen):
        least = f"with {contents.smallest:g} pixels between the eyes " if contents.smallest else ""
        raise InvalidOption(f"{prepared} holds no clip {least}that these trainings could use")
    partial = target.with_suffix(".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_LZMA) as archive:
        codec = MeshCodec.of(np.concatenate(_some_meshes(chosen, album)))
        _add_arrays(archive, MESHES, mean=codec.mean, components=codec.components)
        if album:
            _add_portraits(archive, whole, album, codec)
        for item, track in chosen:
            _add_clip(archive, manifest, item, track, codec, contents)
        if (manifest.directory / SYNC).is_file():
            _add(archive, SYNC, (manifest.directory / SYNC).read_bytes())
        kept = Manifest(Path(), Path("clips"), [item for item, _ in chosen], packed=True)
        _add(archive, "manifest.jsonl", kept.text().encode())
        for name in contents.weights:
            _add_weights(archive, name)
        for wheel in sorted(wheels, key=lambda path: path.name):
            _add_wheel(archive, wheel)
        sizes: Counter[str] = Counter()
        for info in archive.infolist():
            sizes[info.filename.split("/")[0].split(".")[0]] += info.compress_size
    partial.replace(target)
    return dict(sizes)


def dev_people(items: list[Item]) -> set[str]:
    """Some of the people of the training clips, by their names; not those who have very many of the clips."""
    counts = Counter(item.person for item in items if item.split == "train")
    few = _MOST_OF_DEV * counts.total()
    return {
        name for name, count in counts.items() if count <= few and zlib.crc32(name.encode()) % _ONE_IN == 0
    }


def _with_dev(manifest: Manifest) -> Manifest:
    items = [item for item in manifest.items if item.split != "val"]
    if manifest.choosing != "dev":
        people = dev_people(items)
        items = [replace(i, split="dev") if i.person in people else i for i in items]
    return replace(manifest, items=items)


def _chosen(manifest: Manifest, contents: Contents) -> Iterator[tuple[Item, Track]]:
    """Clips that are wanted, and the stretch of each that is."""
    left = Counter[str]()
    for item in manifest.items if contents.clips else ():
        person = item.person
        wanted = item.has_video and item.usable and (item.has_speech or contents.silent)
        if not wanted or left[person] >= contents.of_one:
            continue
        track = manifest.track(item)
        if np.median(tp.inter_ocular(track.points)) >= contents.smallest:
            left[person] += 1
            yield item, _middle(track, contents.seconds)


def _middle(track: Track, seconds: float) -> Track:
    """The frames of a stretch in the middle of a track."""
    spare = max(0.0, float(track.times[-1] - track.times[0]) - seconds) / 2
    inside = (track.times >= track.times[0] + spare) & (track.times <= track.times[-1] - spare)
    return Track(*(getattr(track, field.name)[inside] for field in fields(Track)))


def _album(whole: Manifest, manifest: Manifest) -> Iterator[Portrait]:
    """Portraits that the face LDM is trained on or chosen by, from what the whole folder holds.

    The blurred ones stay behind, and so do those of people whose clips have become split "dev": what stands
    on the LDM is chosen by these. Where there is no split "dev", some people become it.
    """
    album = [p for p in portraits(whole) if p.split != "val" and p.sharpness >= CLEAR]
    apart = {i.person for i in manifest.items if i.split == "dev"}
    if not any(portrait.split == "dev" for portrait in album):
        apart |= {p.person for p in album if zlib.crc32(p.person.encode()) % _ONE_IN == 0}
        album = [replace(p, split="dev") if p.person in apart else p for p in album]
    return (p for p in album if p.split == "dev" or p.person not in apart)


def _some_meshes(chosen: list[tuple[Item, Track]], album: list[Portrait]) -> list[np.ndarray]:
    found = [track.points[::10] for _, track in chosen]
    return [*found, np.stack([portrait.points for portrait in album])] if album else found


def _add_clip(
    archive: zipfile.ZipFile,
    manifest: Manifest,
    item: Item,
    track: Track,
    codec: MeshCodec,
    contents: Contents,
) -> None:
    """Pictures, sound and track of a stretch, all told from its first frame on."""
    points, first, begin = track.points, int(track.frames[0]), float(track.times[0])
    if contents.density:
        video, points = _encode_video(manifest, item, track, contents)
        _add(archive, f"clips/{item.key}.mp4", video, stored=True)
    if contents.speech and item.has_speech:
        audio = manifest.speech(item).audio
        length = round((float(track.times[-1]) - begin + 0.5) * _RATE)
        start = round(begin * _RATE)
        _add(archive, f"speech/{item.key}.ogg", _encode_audio(audio[start : start + length]), stored=True)
    times = track.times - begin
    arrays = {"times": times, "found": track.found, "frames": (track.frames - first).astype(np.int32)}
    _add_arrays(archive, f"tracks/{item.key}.npz", **arrays, **codec.encode(points))


@dataclass(frozen=True)
class _Cutout:
    """A part of a clip's pictures: left, top, right, bottom in their pixels; its own (width, height)."""

    box: tuple[int, int, int, int]
    size: tuple[int, int]

    @classmethod
    def around(cls, points: np.ndarray, contents: Contents, size: tuple[int, int]) -> "_Cutout":
        """Room for every frame's face in pictures of a size, at the density that is wanted or their own."""
        unit = float(np.median([face_unit(mesh) for mesh in points]))
        scale = min(1.0, contents.density / unit)
        nose, room = points[:, 1, :2], contents.room * unit
        low = np.clip(np.floor(nose.min(0) - room), 0, np.array(size) - 16).astype(int)
        high = np.clip(np.ceil(nose.max(0) + room), low + 16, size).astype(int)
        high -= (high - low) % 2  # H.264 wants even sides
        width, height = (np.round((high - low) * scale / 2).astype(int) * 2).clip(16).tolist()
        return cls((*low.tolist(), *high.tolist()), (width, height))

    def cut(self, image: np.ndarray) -> np.ndarray:
        """The part of a picture (H, W, 3)."""
        left, top, right, bottom = self.box
        return cv2.resize(image[top:bottom, left:right], self.size, interpolation=cv2.INTER_AREA)

    def moved(self, points: np.ndarray) -> np.ndarray:
        """Meshes (T, 478, 3) in its pixels."""
        left, top, right, bottom = self.box
        scale = np.array(self.size) / (right - left, bottom - top)
        flat = (points[..., :2] + 0.5 - (left, top)) * scale - 0.5
        return np.concatenate([flat, points[..., 2:] * np.sqrt(scale.prod())], -1).astype(np.float32)


def _encode_video(
    manifest: Manifest, item: Item, track: Track, contents: Contents
) -> tuple[bytes, np.ndarray]:
    """H.264 of the stretch's frames through a cutout, and the meshes in its pixels."""
    import av

    # PyAV itself: the writers of talkface.media choose options and metadata for players, and write files; a
    # pack needs the same bytes on every machine, in memory.
    first, last = int(track.frames[0]), int(track.frames[-1])
    file, cutout = io.BytesIO(), None
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        for _, image in manifest.frames(item, range(first, last + 1)):
            if cutout is None:
                cutout = _Cutout.around(track.points, contents, image.shape[1::-1])
                stream = container.add_stream("libx264", rate=25)
                stream.width, stream.height, stream.pix_fmt = *cutout.size, "yuv420p"
                # Bytes are not to depend on how many processors there are, nor, as x264's with B-frames do
                # where there is AVX-512, on what lies in memory.
                stream.options = {"crf": str(_CRF), "preset": "medium", "threads": "1", "bf": "0"}
            planes = np.asarray(cv2.cvtColor(cutout.cut(image), cv2.COLOR_RGB2YUV_I420), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())
    assert cutout is not None  # a track has frames
    return file.getvalue(), cutout.moved(track.points)


def _encode_audio(audio: np.ndarray) -> bytes:
    """Opus of samples (N,) int16 at 16 kHz."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="ogg", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libopus", rate=_RATE, layout="mono", options={"b": str(_OPUS)})
        frame = av.AudioFrame.from_ndarray(audio[None], format="s16", layout="mono")
        frame.sample_rate = _RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def _add_portraits(
    archive: zipfile.ZipFile, whole: Manifest, album: list[Portrait], codec: MeshCodec
) -> None:
    from talkface.data.attributes import portrait_attributes, portrait_descriptions

    portrait_descriptions(whole, portraits(whole))  # what is kept of them is of all of them
    known = portrait_attributes(whole, album)
    columns = [
        {
            "key": portrait.key,
            "person": portrait.person,
            "split": portrait.split,
            "sharpness": round(portrait.sharpness, 3),
            "generated": portrait.generated,
        }
        for portrait in album
    ]
    images = [_smaller(portrait.image()) for portrait in album]
    _add(archive, IMAGES, b"".join(images), stored=True)
    _add(archive, TABLE, json.dumps([[len(i) for i in images], columns]).encode())
    _add_arrays(archive, "portraits/meshes.npz", **codec.encode(np.stack([p.points for p in album])))
    told = {portrait.key: asdict(known[portrait.key]) for portrait in album}
    _add(archive, DESCRIBED, json.dumps(told).encode())


def _smaller(image: np.ndarray) -> bytes:
    options = [cv2.IMWRITE_WEBP_QUALITY, _WEBP]
    return cv2.imencode(".webp", image[:, :, ::-1], options)[1].tobytes()


def _add_weights(archive: zipfile.ZipFile, name: str) -> None:
    """A shipped model; of its numbers first all upper bytes, then all lower ones: these have no pattern."""
    folder = bundled_directory(name)
    data = (folder / WEIGHTS).read_bytes()
    _add(archive, f"weights/compact/{name}/{CONFIG}", (folder / CONFIG).read_bytes())
    _add(archive, f"weights/compact/{name}/upper", data[1::2])
    _add(archive, f"weights/compact/{name}/lower", data[::2], stored=True)


def _add_wheel(archive: zipfile.ZipFile, wheel: Path) -> None:
    """A wheel's files as one, not compressed each for itself."""
    together = io.BytesIO()
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(together, "w", zipfile.ZIP_STORED) as plain:
        for name in sorted(source.namelist()):
            plain.writestr(zipfile.ZipInfo(name, _OLD), source.read(name))
    _add(archive, f"wheels/{wheel.name}", together.getvalue())


def _add(archive: zipfile.ZipFile, name: str, data: bytes, stored: bool = False) -> None:
    info = zipfile.ZipInfo(name, _OLD)
    archive.writestr(info, data, zipfile.ZIP_STORED if stored else zipfile.ZIP_LZMA)


def _add_arrays(archive: zipfile.ZipFile, name: str, **arrays: np.ndarray) -> None:
    _add(archive, name, packed_arrays(arrays))
