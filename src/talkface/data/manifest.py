"""A prepared folder: clips and voices, their tracks and speech, as trainings and evaluations read them."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from talkface.data.groups import first_match, read_groups
from talkface.errors import UnreadableMedia
from talkface.speech.features import SAMPLES_PER_FEATURE

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One clip or voice.

    Attributes:
        key: names it in the prepared folder.
        file: in the data folder.
        corpus: where it is from.
        speaker: who speaks, within the corpus.
        split: "train", "dev" or "val", always by speaker or by sentence.
        licence: of the corpus.
        has_video: whether there is a face to be tracked.
        has_speech: whether somebody speaks.
        usable: whether trainings may use its picture.
        group: what its results are summed up with; the corpus in lower case where nothing else is told.
    """

    key: str
    file: str
    corpus: str
    speaker: str
    split: str
    licence: str = ""
    has_video: bool = True
    has_speech: bool = True
    usable: bool = True
    group: str = ""

    def __post_init__(self) -> None:
        if not self.group:
            object.__setattr__(self, "group", self.corpus.lower())

    @property
    def person(self) -> str:
        """Who is seen or heard, among all corpora."""
        return self.corpus + self.speaker

    def look_up(self, table: Mapping[str, Value], default: Value) -> Value:
        """The value of the table's first pattern that fits (see :mod:`talkface.data.groups`)."""
        return first_match(table, self.corpus, self.speaker, default)


@dataclass(frozen=True)
class SpeechClip:
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
        packed: whether the videos were packed (:mod:`talkface.data.pack`): upright, in ordinary colours, and
            read by OpenCV, for there may be no PyAV.
    """

    directory: Path
    root: Path
    items: list[Item]
    packed: bool = False

    @classmethod
    def load(cls, directory: Path) -> "Manifest":
        """Read ``directory``/manifest.jsonl, and ``directory``/groups.tsv where there is one.

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
        items = with_groups([Item(**json.loads(line)) for line in lines], read_groups(Path(directory)))
        return cls(Path(directory), root, items, head.get("packed", False))

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
        seen = {i.person for i in self.items if i.has_video and i.usable and i.split == "train"}
        return [item for item in items if item.split == "train" or item.person not in seen]

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

    def speech(self, item: Item) -> SpeechClip:
        """Load audio and teacher features, trimmed to the same length."""
        with np.load(self.speech_path(item)) as arrays:
            audio, features = arrays["audio"], arrays["features"]
        frames = min(len(features), len(audio) // SAMPLES_PER_FEATURE)
        return SpeechClip(audio[: frames * SAMPLES_PER_FEATURE], features[:frames])

    def track(self, item: Item) -> Track:
        """Load the tracked face."""
        with np.load(self.track_path(item)) as arrays:
            return Track(arrays["points"], arrays["times"], arrays["found"], arrays["frames"])


def with_groups(items: Iterable[Item], groups: Mapping[str, str]) -> list[Item]:
    """Items whose groups are those of patterns; items that fit none keep theirs."""
    return [replace(item, group=item.look_up(groups, item.group)) for item in items]


def _frames(path: Path) -> Iterator[np.ndarray]:
    from talkface.media.video import VideoReader

    with VideoReader(path) as reader:
        for frame in reader:
            yield frame.image


def _packed_frames(path: Path) -> Iterator[np.ndarray]:
    """Pictures of a video that we packed, without PyAV: such a video has no rotation and no wide colours."""
    import cv2

    video = cv2.VideoCapture(str(path))
    try:
        while (read := video.read())[0]:
            yield cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)
    finally:
        video.release()
