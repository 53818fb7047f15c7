"""Groups of clips, and patterns that choose clips by corpus and speaker.

A pattern is a corpus (``studio``) or a corpus and a speaker (``studio/anna*``), with wildcards as in file
names; the first pattern of a table that fits counts, so special ones come first. Recipes hold such tables,
and ``groups.tsv`` is one, with the columns ``corpus``, ``speaker`` (empty for everybody) and ``group``.
"""

import csv
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

Value = TypeVar("Value")


def first_match(table: Mapping[str, Value], corpus: str, speaker: str, default: Value) -> Value:
    """The value of the first pattern that fits a corpus and a speaker, or the default."""
    for pattern, value in table.items():
        of_corpus, _, of_speaker = pattern.partition("/")
        if fnmatchcase(corpus, of_corpus) and fnmatchcase(speaker, of_speaker or "*"):
            return value
    return default


def read_groups(folder: Path) -> dict[str, str]:
    """Groups by patterns, from a folder's ``groups.tsv``; empty where there is none."""
    path = folder / "groups.tsv"
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        return {f"{row['corpus']}/{row['speaker'] or '*'}": row["group"] for row in rows}
