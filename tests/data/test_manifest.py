"""Prepared folders: the list of clips."""

import json
from dataclasses import asdict
from pathlib import Path

from talkface.data.manifest import Item, Manifest


def item(corpus: str, speaker: str, key: str = "a") -> Item:
    return Item(key=key, file=f"{key}.mp4", corpus=corpus, speaker=speaker, split="val")


def test_folders_prepared_before_there_were_groups_still_load(tmp_path: Path) -> None:
    old = {name: value for name, value in asdict(item("LRS2", "a")).items() if name != "group"}
    (tmp_path / "manifest.jsonl").write_text(f'{{"root": "{tmp_path}"}}\n{json.dumps(old)}\n')
    assert [i.group for i in Manifest.load(tmp_path).items] == ["lrs2"]
    (tmp_path / "groups.tsv").write_text("corpus\tspeaker\tgroup\n*\t\teverybody\n")
    manifest = Manifest.load(tmp_path)
    assert [i.group for i in manifest.items] == ["everybody"]
    manifest.save()
    (tmp_path / "groups.tsv").unlink()
    assert Manifest.load(tmp_path) == manifest
