"""Minutes of a GPU: trainings that end in time, results that survive a kill, and judging."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from talkface.data.manifest import Manifest
from talkface.data.pack import Contents, pack
from talkface.data.unpack import unpack
from talkface.diffusion.autoencoder import FaceAutoencoder
from talkface.diffusion.model import FaceDiffusion
from talkface.errors import InvalidOption
from talkface.face.model import FaceModel
from talkface.hub import load_pretrained, save_pretrained
from talkface.nn.marks import weights_mark
from talkface.training import gpu_run
from talkface.training.collect import ModelComparison, find_missing, renewed_card
from talkface.training.datasets.encoding import ClipSource
from talkface.training.datasets.triplets import FrameTriplets
from talkface.training.gpu_results import PART_BYTES, REPORT, GpuResults, join
from talkface.training.gpu_trainings import TRAININGS, chosen, contents_of

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "gpu.py"


@pytest.fixture(scope="module")
def prepared(prepared_people: Path) -> Path:
    return prepared_people


def gpu(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# -- trainings and what they need --------------------------------------------------------------------


def test_what_a_training_stands_on_runs_before_it() -> None:
    assert chosen(["ldm"]) == ["teacher", "ldm"]
    assert chosen(["sync", "mba"]) == ["sca", "mba", "sync"]
    assert "face-diffusion" in contents_of(["sca"]).weights
    assert "face-diffusion" not in contents_of(["ldm", "sca"]).weights  # it is trained on the way
    together = contents_of(["refiner", "prior"])
    assert together.density == 236
    assert together.speech
    assert together.seconds == 60


def test_code_is_counted_without_weights() -> None:
    assert 0.5e6 < gpu_run.code_size() < 4e6


# -- results -----------------------------------------------------------------------------------------


def exported(run: Path, seed: int, size: int = 1000) -> None:
    import torch

    generator = torch.Generator().manual_seed(seed)
    save_pretrained(run / "export", {"class": "X"}, {"x": torch.randn(size, generator=generator)})
    (run / "output.log").write_text("told")


def test_results_hold_parts_of_a_size_and_give_models_back(tmp_path: Path) -> None:
    exported(tmp_path / "run", 0, 20 * 2**19)
    results = GpuResults(tmp_path / "out")
    results.send("prior", "thpad-prior", tmp_path / "run", wanted=True)
    parts = sorted((tmp_path / "out").glob("*.part"))
    assert len(parts) == 2
    assert all(p.stat().st_size <= PART_BYTES for p in parts)
    report = join(tmp_path / "out", tmp_path / "models")
    assert report["trainings"]["prior"]["ended"] is None
    for name in ("config.json", "model.safetensors"):
        back = tmp_path / "models" / "thpad-prior" / name
        assert back.read_bytes() == (tmp_path / "run" / "export" / name).read_bytes()


def test_results_are_renewed_and_old_parts_go(tmp_path: Path) -> None:
    results = GpuResults(tmp_path / "out")
    for seed in range(3):
        exported(tmp_path / "run", seed)
        results.send("prior", "thpad-prior", tmp_path / "run", wanted=True)
        assert len(list((tmp_path / "out").glob("*.part"))) == 1
    join(tmp_path / "out", tmp_path / "models")


def test_half_an_export_is_not_sent(tmp_path: Path) -> None:
    exported(tmp_path / "run", 0)
    (tmp_path / "run" / "export" / "model.safetensors").write_bytes(b"half")
    GpuResults(tmp_path / "out").send("prior", "thpad-prior", tmp_path / "run", wanted=True)
    assert not list((tmp_path / "out").iterdir())


def test_what_does_not_fit_is_left_out_and_the_rest_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("talkface.training.gpu_results.MOST_PARTS", 1)
    results = GpuResults(tmp_path / "out")
    for name, size in (("prior", 1000), ("sync", 17 * 2**19)):
        exported(tmp_path / name, 0, size)
        results.send(name, TRAININGS[name].model, tmp_path / name, wanted=True)
    report = join(tmp_path / "out", tmp_path / "models")
    assert report["left_out"] == ["sync-training"]
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["thpad-prior"]


@pytest.mark.parametrize("harm", ["missing", "damaged", "report"])
def test_what_is_broken_is_told_in_a_line(tmp_path: Path, harm: str) -> None:
    exported(tmp_path / "run", 0)
    GpuResults(tmp_path / "out").send("prior", "thpad-prior", tmp_path / "run", wanted=True)
    (part,) = (tmp_path / "out").glob("*.part")
    if harm == "missing":
        part.unlink()
    elif harm == "damaged":
        part.write_bytes(part.read_bytes()[:-1] + b"!")
    else:
        (tmp_path / "out" / REPORT).write_text("{")
    with pytest.raises(InvalidOption, match={"report": "holds no report"}.get(harm, harm)):
        join(tmp_path / "out", tmp_path / "models")


def test_card_keeps_data_and_limits() -> None:
    old = "---\nlicense: x\n---\n# A\n\n## Data\nours\n\n## Training\nold\n\n## Metrics\nold\n"
    old += "\n## Limits\nmany\n"
    report = {"trainings": {"prior": {"model": "thpad-prior", "machine": "a card", "seconds": 9, "steps": 7}}}
    card = renewed_card(
        old, report, ModelComparison("thpad-prior", {"val_loss": 0.1}, {"val_loss": 0.2}, better=True)
    )
    assert "old" not in card
    for part in (
        "license: x",
        "## Data\nours",
        "a card",
        "recipes/thpad-prior-large.yaml",
        "0.1 | 0.2",
        "many",
    ):
        assert part in card


# -- the whole way -----------------------------------------------------------------------------------


def whole_way(prepared: Path, folder: Path, names: str) -> tuple[dict[str, Any], str, Path]:
    """Pack, train and collect; the report, what collect printed, and the folder of weights."""
    done = gpu("pack", prepared, folder / "pack", "--for", names)
    assert done.returncode == 0, done.stderr
    assert "MiB for" in done.stdout
    done = gpu(
        "train", folder / "pack", folder / "out", "--for", names, "--tiny", "--device", "cpu", "--steps", 2
    )
    assert done.returncode == 0, done.stdout + done.stderr
    weights = folder / "weights"
    shutil.copytree(
        gpu_run.SHIPPED, weights, ignore=shutil.ignore_patterns("speech", "pad", "sync-evaluation")
    )
    done = gpu("collect", folder / "out", "--pack", folder / "pack", "--tiny", "--weights", weights)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "out" / REPORT).read_text()), done.stdout, weights


def unlike(weights: Path, model: str) -> bool:
    return digest(weights / model) != digest(gpu_run.SHIPPED / model)


def digest(model: Path) -> str:
    return hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.slow
def test_the_whole_way_with_a_prior(prepared: Path, tmp_path: Path) -> None:
    report, printed, weights = whole_way(prepared, tmp_path, "prior")
    told = report["trainings"]["prior"]
    assert told["ended"] == 0
    assert told["steps"] == 2
    assert told["batch"] == 2
    assert told["gflop_per_sample"] > 0
    assert 0 < told["peak_share"] < 1
    assert any(name == "val_loss" for _, name, _ in told["curve"])
    assert "thpad-prior: not better" in printed  # two steps of a network do not beat the shipped one
    assert not unlike(weights, "thpad-prior")


@pytest.mark.slow
def test_the_whole_way_with_every_training(prepared: Path, tmp_path: Path) -> None:
    names = ",".join(name for name in TRAININGS if name != "prior")
    report, printed, weights = whole_way(prepared, tmp_path, names)
    assert list(report["trainings"]) == names.split(",")
    for name, told in report["trainings"].items():
        assert (told["ended"], told["steps"]) == (0, 2), name
        assert (f"{told['model']}:" in printed) == TRAININGS[name].comes_back
    assert not unlike(weights, "face-diffusion")
    join(tmp_path / "out", tmp_path / "models")
    mark = weights_mark(FaceDiffusion.from_pretrained(str(tmp_path / "models" / "face-diffusion")))
    for adapter in ("imagineid-sca", "tccp-video"):  # they stand on the face LDM of their own run
        config = json.loads((tmp_path / "models" / adapter / "config.json").read_text())
        assert config["built_on"]["base"] == mark


@pytest.mark.slow
def test_what_is_better_takes_its_place(prepared: Path, tmp_path: Path) -> None:
    """The shipped prior comes back, and beats one that was spoilt."""
    pack(prepared, tmp_path / "pack", contents_of(["prior"]))
    shutil.copytree(gpu_run.SHIPPED / "thpad-prior", tmp_path / "run" / "export")
    (tmp_path / "run" / "figures.json").write_text('{"machine": "a card", "steps": 5}')
    GpuResults(tmp_path / "out").send("prior", "thpad-prior", tmp_path / "run", wanted=True, ended=0)
    weights = tmp_path / "weights"
    shutil.copytree(gpu_run.SHIPPED / "thpad-prior", weights / "thpad-prior")
    config, state = load_pretrained(weights / "thpad-prior")
    spoilt = {name: tensor * 0.5 for name, tensor in state.items()}
    save_pretrained(weights / "thpad-prior", config, spoilt)
    done = gpu("collect", tmp_path / "out", "--pack", tmp_path / "pack", "--weights", weights)
    assert done.returncode == 0, done.stderr
    assert "thpad-prior: installed" in done.stdout
    assert not unlike(weights, "thpad-prior")
    card = (weights / "thpad-prior" / "MODEL_CARD.md").read_text()
    assert "a card" in card
    assert "## Limits" in card


def test_a_training_that_fails_is_told_and_leaves_no_model(prepared: Path, tmp_path: Path) -> None:
    pack(prepared, tmp_path / "pack", Contents(speech=True, weights=("face",)))
    done = gpu(
        "train",
        tmp_path / "pack",
        tmp_path / "out",
        "--for",
        "prior",
        "--tiny",
        "--device",
        "cpu",
        "--budget",
        30,
        "--work",
        tmp_path / "work",
    )
    assert done.returncode == 1
    assert "prior: failed: " in done.stdout
    report = json.loads((tmp_path / "out" / REPORT).read_text())
    assert report["parts"] == []
    assert "thpad-motion" in report["trainings"]["prior"]["error"]


def test_nothing_to_train_on_is_told(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="no clip with 100 pixels between the eyes"):
        pack(prepared, tmp_path / "pack", contents_of(["refiner"]))


@pytest.mark.parametrize("free", [0, 10**6, 10**12])
def test_processes_that_draw_fit_into_shared_memory(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert gpu_run.workers_for(10**5) == {0: 0, 10**6: 1, 10**12: 14}[free]


def test_footage_is_the_same_however_many_cut_it(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for processors in (1, 4):
        monkeypatch.setattr(os, "cpu_count", lambda count=processors: count)
        folder = tmp_path / str(processors)
        shutil.copytree(prepared, folder)
        face, autoencoder = FaceModel.from_pretrained(), FaceAutoencoder.from_pretrained("face-autoencoder")
        source = ClipSource(
            manifest=Manifest.load(folder), split="train", face=face, autoencoder=autoencoder, mark="x"
        )
        found.append(FrameTriplets.of(source, 2))
    np.testing.assert_array_equal(found[0].points, found[1].points)
    np.testing.assert_allclose(found[0].moved, found[1].moved, atol=2e-3)


def verdict(model: str, better: bool) -> ModelComparison:
    return ModelComparison(model, {"x": 1.0}, {"x": 2.0}, better)


@pytest.mark.parametrize(
    ("better", "missing"),
    [
        # A face LDM goes with all that stands on it, or stays.
        ({"face-diffusion": True}, {"face-diffusion": ["imagineid-tia", "imagineid-sca", "tccp-video"]}),
        (
            {"face-diffusion": True, "imagineid-sca": True},
            {"face-diffusion": ["imagineid-tia", "tccp-video"], "imagineid-sca": ["face-diffusion"]},
        ),
        # What was trained over one that stays is worth nothing.
        ({"face-diffusion": False, "imagineid-sca": True}, {"imagineid-sca": ["face-diffusion"]}),
        (
            {"face-diffusion": True, "imagineid-sca": False, "tccp-video": True, "imagineid-tia": True},
            {
                "face-diffusion": ["imagineid-sca"],
                "tccp-video": ["face-diffusion"],
                "imagineid-tia": ["face-diffusion"],
            },
        ),
        ({"face-diffusion": True, "imagineid-sca": True, "tccp-video": True, "imagineid-tia": True}, {}),
        ({"thpad-prior": True, "imagineid-sca": True}, {}),
    ],
)
def test_nothing_is_half_replaced(better: dict[str, bool], missing: dict[str, list[str]]) -> None:
    verdicts = [verdict(model, good) for model, good in better.items()]
    find_missing(verdicts, gpu_run.SHIPPED)
    assert {v.model: v.missing for v in verdicts if v.missing} == missing


@pytest.mark.slow
def test_a_kill_leaves_the_last_export(prepared: Path, tmp_path: Path) -> None:
    pack(prepared, tmp_path / "pack", contents_of(["prior"]))
    command = [sys.executable, str(SCRIPT), "train", str(tmp_path / "pack"), str(tmp_path / "out"), "--for"]
    command += ["prior", "--tiny", "--device", "cpu", "--budget", "600", "--work", str(tmp_path / "work")]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        end = time.monotonic() + 120
        while not (tmp_path / "out" / REPORT).is_file():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the trainings that it began are of its group
    report = join(tmp_path / "out", tmp_path / "models")
    assert report["trainings"]["prior"]["ended"] is None
    assert (tmp_path / "models" / "thpad-prior" / "model.safetensors").is_file()


HIDDEN = """
import runpy, sys
from importlib.machinery import PathFinder
MISSING = {"av", "ai_edge_litert", "rich", "typer", "dlib", "silero_vad", "skimage"}

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in MISSING else super().find_spec(name, path, target)

sys.meta_path = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
try:
    import av
except ImportError:
    runpy.run_module("talkface.training.gpu_run", run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prior", "tccp"])
def test_training_needs_nothing_that_a_bare_machine_lacks(prepared: Path, tmp_path: Path, name: str) -> None:
    """No PyAV, LiteRT, rich, typer, dlib or Silero; diffusers and soundfile travel as wheels."""
    pack(prepared, tmp_path / "pack", contents_of([name]))
    space = gpu_run.Workspace(tmp_path / "work", tiny=True, device="cpu", steps=1)
    unpack(tmp_path / "pack", space.prepared)
    space.run(name).mkdir(parents=True)
    arguments = [name, str(time.time() + 60), json.dumps(space.to_dict())]
    done = subprocess.run(
        [sys.executable, "-c", HIDDEN, *arguments],
        env=space.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (space.run(name) / "export" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("pack", "nowhere", "x.pack", "--for", "prior"), "manifest.jsonl"),
        (("pack", "nowhere", "x.pack", "--for", "piror"), "no training piror"),
        (("train", "nothing.pack", "out", "--for", "prior"), "nothing.pack"),
        (("collect", "nothing", "--pack", "x.pack"), "report.json"),
    ],
)
def test_bad_input_gets_one_line(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
