"""The benchmark runs and finds something; how fast is no matter here."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "animate.py"


def test_benchmark_writes_positive_figures(tmp_path: Path) -> None:
    output = tmp_path / "benchmarks.json"
    options = ["--quick", "--only", "matmul,fps", "--sizes", "144", "--seconds", "0.4", "-o", str(output)]
    subprocess.run([sys.executable, str(SCRIPT), *options], check=True, capture_output=True)
    found = json.loads(output.read_text())
    assert found["machine"]["torch_threads"] > 0
    assert all(speed > 0 for speed in found["matmul"]["gflops"].values())
    assert found["fps"]["144"]["frames"] == 10
    assert all(figure > 0 for figure in found["fps"]["144"].values())
