"""Groups of clips: which there are is told by data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from talkface.data.groups import first_match, read_groups
from talkface.data.manifest import Item, with_groups
from talkface.data.prepare import list_items
from talkface.training.datasets.talking import half_of

ROOT = Path(__file__).parents[2]


def item(corpus: str, speaker: str, key: str = "a") -> Item:
    return Item(key=key, file=f"{key}.mp4", corpus=corpus, speaker=speaker, split="val")


@pytest.mark.parametrize(
    ("corpus", "speaker", "value"),
    [("studio", "anna", 1), ("studio", "anna2", 1), ("studio", "ben", 2), ("Studio", "ben", 3), ("x", "", 3)],
)
def test_the_first_pattern_that_fits_counts(corpus: str, speaker: str, value: int) -> None:
    assert first_match({"studio/anna*": 1, "studio": 2, "*": 3}, corpus, speaker, 0) == value
    assert first_match({"studio/anna": 1}, corpus, "nobody", 0) == 0


def test_a_group_is_the_corpus_unless_it_is_told() -> None:
    assert item("LRS2", "a").group == "lrs2"
    told = Item(key="a", file="a", corpus="LRS2", speaker="a", split="val", group="news")
    assert told.group == "news"


def write_clips(folder: Path, groups: Mapping[str, str]) -> None:
    columns = ["id", "file", "corpus", "speaker", "split", "licence", "kind", "usable"]
    columns += ["group"] if groups else []
    rows = [columns]
    for corpus in ("studio", "Web"):
        row = [corpus, f"{corpus}.mp4", corpus, "s1", "val", "", "speech", "1"]
        rows.append(row + ([groups.get(corpus, "")] if groups else []))
    (folder / "clips.tsv").write_text("\n".join("\t".join(row) for row in rows) + "\n")
    moods = [["id", "actor", "emotion", "file", "split"], ["1", "ann", "happy", "ann.wav", "train"]]
    (folder / "emotion.tsv").write_text("\n".join("\t".join(row) for row in moods) + "\n")


def groups_of(folder: Path) -> list[str]:
    return [item.group for item in list_items(folder)]


def test_groups_are_data(tmp_path: Path) -> None:
    write_clips(tmp_path, {})
    assert groups_of(tmp_path) == ["studio", "web", "emotion"]
    write_clips(tmp_path, {"Web": "wild"})
    assert groups_of(tmp_path) == ["studio", "wild", "emotion"]
    (tmp_path / "groups.tsv").write_text("corpus\tspeaker\tgroup\nstudio\ts1\tone\nstudio\t\tothers\n")
    assert groups_of(tmp_path) == ["one", "wild", "emotion"]


def settings(recipe: str) -> dict[str, Any]:
    """The ``config`` of a shipped recipe."""
    tree: dict[str, Any] = yaml.safe_load((ROOT / "recipes" / f"{recipe}.yaml").read_text())["config"]
    return tree


def test_our_list_and_recipes_tell_the_groups_of_our_results() -> None:
    clips = [item("GRID", "s1"), item("GRID", "s26"), item("HDTF", "s1"), item("web", "")]
    wanted = ["grid_s1", "grid_other", "wild", "wild"]
    assert [one.group for one in with_groups(clips, read_groups(ROOT / "recipes" / "folder"))] == wanted
    for name in ("thpad-motion-compact", "imagineid-content"):
        assert [clip.look_up(settings(name)["groups"], "") for clip in clips] == wanted
    expert, prior = settings("g4g-sync-training"), settings("thpad-prior-compact")
    assert [clip.look_up(expert["groups"], "") for clip in clips] == ["grid", "grid", "wild", "wild"]
    assert [clip.look_up(prior["shares"], 1.0) for clip in clips] == [0.4, 0.4, 1.0, 1.0]
    sides = {half_of(item("GRID", "s1", key=str(k)), expert["by_clip"]) for k in range(20)}
    assert sides == {"a", "b"}
    assert len({half_of(item("GRID", "s26", key=str(k)), expert["by_clip"]) for k in range(20)}) == 1
