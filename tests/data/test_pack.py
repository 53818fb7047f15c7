"""Packs: what travels to a lent machine comes out as it went in."""

import json
from pathlib import Path

import numpy as np
import pytest

from talkface.data.attributes import portrait_attributes
from talkface.data.faces import portraits
from talkface.data.manifest import Item, Manifest
from talkface.data.pack import Contents, dev_people, pack
from talkface.data.unpack import samples_without_av, unpack
from talkface.errors import InvalidOption
from talkface.face.crop import cut, face_unit
from talkface.face.portrait import portrait_matrix
from talkface.training import gpu_run

EVERYTHING = Contents(
    portraits=True, density=90, speech=True, silent=True, weights=("face", "face-autoencoder", "thpad-motion")
)


@pytest.fixture(scope="module")
def prepared(prepared_people: Path) -> Path:
    return prepared_people


@pytest.fixture(scope="module")
def packed(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pack") / "little.pack"
    pack(prepared, path, EVERYTHING)
    return path


@pytest.mark.slow
def test_pack_is_the_same_twice(prepared: Path, packed: Path, tmp_path: Path) -> None:
    sizes = pack(prepared, tmp_path / "again.pack", EVERYTHING)
    assert (tmp_path / "again.pack").read_bytes() == packed.read_bytes()
    assert {"clips", "speech", "tracks", "portraits", "weights", "meshes"} <= sizes.keys()


def test_unpacked_folder_holds_what_was_packed(prepared: Path, packed: Path, tmp_path: Path) -> None:
    unpack(packed, tmp_path / "out")
    before, after = Manifest.load(prepared), Manifest.load(tmp_path / "out")
    assert [(i.key, i.split) for i in after.items] == [("ann", "train"), ("bea", "train"), ("cid", "dev")]
    assert after.choosing == "dev"
    item = after.items[0]
    (number, image), *_ = after.frames(item, {4})
    ((_, source),) = before.frames(before.items[0], {4})
    track = after.track(item)
    assert number == 4
    unit = float(np.median([face_unit(mesh) for mesh in track.points]))
    assert unit <= 90.5  # at the density that was asked for, or the clip's own
    # The mesh lies where it lay: the same part of the face is cut out of both.
    seen = [
        cut(i, portrait_matrix(p, i.shape[1::-1]), 128)
        for i, p in ((image, track.points[4]), (source, before.track(before.items[0]).points[4]))
    ]
    assert np.abs(seen[0].astype(float) - seen[1]).mean() < 4
    heard, real = after.speech(item).audio, before.speech(before.items[0]).audio
    count = min(len(heard), len(real))
    assert np.corrcoef(heard[:count], real[:count])[0, 1] > 0.97
    assert json.loads((tmp_path / "out" / "sync.json").read_text())["ann"] == 0.5


def test_portraits_keep_people_splits_and_attributes(prepared: Path, packed: Path, tmp_path: Path) -> None:
    unpack(packed, tmp_path / "out")
    before = {p.key: p for p in portraits(Manifest.load(prepared))}
    manifest = Manifest.load(tmp_path / "out")
    after = portraits(manifest)
    assert [p.key for p in after] == [f"face{k}" for k in range(7)]  # not the one of "val"
    for portrait in after:
        real = before[portrait.key]
        assert (portrait.person, portrait.split, portrait.generated) == (
            real.person,
            real.split,
            real.generated,
        )
        assert np.abs(portrait.points - real.points).max() < 0.5
        assert np.abs(portrait.image().astype(float) - real.image()).mean() < 4
    assert portrait_attributes(manifest, after) == {
        key: told
        for key, told in portrait_attributes(Manifest.load(prepared), list(before.values())).items()
        if key in {p.key for p in after}
    }


def test_weights_come_out_as_they_went_in(packed: Path, tmp_path: Path) -> None:
    unpack(packed, tmp_path / "out")
    for name in ("face", "thpad-motion"):
        for file in ("config.json", "model.safetensors"):
            there = tmp_path / "out" / "weights" / "compact" / name / file
            assert there.read_bytes() == (gpu_run.SHIPPED / name / file).read_bytes()


def test_only_one_split_and_a_few_others(packed: Path, tmp_path: Path) -> None:
    unpack(packed, tmp_path / "out", only="dev", most=1)
    manifest = Manifest.load(tmp_path / "out")
    assert [i.key for i in manifest.items] == ["ann", "cid"]
    assert [p.key for p in portraits(manifest)] == ["face5", "face6", "face0"]


def test_sound_without_pyav_is_the_same(packed: Path, tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    unpack(packed, tmp_path / "out")
    manifest = Manifest.load(tmp_path / "out")
    other = samples_without_av(manifest.speech_path(manifest.items[0]).with_suffix(".ogg"))
    known = np.load(manifest.speech_path(manifest.items[0]))["audio"]
    count = min(len(other), len(known))
    assert abs(len(other) - len(known)) <= 320
    assert np.corrcoef(other[:count], known[:count])[0, 1] > 0.999


def test_no_pack_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "x.pack").write_text("nothing")
    with pytest.raises(InvalidOption, match="is no pack"):
        unpack(tmp_path / "x.pack", tmp_path / "out")


def test_dev_people_are_whole_people_with_few_clips() -> None:
    items = [
        Item(key=f"{p}{k}", file="", corpus="c", speaker=str(p), split="train")
        for p in range(80)
        for k in range(3)
    ]
    items += [Item(key=f"s{k}", file="", corpus="c", speaker="much", split="train") for k in range(200)]
    people = dev_people(items)
    assert 4 <= len(people) <= 20
    assert "cmuch" not in people
    assert people == dev_people(items[::-1])
