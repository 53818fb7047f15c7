"""Trainings on a machine with a GPU that is lent for minutes: what they need, and how they share the time.

Nothing is waited for that can be had beforehand: :mod:`talkface.data.pack` says what travels, and
:mod:`talkface.training.parcels` what comes back, from the first export on.
"""

import functools
import importlib.util
import json
import logging
import math
import operator
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

from talkface.data.pack import Contents
from talkface.errors import InvalidOption
from talkface.training.parcels import Parcel, complete

logger = logging.getLogger(__name__)

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "src" / "talkface" / "weights" / "compact"
_GRACE = 8.0  # seconds after its time that a training may take to end
_COMPILED = 300.0  # seconds of a training from which compiling, a minute, pays
_RESERVE = 0.07, 12.0  # share of a training's time, and least seconds, for its last validation and export
_WORTH = 45.0  # seconds that must be left to try a training again that failed
_FEW = 12  # clips and portraits beside those of split "dev", of a tiny run
_OF_DIFFUSERS = ("diffusers", "importlib_metadata")
_OF_SOUND = ("soundfile", "cffi", "pycparser")
_FACES = Contents(portraits=True, weights=("face", "face-autoencoder"), wheels=_OF_DIFFUSERS)
_LDM = ("face", "face-autoencoder", "face-diffusion")
_FOOTAGE = Contents(density=100, silent=True, seconds=1.2, of_one=3, weights=_LDM, wheels=_OF_DIFFUSERS)
_LITTLE_FOOTAGE = ("config.batch=2", "config.frames=3", "config.held_out=2")
_SMALL_LDM = (
    "config.model={widths: [8, 16], attention: [false, true], layers: 1, heads: 2, text: 16, text_layers: 1,"
    " mesh: 4}"
)
_LITTLE_FACES = (_SMALL_LDM, "config.batch=2", "config.variants=2", "config.held_out=2", "config.sharpness=0")


@dataclass(frozen=True, kw_only=True)
class Training:
    """One of the trainings.

    Attributes:
        recipe: its name in ``recipes/``.
        model: what it trains, by the name under which it is shipped.
        share: of the time, beside the shares of those that run with it; what one leaves goes to the rest.
        contents: what it needs.
        comes_back: whether its model is wanted, or only what stands on it.
        after: what must be trained before it, in the same run.
        settings: overrides of the recipe.
        sizes: settings of the batch's size.
        tiny: overrides that make it small enough for a test.
        judged: overrides with which it is judged here, where its task is set up for validation alone.
    """

    recipe: str
    model: str
    share: float
    contents: Contents
    comes_back: bool = True
    after: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ("batch",)
    tiny: tuple[str, ...] = ()
    judged: tuple[str, ...] = ()


#: In the order in which they run: what others stand on comes first.
TRAININGS = {
    "teacher": Training(
        recipe="face-diffusion-large",
        model="face-diffusion-teacher",
        share=5,
        contents=_FACES,
        comes_back=False,
        tiny=_LITTLE_FACES,
    ),
    "ldm": Training(
        recipe="face-diffusion-distilled",
        model="face-diffusion",
        share=3,
        contents=_FACES,
        after=("teacher",),
        settings=("config.teacher=face-diffusion-teacher",),
        tiny=_LITTLE_FACES,
        judged=("config.variants=1",),
    ),
    "sca": Training(
        recipe="imagineid-sca-large",
        model="imagineid-sca",
        share=2,
        contents=_FOOTAGE,
        tiny=_LITTLE_FOOTAGE,
    ),
    "mba": Training(
        recipe="imagineid-mba-large",
        model="imagineid-mba",
        share=1,
        contents=_FOOTAGE,
        after=("sca",),
        tiny=_LITTLE_FOOTAGE,
    ),
    "tccp": Training(
        recipe="tccp-video-large",
        model="tccp-video",
        share=3,
        contents=Contents(
            density=100,
            speech=True,
            seconds=1.2,
            of_one=3,
            weights=(*_LDM, "thpad-refiner"),
            wheels=_OF_DIFFUSERS + _OF_SOUND,
        ),
        settings=("config.windows=4",),  # eight would take a minute of the CPUs before the first step
        tiny=("config.batch=1", "config.windows=1", "config.held_out=1"),
    ),
    "refiner": Training(
        recipe="thpad-refiner-large",
        model="thpad-refiner",
        share=3,
        contents=Contents(density=236, silent=True, seconds=12.0, of_one=6, smallest=100, weights=("face",)),
        sizes=("mouths", "eyes"),
        tiny=("config.mouths=1", "config.eyes=1", "config.smallest_unit=0", "config.max_clips=2"),
    ),
    "prior": Training(
        recipe="thpad-prior-large",
        model="thpad-prior",
        share=1,
        contents=Contents(
            speech=True, of_one=10, weights=("face", "speech", "thpad-motion"), wheels=_OF_SOUND
        ),
        tiny=(
            "config.model={width: 32, layers: 1, heads: 2, feed_forward: 64}",
            "config.batch=2",
            "config.motion.variants=1",
        ),
        judged=("config.motion.variants=1",),
    ),
    "sync": Training(
        recipe="g4g-sync-large",
        model="sync-training",
        share=2,
        contents=Contents(
            density=90, room=1.2, speech=True, of_one=14, weights=("face", "speech"), wheels=_OF_SOUND
        ),
        sizes=("clips",),
        tiny=("config.clips=2", "config.stretch=24", "config.max_clips=4", "config.half=all"),
    ),
}


def chosen(names: Sequence[str]) -> list[str]:
    """The named trainings and those that they stand on, in the order in which they run.

    Raises:
        InvalidOption: there is no such training.
    """
    unknown = [name for name in names if name not in TRAININGS]
    if unknown or not names:
        named = ", ".join(unknown) or "is named"
        raise InvalidOption(f"no training {named}: --for takes {', '.join(TRAININGS)}")
    wanted = set(names)
    for name in reversed(TRAININGS):
        if name in wanted:
            wanted |= set(TRAININGS[name].after)
    return [name for name in TRAININGS if name in wanted]


def contents_of(names: Sequence[str]) -> Contents:
    """What trainings need together; what one of them trains for those after it need not travel."""
    needed, made = [], set[str]()
    for training in (TRAININGS[name] for name in chosen(names)):
        left = tuple(name for name in training.contents.weights if name not in made)
        needed.append(replace(training.contents, weights=left))
        made.add(training.model)
    return functools.reduce(operator.or_, needed)


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


def told(name: str, state: dict[str, Any]) -> str:
    """A training's report in a line."""
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
class Place:
    """Where the trainings of a run work: a folder of their own.

    Attributes:
        folder: made if missing.
        tiny: whether everything is small, for a test.
        device: "auto", "cpu" or "cuda".
        steps: of each training, in place of its time; 0 for its time.
        size: of a batch in place of the recipes'; 0 for theirs.
        careful: whether nothing is compiled, and a thread draws the batches: where a training failed.
    """

    folder: Path
    tiny: bool = False
    device: str = "auto"
    steps: int = 0
    size: int = 0
    careful: bool = False

    def told(self) -> dict[str, Any]:
        """Itself, for a process of its own."""
        return asdict(self) | {"folder": str(self.folder)}

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "Place":
        """What :meth:`told` tells."""
        return cls(**{**told, "folder": Path(told["folder"])})

    def settings(self, training: Training) -> list[str]:
        """Overrides of a training's recipe here."""
        found = [*training.settings, *(training.tiny if self.tiny else ())]
        return found + [f"config.{size}={self.size}" for size in training.sizes if self.size]

    @property
    def prepared(self) -> Path:
        """What the pack held."""
        return self.folder / "prepared"

    def run(self, name: str) -> Path:
        """Checkpoints, logs and the export of a training."""
        return self.folder / "runs" / name

    def environment(self) -> dict[str, str]:
        """Of the trainings' processes: they find this code, the pack's weights and, at last, its wheels."""
        paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", ""), str(self.folder / "site")]
        weights = str(self.prepared / "weights")
        found = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "TALKFACE_WEIGHTS": weights}
        return os.environ | found | {"OPENBLAS_NUM_THREADS": "1"}  # processes that draw share the processors

    def install_wheels(self, pack: Path) -> None:
        """Lay out those of a pack's wheels that this machine lacks, and find them from now on."""
        site = self.folder / "site"
        if not zipfile.is_zipfile(pack):
            raise InvalidOption(f"{pack} is no pack: `python scripts/gpu.py pack` makes one")
        with zipfile.ZipFile(pack) as parcel:
            for name in parcel.namelist():
                package = Path(name).name.split("-")[0]
                if name.startswith("wheels/") and not importlib.util.find_spec(package):
                    with parcel.open(name) as file, zipfile.ZipFile(file) as wheel:
                        wheel.extractall(site)
        sys.path.append(str(site))


def train(pack: Path, out: Path, names: Sequence[str], budget: float, place: Place) -> dict[str, Any]:
    """Run trainings one after the other within a time, each in a process of its own.

    Args:
        pack: what they need.
        out: where :mod:`talkface.training.parcels` leaves what is done so far, whenever there is more of it.
        names: of the trainings.
        budget: seconds in all, from now on.
        place: where they work.

    Returns:
        The report that lies beside the models.
    """
    from talkface.data.unpack import unpack

    end = time.monotonic() + budget
    place.folder.mkdir(parents=True, exist_ok=True)
    place.install_wheels(pack)
    unpack(pack, place.prepared, *(("dev", _FEW) if place.tiny else ()))
    left, parcel = chosen(names), Parcel(out)
    logger.info("unpacked, with %.0f s left for %s", end - time.monotonic(), ", ".join(left))
    while left:
        now, shares = time.monotonic(), [TRAININGS[name].share for name in left]
        seconds = (end - now) * shares[0] / sum(shares)
        name = left.pop(0)
        shutil.rmtree(place.run(name), ignore_errors=True)  # of an earlier run in the same folder
        if not _train_beside(name, seconds, place, parcel):
            again = now + seconds - time.monotonic()
            if again > _WORTH:
                _train_beside(name, again, replace(place, careful=True), parcel)
        _take_over(place.run(name) / "export", place.prepared / "weights" / "compact" / TRAININGS[name].model)
    return parcel.report


def _train_beside(name: str, seconds: float, place: Place, parcel: Parcel) -> bool:
    """One training in a process of its own, ended if it does not end; its exports are sent as they come.

    Returns:
        Whether there is a model.
    """
    training, run, deadline = TRAININGS[name], place.run(name), time.time() + seconds
    run.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "talkface.training.lent", name, str(deadline), json.dumps(place.told())]
    with (run / "output.log").open("w") as output:
        process = subprocess.Popen(
            command, env=place.environment(), stdout=output, stderr=subprocess.STDOUT, cwd=ROOT
        )
        try:
            while process.poll() is None:
                if not place.steps and time.time() > deadline + _GRACE:
                    process.kill()
                time.sleep(0.2)
                parcel.send(name, training.model, run, training.comes_back)
        finally:
            process.kill()
            process.wait()
    parcel.send(name, training.model, run, training.comes_back, ended=process.returncode)
    logger.info("%s: ended with %d after %.0f s", name, process.returncode, time.time() - deadline + seconds)
    return complete(run / "export") is not None


def _take_over(export: Path, target: Path) -> None:
    """Let the trainings that follow find a model where they look for the shipped one."""
    if complete(export):
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(export, target)


def train_one(name: str, deadline: float, place: Place) -> None:
    """One training until a time (of ``time.time()``), all that it takes counted; writes ``figures.json``."""
    from talkface.training.measure import figures_of, fitting, has_gpu, machine, use_tensor_cores
    from talkface.training.run import load_recipe
    from talkface.training.trainer import fit

    training, run, begin = TRAININGS[name], place.run(name), time.time()
    task_class, config, trainer = load_recipe(
        ROOT / "recipes" / f"{training.recipe}.yaml", place.settings(training)
    )
    gpu = place.device != "cpu" and has_gpu()
    if gpu:
        use_tensor_cores()
    seconds = deadline - begin
    trainer = replace(
        trainer,
        device="cuda" if gpu else "cpu",
        precision="bf16" if gpu else "no",
        compile=gpu and not place.careful and seconds >= _COMPILED,
        export_seconds=0.1 if place.tiny else 30.0,
        validate_seconds=_validated_every(seconds, place),
        checkpoint_seconds=0.0,  # a machine that goes leaves no checkpoint behind
    )
    task = task_class(config, place.prepared, trainer.seed, trainer.device)
    step = {"prepared_in": round(time.time() - begin, 1)} | fitting(task, training.sizes, trainer)
    (run / "figures.json").write_text(json.dumps(step))
    left = deadline - time.time()
    left -= max(_RESERVE[0] * left, _RESERVE[1])
    workers = workers_for(step["batch_bytes"]) if gpu and not place.careful else 0
    steps = place.steps or None
    trainer = replace(trainer, workers=workers, minutes=max(left, 1.0) / 60, max_steps=steps)
    metrics = fit(task, trainer, run, resume=False)
    (run / "figures.json").write_text(json.dumps(figures_of(run, step, metrics) | machine(trainer.device)))


def _validated_every(seconds: float, place: Place) -> float:
    """Seconds from one validation to the next; a run of so many steps is validated at its end."""
    if place.steps:
        return math.inf
    return 2.0 if place.tiny else max(2.0, min(40.0, seconds / 6))


def workers_for(batch_bytes: int) -> int:
    """Processes that draw batches: as many as there are processors for, and room in shared memory."""
    from talkface.training.draws import AHEAD

    shared = Path("/dev/shm")
    room = shutil.disk_usage(shared).free if shared.is_dir() else 0
    fitting = int(0.5 * room / ((AHEAD + 1) * max(batch_bytes, 1)))
    return max(0, min((os.cpu_count() or 1) - 2, fitting))


def _main(name: str, deadline: str, told: str) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train_one(name, float(deadline), Place.of(json.loads(told)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
