"""The same on every processor: what must not hang on an instruction set, and how others are imitated."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "other_cpus.py"


def told(name: str, code: str, packages: str = "import torch") -> str:
    """What Python prints as on the named processor."""
    command = [sys.executable, str(SCRIPT), name, "--", sys.executable, "-c", f"{packages}; print({code})"]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "2"}
    )
    if done.returncode == 3:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("name", ["default", "sse4"])
def test_torch_believes_it(name: str) -> None:
    assert told(name, "torch.backends.cpu.get_cpu_capability()") == "DEFAULT"


def test_one_thread_is_one() -> None:
    assert told("one-thread", "torch.get_num_threads()") == "1"


def test_libraries_without_a_switch_believe_it_too() -> None:
    features = told("zen3", "cv2.getCPUFeaturesLine()", "import cv2")
    assert "*AVX2" in features
    assert "*AVX512-SKX?" in features, "built for it, and not found"


def test_units_for_bf16_that_torch_may_not_use_do_not_count() -> None:
    """A product in bf16 without them takes about a hundred times as long as in fp32."""
    assert told("avx2", "has_bf16_units()", "from talkface.options import has_bf16_units") == "False"


def test_unknown_processors_are_refused() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "z80", "--", "true"], capture_output=True, check=False
    )
    assert done.returncode == 2
    assert b"zen3" in done.stderr


def test_pixels_are_shuffled_without_avx2() -> None:
    """Where torch's own, channels last, is refused."""
    code = "pixel_shuffle(torch.arange(8.).reshape(1, 8, 1, 1).to(memory_format=torch.channels_last), 2)"
    packages = "import torch; from talkface.nn.blocks import pixel_shuffle"
    assert told("sse4", f"{code}.flatten().tolist()", packages) == str([float(k) for k in range(8)])
