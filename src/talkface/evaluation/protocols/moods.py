"""Whether the mood of acted sentences is heard."""

import csv
from typing import Any

import numpy as np

from talkface.data.manifest import Item, Manifest
from talkface.evaluation.protocols.request import leaving_out
from talkface.systems.imagineid.config import EMOTIONS
from talkface.systems.imagineid.voice import SpeechAnalyzer

_MOST_RECORDINGS = 160  # of acted moods


def judge_moods(analyzer: SpeechAnalyzer, manifest: Manifest, limit: int | None) -> list[dict[str, Any]]:
    """Whether the mood of acted sentences of held-out actors is heard.

    Args:
        analyzer: What hears moods.
        manifest: A prepared folder.
        limit: At most so many recordings.

    Returns:
        A row per recording; empty where the data hold no acted moods.
    """
    acted = acted_moods(manifest)
    items = [item for item in acted if item.split == "val"]
    count = min(len(items), limit or _MOST_RECORDINGS)
    rows = []
    for item in (items[k] for k in np.linspace(0, len(items) - 1, count).round().astype(int)):
        with leaving_out(item.key):
            speaker = analyzer.speaker(manifest.file(item))
            mood = analyzer.overall_mood(manifest.file(item), speaker)
            right = EMOTIONS[int(mood.argmax())] == acted[item]
            rows.append({"name": item.key, "group": acted[item], "emotion_heard": float(right)})
    return rows


def acted_moods(manifest: Manifest) -> dict[Item, str]:
    """Recordings of acted moods, and the mood; none where the data have no list of them."""
    path = manifest.root / "emotion.tsv"
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        acted = {row["file"]: row["emotion"] for row in csv.DictReader(file, delimiter="\t")}
    return {item: acted[item.file] for item in manifest.items if acted.get(item.file) in EMOTIONS}
