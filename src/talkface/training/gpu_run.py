"""Runs several trainings within a few minutes on a machine whose GPU is borrowed for them.

What they need is packed beforehand (:mod:`talkface.data.pack`), so that no minute is spent on preparation;
:mod:`talkface.training.gpu_results` writes what comes back, from the first exported model on.
:mod:`talkface.training.gpu_trainings` lists the trainings.
"""

import importlib.util
import json
import logging
import math
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from talkface.errors import InvalidOption
from talkface.training.gpu_results import GpuResults, complete
from talkface.training.gpu_trainings import TRAININGS, Training, chosen

logger = logging.getLogger(__name__)

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "src" / "talkface" / "weights" / "compact"
_GRACE_SECONDS = 8.0  # that a training may take to end after its time
_COMPILED_FROM_SECONDS = 300.0  # compiling takes a minute: it pays in trainings of at least so long
# Of a training, for its last validation and export; the larger counts.
_LAST_SHARE, _LAST_SECONDS = 0.07, 12.0
_RETRY_SECONDS = 45.0  # that must be left to try a training again that failed
_TINY_ITEMS = 12  # clips and portraits beside those of split "dev", of a tiny run


def code_size() -> int:
    """Bytes of the code that is needed there: the package without its weights, recipes and scripts."""
    files = [file for folder in ("src", "scripts", "recipes") for file in (ROOT / folder).rglob("*")]
    kept = [file for file in files if file.is_file() and "__pycache__" not in file.parts]
    return sum(file.stat().st_size for file in kept if SHIPPED not in file.parents)


def wheels_in(folder: Path, packages: Sequence[str]) -> list[Path]:
    """The wheels of packages in a folder.

    Raises:
        InvalidOption: one is missing.
    """
    found = []
    for package in packages:
        wheels = sorted(folder.glob(f"{package}-*.whl"))
        if not wheels:
            raise InvalidOption(f"{folder} holds no wheel of {package}: see docs/gpu.md on how to get it")
        found.append(wheels[-1])
    return found


def report_line(name: str, state: dict[str, Any]) -> str:
    """What the report says of a training, in a line."""
    if state["ended"]:
        lines = state["error"].strip().splitlines() or [f"ended by signal {-state['ended']}"]
        return f"{name}: failed: {lines[-1]}"
    share = f", {state['peak_share']:.0%} of the peak" if state.get("peak_share") is not None else ""
    return (
        f"{name}: {state.get('steps', 0)} steps of {state.get('batch', 0)} in "
        f"{state.get('seconds', 0):.0f} s, {state.get('samples_per_second', 0):g} samples/s, "
        f"{state.get('gflop_per_sample', 0):g} GFLOP a sample{share}: {state.get('metrics')}"
    )


@dataclass(frozen=True)
class Workspace:
    """The folder in which a run of trainings works, and how.

    Attributes:
        folder: made if missing.
        tiny: whether everything is small, for a test.
        device: "auto", "cpu" or "cuda".
        steps: of each training, in place of its time; 0 for its time.
        size: of a batch in place of the recipes'; 0 for theirs.
        careful: whether nothing is compiled and a thread draws the batches: for a second try after a failure.
    """

    folder: Path
    tiny: bool = False
    device: str = "auto"
    steps: int = 0
    size: int = 0
    careful: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values, to be handed to another process."""
        return asdict(self) | {"folder": str(self.folder)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Workspace":
        """The inverse of :meth:`to_dict`."""
        return cls(**{**values, "folder": Path(values["folder"])})

    def settings(self, training: Training) -> list[str]:
        """Overrides of a training's recipe here."""
        found = [*training.settings, *(training.tiny if self.tiny else ())]
        return found + [f"config.{size}={self.size}" for size in training.sizes if self.size]

    @property
    def prepared(self) -> Path:
        """The prepared folder that the pack held."""
        return self.folder / "prepared"

    def run(self, name: str) -> Path:
        """Checkpoints, logs and the export of a training."""
        return self.folder / "runs" / name

    def environment(self) -> dict[str, str]:
        """Environment variables of the trainings' processes.

        They find this code, the pack's weights and, where a package is not installed, the pack's wheels.
        """
        paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", ""), str(self.folder / "site")]
        weights = str(self.prepared / "weights")
        found = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "TALKFACE_WEIGHTS": weights}
        return os.environ | found | {"OPENBLAS_NUM_THREADS": "1"}  # processes that draw share the processors

    def install_wheels(self, pack: Path) -> None:
        """Unpack those of a pack's wheels that this machine lacks, and make them importable."""
        site = self.folder / "site"
        if not zipfile.is_zipfile(pack):
            raise InvalidOption(f"{pack} is no pack: `python scripts/gpu.py pack` makes one")
        with zipfile.ZipFile(pack) as packed:
            for name in packed.namelist():
                package = Path(name).name.split("-")[0]
                if name.startswith("wheels/") and not importlib.util.find_spec(package):
                    with packed.open(name) as file, zipfile.ZipFile(file) as wheel:
                        wheel.extractall(site)
        sys.path.append(str(site))


def train(pack: Path, out: Path, names: Sequence[str], budget: float, space: Workspace) -> dict[str, Any]:
    """Run trainings one after the other within a time, each in a process of its own.

    Args:
        pack: what they need.
        out: where the models and the report go, anew whenever a training has exported a better model.
        names: of the trainings.
        budget: seconds in all, from now on.
        space: where they work.

    Returns:
        The report that lies beside the models.
    """
    from talkface.data.unpack import unpack

    end = time.monotonic() + budget
    space.folder.mkdir(parents=True, exist_ok=True)
    space.install_wheels(pack)
    unpack(pack, space.prepared, *(("dev", _TINY_ITEMS) if space.tiny else ()))
    left, results = chosen(names), GpuResults(out)
    logger.info("unpacked, with %.0f s left for %s", end - time.monotonic(), ", ".join(left))
    while left:
        now, shares = time.monotonic(), [TRAININGS[name].share for name in left]
        seconds = (end - now) * shares[0] / sum(shares)
        name = left.pop(0)
        shutil.rmtree(space.run(name), ignore_errors=True)  # of an earlier run in the same folder
        if not _train_beside(name, seconds, space, results):
            again = now + seconds - time.monotonic()
            if again > _RETRY_SECONDS:
                _train_beside(name, again, replace(space, careful=True), results)
        _take_over(space.run(name) / "export", space.prepared / "weights" / "compact" / TRAININGS[name].model)
    return results.report


def _train_beside(name: str, seconds: float, space: Workspace, results: GpuResults) -> bool:
    """Run one training in a process of its own, which is killed if it does not end in time.

    Its exports are added to the results as they come.

    Returns:
        Whether there is a model.
    """
    training, run, deadline = TRAININGS[name], space.run(name), time.time() + seconds
    run.mkdir(parents=True, exist_ok=True)
    arguments = [name, str(deadline), json.dumps(space.to_dict())]
    command = [sys.executable, "-m", "talkface.training.gpu_run", *arguments]
    with (run / "output.log").open("w") as output:
        process = subprocess.Popen(
            command, env=space.environment(), stdout=output, stderr=subprocess.STDOUT, cwd=ROOT
        )
        try:
            while process.poll() is None:
                if not space.steps and time.time() > deadline + _GRACE_SECONDS:
                    process.kill()
                time.sleep(0.2)
                results.send(name, training.model, run, training.comes_back)
        finally:
            process.kill()
            process.wait()
    results.send(name, training.model, run, training.comes_back, ended=process.returncode)
    logger.info("%s: ended with %d after %.0f s", name, process.returncode, time.time() - deadline + seconds)
    return complete(run / "export") is not None


def _take_over(export: Path, target: Path) -> None:
    """Put a model where the trainings that follow look for the shipped one."""
    if complete(export):
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(export, target)


def train_one(name: str, deadline: float, space: Workspace) -> None:
    """Run one training and write its ``figures.json``.

    Args:
        name: a key of TRAININGS.
        deadline: time (of ``time.time()``) at which everything is done, the last export included.
        space: where it works.
    """
    from talkface.training.measure import figures_of, fitting, has_gpu, machine, use_tensor_cores
    from talkface.training.run import load_recipe
    from talkface.training.trainer import fit

    training, run, begin = TRAININGS[name], space.run(name), time.time()
    recipe = load_recipe(ROOT / "recipes" / f"{training.recipe}.yaml", space.settings(training))
    gpu = space.device != "cpu" and has_gpu()
    if gpu:
        use_tensor_cores()
    seconds = deadline - begin
    trainer = replace(
        recipe.trainer,
        device="cuda" if gpu else "cpu",
        precision="bf16" if gpu else "no",
        compile=gpu and not space.careful and seconds >= _COMPILED_FROM_SECONDS,
        export_seconds=0.1 if space.tiny else 30.0,
        validate_seconds=_validated_every(seconds, space),
        checkpoint_seconds=0.0,  # a machine that is taken back leaves no checkpoint behind
    )
    task = recipe.iterative()(recipe.config, space.prepared, trainer.seed, trainer.device)
    step = {"prepared_in": round(time.time() - begin, 1)} | fitting(task, training.sizes, trainer)
    (run / "figures.json").write_text(json.dumps(step))
    left = deadline - time.time()
    left -= max(_LAST_SHARE * left, _LAST_SECONDS)
    workers = workers_for(step["batch_bytes"]) if gpu and not space.careful else 0
    trainer = replace(trainer, workers=workers, minutes=max(left, 1.0) / 60, max_steps=space.steps or None)
    metrics = fit(task, trainer, run, resume=False)
    (run / "figures.json").write_text(json.dumps(figures_of(run, step, metrics) | machine(trainer.device)))


def _validated_every(seconds: float, space: Workspace) -> float:
    """Seconds from one validation to the next; a run of so many steps is only validated at its end."""
    if space.steps:
        return math.inf
    return 2.0 if space.tiny else max(2.0, min(40.0, seconds / 6))


def workers_for(batch_bytes: int) -> int:
    """How many processes draw batches: limited by the processors and by the room in shared memory."""
    from talkface.training.batches import BATCHES_AHEAD

    shared = Path("/dev/shm")
    room = shutil.disk_usage(shared).free if shared.is_dir() else 0
    fitting = int(0.5 * room / ((BATCHES_AHEAD + 1) * max(batch_bytes, 1)))
    return max(0, min((os.cpu_count() or 1) - 2, fitting))


def _main(name: str, deadline: str, space: str) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train_one(name, float(deadline), Workspace.from_dict(json.loads(space)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
