"""From a folder of talking-face videos and voices to what training reads: tracks and speech features.

``prepare(data, out)`` writes, and skips what is there already::

    out/manifest.jsonl        one line per item: key, file, corpus, speaker, split, licence, group, ...
    out/tracks/<key>.npz      points (T, 478, 3) pixels, times (T,) seconds, found (T,), frames (T,)
    out/speech/<key>.npz      audio (N,) int16 16 kHz, features (T, 512) float16 of the teacher at 50 Hz

``data`` is any folder of videos and sounds, or one with lists: tab-separated, with the columns' names first.

* ``clips.tsv``: id, file, corpus, speaker, split, licence, kind ("speech" or other), usable (0 or 1);
  optional: group.
* ``pairs.tsv``, voices whose speaker's face is known: id, voice, face, corpus, person, split.
* ``emotion.tsv``, acted moods: id, file, actor, emotion, split; optional: corpus, licence.
* ``groups.tsv``: corpus, speaker, group (:mod:`talkface.data.groups`), by which results are summed up.
  Without this list a clip's group is the column ``group`` or the corpus in lower case. It may be put into
  ``out``, too, for folders that are prepared already.
* ``sources.tsv``: source, usable (0 or 1): sources of stills that are left out (:mod:`talkface.data.faces`).
  This one, too, may be in ``out``.
"""

import csv
import logging
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from talkface.data.groups import read_groups
from talkface.data.manifest import Item, Manifest, with_groups
from talkface.errors import NoFaceFound, OutputError, UnreadableMedia
from talkface.hub import model_path
from talkface.speech.features import SAMPLES_PER_FEATURE
from talkface.speech.mel import SAMPLE_RATE

logger = logging.getLogger(__name__)

_VIDEO_SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi"}
_AUDIO_SUFFIXES = {".wav", ".flac", ".opus", ".ogg", ".mp3", ".m4a"}


def list_items(root: Path) -> list[Item]:
    """Items of a folder: by its ``clips.tsv``, ``pairs.tsv`` and ``emotion.tsv``, or every media file in it.

    A plain folder is split by a hash of the file's parent folder, one in ten to validation.
    """
    root = Path(root)
    listed = (root / "clips.tsv").is_file()
    items = [*_clips(root), *_voices(root)] if listed else list(_found(root))
    return with_groups(items, read_groups(root))


def _found(root: Path) -> Iterator[Item]:
    """Every media file of a folder."""
    for path in sorted(root.rglob("*")):
        video, audio = path.suffix.lower() in _VIDEO_SUFFIXES, path.suffix.lower() in _AUDIO_SUFFIXES
        if video or audio:
            name = path.relative_to(root)
            speaker = str(name.parent) if name.parent != Path() else name.stem
            split = "val" if zlib.crc32(speaker.encode()) % 10 == 0 else "train"
            key = "_".join(name.with_suffix("").parts)
            file = str(name)
            yield Item(key=key, file=file, corpus=root.name, speaker=speaker, split=split, has_video=video)


def _rows(path: Path) -> Iterator[dict[str, str]]:
    if path.is_file():
        with path.open(newline="") as file:
            yield from csv.DictReader(file, delimiter="\t")


def _clips(root: Path) -> Iterator[Item]:
    for row in _rows(root / "clips.tsv"):
        speaks, usable = row["kind"] == "speech", row["usable"] == "1"
        yield _listed("clip_", row, "file", "speaker", has_speech=speaks, usable=usable)


def _voices(root: Path) -> Iterator[Item]:
    for row in _rows(root / "pairs.tsv"):
        yield _listed("pair_", row, "voice", "person", has_video=False)
    for row in _rows(root / "emotion.tsv"):
        yield _listed("emo_", row, "file", "actor", has_video=False)


def _listed(kind: str, row: dict[str, str], file: str, speaker: str, **known: bool) -> Item:
    """An item of a list's row, with the names of the columns that tell its file and its speaker."""
    corpus, licence = row.get("corpus", "emotion"), row.get("licence", "see corpus")
    return Item(
        key=kind + row["id"],
        file=row[file],
        corpus=corpus,
        speaker=row[speaker],
        split=row["split"],
        licence=licence,
        group=row.get("group", ""),
        **known,
    )


def prepare(data: Path, out: Path, threads: int = 1) -> Manifest:
    """Track faces and extract speech of every item under ``data`` into ``out``; resumable.

    Raises:
        UnreadableMedia: ``data`` is no folder, or empty.
        OutputError: ``out`` cannot be made.
    """
    data, out = Path(data), Path(out)
    if not data.is_dir():
        raise UnreadableMedia(f"{data} is no folder; give one that holds videos or voices")
    if not any(data.iterdir()):
        raise UnreadableMedia(f"{data} is empty; give a folder that holds videos or voices")
    manifest = Manifest(out, data.resolve(), list_items(data))
    try:
        for folder in ("tracks", "speech"):
            (out / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out} cannot be made: {error.strerror}; give the name of a folder") from error
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


def _tracking(threads: int) -> Callable[[Path, Path], None]:
    """Writes the main face's track of a video."""
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


def _listening(threads: int, window: float = 10.0, context: float = 1.0) -> Callable[[Path, Path], None]:
    """Writes sound and teacher features of a file, in windows of some seconds with context around them."""
    import torch

    from talkface.media.audio import read_audio
    from talkface.speech.features import loudest
    from talkface.speech.mel import log_mel
    from talkface.speech.teacher import WhisperTeacher

    torch.set_num_threads(threads)
    teacher = WhisperTeacher(model_path("whisper-base.bin"))
    step, margin = round(window * SAMPLE_RATE), round(context * SAMPLE_RATE)

    def run(source: Path, target: Path) -> None:
        audio = read_audio(source)
        audio = audio[: len(audio) // SAMPLES_PER_FEATURE * SAMPLES_PER_FEATURE]
        parts = []
        for start in range(0, len(audio), step):
            low, high = max(0, start - margin), min(len(audio), start + step + margin)
            part = torch.from_numpy(audio[None, low:high])
            hidden = teacher(log_mel(part, loudest(part)))[0].numpy()
            first = (start - low) // SAMPLES_PER_FEATURE
            parts.append(hidden[first : first + min(step, len(audio) - start) // SAMPLES_PER_FEATURE])
        samples = (np.clip(audio, -1, 1) * 32767).astype(np.int16)
        np.savez(target, audio=samples, features=np.concatenate(parts).astype(np.float16))

    return run
