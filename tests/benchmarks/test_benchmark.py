"""The benchmark runs and finds something; how fast is no matter here."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def measured(script: str, output: Path, *options: str) -> dict[str, Any]:
    """What a benchmark writes."""
    command = [sys.executable, str(BENCHMARKS / script), "--quick", *options, "-o", str(output)]
    subprocess.run(command, check=True, capture_output=True)
    figures: dict[str, Any] = json.loads(output.read_text())
    return figures


def test_animate_writes_positive_figures(tmp_path: Path) -> None:
    options = ["--only", "matmul,fps", "--sizes", "144", "--seconds", "0.4"]
    found = measured("animate.py", tmp_path / "benchmarks.json", *options)
    assert found["machine"]["torch_threads"] > 0
    assert all(speed > 0 for speed in found["matmul"]["gflops"].values())
    assert found["fps"]["144"]["frames"] == 10
    assert all(figure > 0 for figure in found["fps"]["144"].values())


def test_dub_writes_positive_figures(tmp_path: Path) -> None:
    found = measured("dub.py", tmp_path / "benchmarks.json", "--only", "stages", "--seconds", "0.4")
    assert found["seconds"] == 0.4
    assert found["stages"].pop("frames") == 10
    assert set(found["stages"]) >= {"decoder", "tracking", "speech", "occlusion", "jaw", "mouth", "encoder"}
    assert all(figure > 0 for stage in found["stages"].values() for figure in stage.values())


def test_imagine_writes_positive_figures(tmp_path: Path) -> None:
    options = ["--only", "first-frame,stages", "--renderers", "warp", "--seconds", "1.5"]
    found = measured("imagine.py", tmp_path / "benchmarks.json", *options)
    assert found["warp"]["first_frame"] > 0
    assert found["portrait"]["tries"] >= 1
    assert all(figure > 0 for figure in found["portrait"].values())


def test_fill_writes_positive_figures(tmp_path: Path) -> None:
    found = measured("fill.py", tmp_path / "benchmarks.json", "--only", "fps", "--seconds", "0.32")
    assert found["fps"]["frames"] == 8
    assert all(figure > 0 for figure in found["fps"].values())
