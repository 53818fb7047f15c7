"""Voices whose speaker's face is known."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from talkface.data.faces import Portrait, portraits
from talkface.data.manifest import Item, Manifest


@dataclass(frozen=True)
class VoiceAndFace:
    """A recording and a portrait of its speaker."""

    item: Item
    portrait: Portrait

    @property
    def person(self) -> str:
        """Whose they are."""
        return self.item.person


def voices_with_faces(manifest: Manifest) -> Iterator[VoiceAndFace]:
    """Every recording of a prepared folder beside the first portrait of its speaker."""
    first: dict[str, Portrait] = {}
    for portrait in portraits(manifest):
        first.setdefault(portrait.key.split("@")[0], portrait)
    for item in manifest.items:
        name = item.key if item.has_video else str(Path(item.file.replace("voices", "faces")).with_suffix(""))
        if item.has_speech and name in first:
            yield VoiceAndFace(item, first[name])


def strangers(pairs: list[VoiceAndFace]) -> list[VoiceAndFace]:
    """Those of the validation split whose speakers are in no training pair."""
    trained = {pair.person for pair in pairs if pair.item.split == "train"}
    return [pair for pair in pairs if pair.item.split == "val" and pair.person not in trained]
