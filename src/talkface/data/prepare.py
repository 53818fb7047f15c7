"""From a folder of talking-face videos and voices to what training reads: tracks and speech features.

``prepare(data, out)`` writes, and skips what is there already::

    out/manifest.jsonl        one line per item: key, file, corpus, speaker, split, licence, kind, ...
    out/tracks/<key>.npz      points (T, 478, 3) pixels, times (T,) seconds, found (T,), frames (T,)
    out/speech/<key>.npz      audio (N,) int16 16 kHz, features (T, 512) float16 of the teacher at 50 Hz
"""

import csv
import json
import logging
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from talkface.errors import NoFaceFound, UnreadableMedia
from talkface.hub import model_path

logger = logging.getLogger(__name__)

_VIDEO_SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi"}
_AUDIO_SUFFIXES = {".wav", ".flac", ".opus", ".ogg", ".mp3", ".m4a"}
_SAMPLE_RATE, _SAMPLES_PER_FEATURE = 16_000, 320


@dataclass(frozen=True, kw_only=True)
class Item:
    """One clip or voice. ``split`` is "train", "dev" or "val", always by speaker or by sentence."""

    key: str
    file: str
    corpus: str
    speaker: str
    split: str
    licence: str = ""
    has_video: bool = True
    has_speech: bool = True
    usable: bool = True


@dataclass(frozen=True)
class Voice:
    """Speech in memory: audio (N,) int16 at 16 kHz and teacher features (T, C) float16 at 50 Hz."""

    audio: np.ndarray
    features: np.ndarray

    def samples(self, start: int, stop: int) -> np.ndarray:
        """Samples in [-1, 1] as float32."""
        return self.audio[start:stop].astype(np.float32) / 32768.0


@dataclass(frozen=True)
class Track:
    """The main face of a clip over time: points (T, 478, 3) px, times (T,) s, found (T,), frames (T,)."""

    points: np.ndarray
    times: np.ndarray
    found: np.ndarray
    frames: np.ndarray


@dataclass(frozen=True)
class Manifest:
    """The items of a prepared folder.

    Attributes:
        directory: the folder.
        root: what the items' files are in.
        items: clips and voices.
        packed: whether the videos were packed (:mod:`talkface.data.pack`) and OpenCV is to read them.
    """

    directory: Path
    root: Path
    items: list[Item]
    packed: bool = False

    @classmethod
    def load(cls, directory: Path) -> "Manifest":
        """Read ``directory``/manifest.jsonl.

        Raises:
            UnreadableMedia: the folder was not made by ``talkface prepare``.
        """
        path = Path(directory) / "manifest.jsonl"
        if not path.is_file():
            raise UnreadableMedia(
                f"{directory} has no manifest.jsonl: run `talkface prepare VIDEOS {directory}` first"
            )
        first, *lines = path.read_text().splitlines()
        head = json.loads(first)
        root = Path(directory) / head["root"]  # a packed one is told from the folder on
        return cls(
            Path(directory), root, [Item(**json.loads(line)) for line in lines], head.get("packed", False)
        )

    def save(self) -> None:
        """Write manifest.jsonl."""
        (self.directory / "manifest.jsonl").write_text(self.text())

    def text(self) -> str:
        """What is in manifest.jsonl. A packed folder may be moved: its root is told from the folder on."""
        head: dict[str, object] = {"root": str(self.root)}
        if self.packed:
            head = {"root": str(self.root.relative_to(self.directory)), "packed": True}
        lines = [json.dumps(head)] + [json.dumps(asdict(item)) for item in self.items]
        return "\n".join(lines) + "\n"

    @property
    def choosing(self) -> str:
        """The split on which a training chooses its best weights: "dev" where there is one, else "val"."""
        return "dev" if any(item.split == "dev" for item in self.items) else "val"

    def apart(self, items: Iterable[Item]) -> list[Item]:
        """Those that train, or whose person no video trains on."""
        seen = {i.corpus + i.speaker for i in self.items if i.has_video and i.usable and i.split == "train"}
        return [item for item in items if item.split == "train" or item.corpus + item.speaker not in seen]

    def file(self, item: Item) -> Path:
        """The item's video or sound."""
        return self.root / (f"{item.key}.mp4" if self.packed else item.file)

    def frames(self, item: Item, wanted: Collection[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Frames of a video by their numbers, ascending: RGB (H, W, 3) uint8. What is damaged is left out."""
        shown = _packed_frames(self.file(item)) if self.packed else _frames(self.file(item))
        last = max(wanted, default=-1)
        for number, image in enumerate(islice(shown, last + 1)):
            if number in wanted:
                yield number, image

    def speech_path(self, item: Item) -> Path:
        """Where the item's audio and teacher features lie."""
        return self.directory / "speech" / f"{item.key}.npz"

    def track_path(self, item: Item) -> Path:
        """Where the item's tracked face lies."""
        return self.directory / "tracks" / f"{item.key}.npz"

    def speech(self, item: Item) -> Voice:
        """Load audio and teacher features, trimmed to the same length."""
        with np.load(self.speech_path(item)) as arrays:
            audio, features = arrays["audio"], arrays["features"]
        frames = min(len(features), len(audio) // _SAMPLES_PER_FEATURE)
        return Voice(audio[: frames * _SAMPLES_PER_FEATURE], features[:frames])

    def track(self, item: Item) -> Track:
        """Load the tracked face."""
        with np.load(self.track_path(item)) as arrays:
            return Track(arrays["points"], arrays["times"], arrays["found"], arrays["frames"])


def _frames(path: Path) -> Iterator[np.ndarray]:
    from talkface.media.video import VideoReader

    with VideoReader(path) as reader:
        for frame in reader:
            yield frame.image


def _packed_frames(path: Path) -> Iterator[np.ndarray]:
    """As ours, of a plain video, where there may be no PyAV."""
    import cv2

    video = cv2.VideoCapture(str(path))
    try:
        while (read := video.read())[0]:
            yield cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)
    finally:
        video.release()


def list_items(root: Path) -> list[Item]:
    """Items of a folder: by its ``clips.tsv``, ``pairs.tsv`` and ``emotion.tsv``, or every media file in it.

    A plain folder is split by a hash of the file's parent folder, one in ten to validation.
    """
    root = Path(root)
    if (root / "clips.tsv").is_file():
        return [*_clips(root), *_voices(root)]
    items = []
    for path in sorted(root.rglob("*")):
        video, audio = path.suffix.lower() in _VIDEO_SUFFIXES, path.suffix.lower() in _AUDIO_SUFFIXES
        if video or audio:
            name = path.relative_to(root)
            speaker = str(name.parent) if name.parent != Path() else name.stem
            split = "val" if zlib.crc32(speaker.encode()) % 10 == 0 else "train"
            key = "_".join(name.with_suffix("").parts)
            items.append(
                Item(key=key, file=str(name), corpus=root.name, speaker=speaker, split=split, has_video=video)
            )
    return items


def _rows(path: Path) -> Iterator[dict[str, str]]:
    if path.is_file():
        with path.open(newline="") as file:
            yield from csv.DictReader(file, delimiter="\t")


def _clips(root: Path) -> Iterator[Item]:
    for row in _rows(root / "clips.tsv"):
        yield Item(
            key="clip_" + row["id"],
            file=row["file"],
            corpus=row["corpus"],
            speaker=row["speaker"],
            split=row["split"],
            licence=row["licence"],
            has_speech=row["kind"] == "speech",
            usable=row["usable"] == "1",
        )


def _voices(root: Path) -> Iterator[Item]:
    for row in _rows(root / "pairs.tsv"):
        yield Item(
            key="pair_" + row["id"],
            file=row["voice"],
            corpus=row["corpus"],
            speaker=row["person"],
            split=row["split"],
            licence="see corpus",
            has_video=False,
        )
    for row in _rows(root / "emotion.tsv"):
        yield Item(
            key="emo_" + row["id"],
            file=row["file"],
            corpus="RAVDESS",
            speaker=row["actor"],
            split=row["split"],
            licence="CC BY-NC-SA 4.0",
            has_video=False,
        )


def prepare(data: Path, out: Path, threads: int = 1) -> Manifest:
    """Track faces and extract speech of every item under ``data`` into ``out``; resumable."""
    out = Path(out)
    for folder in ("tracks", "speech"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    manifest = Manifest(out, Path(data).resolve(), list_items(Path(data)))
    track, listen = _tracking(threads), _listening(threads)
    kept = []
    for index, item in enumerate(manifest.items):
        logger.info("prepare %d/%d %s", index + 1, len(manifest.items), item.key)
        try:
            if item.has_video and not manifest.track_path(item).exists():
                track(manifest.file(item), manifest.track_path(item))
            if item.has_speech and not manifest.speech_path(item).exists():
                listen(manifest.file(item), manifest.speech_path(item))
        except Exception as error:  # one bad file must not end a night of preparation
            logger.warning("%s is left out: %s", item.file, error)
            continue
        kept.append(item)
    manifest = Manifest(out, manifest.root, kept)
    manifest.save()
    return manifest


def _tracking(threads: int):
    from talkface.face.tracker import FaceTracker
    from talkface.media.video import VideoReader

    tracker = FaceTracker(threads)

    def run(source: Path, target: Path) -> None:
        with VideoReader(source) as reader:
            tracks = tracker.track_video((frame.time, frame.image) for frame in reader)
        if not tracks:
            raise NoFaceFound(f"no face in {source}")
        first = tracks[0]
        np.savez(target, points=first.points, times=first.times, found=first.found, frames=first.frames)

    return run


def _listening(threads: int, window: float = 10.0, context: float = 1.0):
    import torch

    from talkface.media.audio import read_audio
    from talkface.speech.features import loudest
    from talkface.speech.mel import log_mel
    from talkface.speech.teacher import WhisperTeacher

    torch.set_num_threads(threads)
    teacher = WhisperTeacher(model_path("whisper-base.bin"))
    step, margin = round(window * _SAMPLE_RATE), round(context * _SAMPLE_RATE)

    def run(source: Path, target: Path) -> None:
        audio = read_audio(source)
        audio = audio[: len(audio) // _SAMPLES_PER_FEATURE * _SAMPLES_PER_FEATURE]
        parts = []
        for start in range(0, len(audio), step):
            low, high = max(0, start - margin), min(len(audio), start + step + margin)
            part = torch.from_numpy(audio[None, low:high])
            hidden = teacher(log_mel(part, loudest(part)))[0].numpy()
            first = (start - low) // _SAMPLES_PER_FEATURE
            parts.append(hidden[first : first + min(step, len(audio) - start) // _SAMPLES_PER_FEATURE])
        samples = (np.clip(audio, -1, 1) * 32767).astype(np.int16)
        np.savez(target, audio=samples, features=np.concatenate(parts).astype(np.float16))

    return run
