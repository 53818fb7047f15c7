"""Unpacks a pack into a prepared folder, on a machine that has torch and OpenCV and little else."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from talkface.data.arrays import unpacked_arrays
from talkface.data.faces import Portrait, keep
from talkface.data.manifest import Item, Manifest
from talkface.data.meshes import MeshCodec
from talkface.data.pack import DESCRIBED, IMAGES, MESHES, SYNC, TABLE
from talkface.errors import InvalidOption
from talkface.hub import WEIGHTS

_RATE, _PER_FEATURE = 16_000, 320


def unpack(source: Path, folder: Path, only: str | None = None, most: int = 0) -> None:
    """Write a prepared folder, ``weights/`` and ``wheels/`` from a pack.

    Args:
        source: the pack.
        folder: empty, or not there.
        only: a split that is wanted whole; None for all splits.
        most: at most so many clips and portraits of the other splits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not zipfile.is_zipfile(source):
        raise InvalidOption(f"{source} is no pack: `python scripts/gpu.py pack` makes one")
    with zipfile.ZipFile(source) as archive:
        names = set(archive.namelist())
        codec = MeshCodec(**unpacked_arrays(archive.read(MESHES)))
        manifest = _manifest_of(archive, folder)
        items = _limited(manifest.items, only, most)
        for item in items:
            _unpack_clip(archive, names, replace(manifest, items=items), item, codec)
        replace(manifest, items=items).save()
        if TABLE in names:
            _unpack_portraits(archive, folder, codec, only, most)
        for name in names:
            if name.startswith(("weights/", "wheels/")) or name == SYNC:
                _unpack_file(archive, name, folder)


def _manifest_of(archive: zipfile.ZipFile, folder: Path) -> Manifest:
    (folder / "manifest.jsonl").write_bytes(archive.read("manifest.jsonl"))
    return Manifest.load(folder)


def _limited(items: list[Item], only: str | None, most: int) -> list[Item]:
    others = [item for item in items if item.split != only][:most] if only else []
    return [item for item in items if only in (None, item.split) or item in others]


def _unpack_clip(
    archive: zipfile.ZipFile, names: set[str], manifest: Manifest, item: Item, codec: MeshCodec
) -> None:
    kept = unpacked_arrays(archive.read(f"tracks/{item.key}.npz"))
    path = manifest.track_path(item)
    path.parent.mkdir(exist_ok=True)
    points = codec.decode(kept)
    np.savez(path, points=points, times=kept["times"], found=kept["found"], frames=kept["frames"])
    if f"clips/{item.key}.mp4" in names:
        _unpack_file(archive, f"clips/{item.key}.mp4", manifest.directory)
    if f"speech/{item.key}.ogg" in names:
        _unpack_file(archive, f"speech/{item.key}.ogg", manifest.directory)
        path = manifest.speech_path(item)
        audio = _samples(path.with_suffix(".ogg"))
        # Trainings over the student encode the sound themselves; the teacher's features stay behind.
        np.savez(path, audio=audio, features=np.zeros((len(audio) // _PER_FEATURE, 0), np.float16))


def _samples(path: Path) -> np.ndarray:
    """Samples (N,) int16 at 16 kHz, by soundfile where there is no PyAV."""
    try:
        from talkface.media.audio import read_audio
    except ImportError:
        return samples_without_av(path)
    return _whole(read_audio(path))


def samples_without_av(path: Path) -> np.ndarray:
    """The same by soundfile."""
    import soundfile
    from scipy.signal import resample_poly

    samples, rate = soundfile.read(path, dtype="float32")
    return _whole(resample_poly(samples, _RATE, rate) if rate != _RATE else samples)


def _whole(samples: np.ndarray) -> np.ndarray:
    whole: np.ndarray = (np.clip(samples, -1, 1) * 32767).astype(np.int16)
    return whole


def _unpack_portraits(
    archive: zipfile.ZipFile, folder: Path, codec: MeshCodec, only: str | None, most: int
) -> None:
    lengths, table = json.loads(archive.read(TABLE))
    ends = np.cumsum(lengths)[:-1]
    images = np.split(np.frombuffer(archive.read(IMAGES), np.uint8), ends)
    meshes = codec.decode(unpacked_arrays(archive.read("portraits/meshes.npz")))
    rows = zip(table, images, meshes, strict=True)
    album = [Portrait(jpeg=image, points=mesh, **row) for row, image, mesh in rows]
    others = [p for p in album if p.split != only][:most] if only else []
    keep(folder / "faces.npz", [p for p in album if only in (None, p.split)] + others)
    _unpack_file(archive, DESCRIBED, folder)


def _unpack_file(archive: zipfile.ZipFile, name: str, folder: Path) -> None:
    """One file as it was; a model's halves become its whole with the second."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name == "lower":
        return
    if path.name != "upper":
        path.write_bytes(archive.read(name))
        return
    upper, lower = (
        np.frombuffer(archive.read(str(Path(name).parent / half)), np.uint8) for half in ("upper", "lower")
    )
    data = np.empty(len(upper) + len(lower), np.uint8)
    data[1::2], data[::2] = upper, lower
    (path.parent / WEIGHTS).write_bytes(data.tobytes())
