"""Prepared folders: which clips there are, their groups, and their pictures."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from media_samples import write_video
from talkface.data.crops import FACE_REGION, crop_clip
from talkface.data.groups import first_match, read_groups
from talkface.data.manifest import Item, Manifest, with_groups
from talkface.data.prepare import list_items
from talkface.face import topology as tp
from talkface.face.model import FaceModel
from talkface.face.tracker import FaceTracker
from talkface.media.video import VideoReader
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


def test_crops_of_a_rotated_clip_are_upright(talking_frames: list[np.ndarray], tmp_path: Path) -> None:
    """Phones store frames as the sensor sees them, with the turn beside them."""
    stored = [np.ascontiguousarray(np.rot90(image)) for image in talking_frames[:6]]  # counter-clockwise
    write_video(tmp_path / "turned.mp4", stored, rotation=-90.0, options={"crf": "10"})
    tracker = FaceTracker()
    with VideoReader(tmp_path / "turned.mp4") as video:
        track = tracker.track_video((frame.time, frame.image) for frame in video)[0]
    manifest = Manifest(tmp_path, tmp_path, [item("phone", "anna", key="turned")])
    (tmp_path / "tracks").mkdir()
    arrays = {name: getattr(track, name) for name in ("points", "times", "found", "frames")}
    np.savez(tmp_path / "tracks" / "turned.npz", **arrays)
    crops = crop_clip(manifest, manifest.items[0], FaceModel.from_pretrained())
    assert len(crops) == len(stored)
    for k in range(len(crops)):
        seen = tracker.track_image(crops.image(k))[0].points
        distance = np.linalg.norm((seen - crops.points[k])[: tp.FACE_VERTICES, :2], axis=1).mean()
        assert distance < 0.02 * FACE_REGION.pixels
