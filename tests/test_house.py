"""The plan of the house: which room may use which, and what a verb loads."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import write_clip
from talkface.training.run import TASKS

ROOT = Path(__file__).parents[1] / "src" / "talkface"

FLOORS = (
    ("errors", "_version"),
    ("hub", "progress", "options"),
    ("media", "nn"),
    ("face", "speech"),
    ("diffusion", "performance"),
    ("rendering", "output"),
    ("systems",),
    ("api", ""),
    ("data",),
    ("evaluation",),
    ("training",),
    ("cli",),
    ("__main__",),
)
"""Rooms from the ground up: each uses those below it, and those beside it."""

FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
LONGEST_FUNCTION, LONGEST_FILE = 60, 400  # lines
NOT_FOR_VERBS = ("talkface.data", "talkface.training", "talkface.evaluation")


@cache
def modules() -> dict[str, Path]:
    """Every module by its name inside the package; the package itself is ""."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(module: str) -> set[str]:
    """What a module imports of the package, wherever in the file and whatever for."""
    found = set()
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import, which this file does not read"
        if isinstance(node, ast.ImportFrom) and room(node.module or "") == "talkface":
            base = (node.module or "").removeprefix("talkface").removeprefix(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".lstrip(".")
                found.add(full if full in modules() else base)
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            found |= {n.removeprefix("talkface").lstrip(".") for n in names if room(n) == "talkface"}
    return found


def room(module: str) -> str:
    return module.partition(".")[0]


def test_every_room_has_a_floor() -> None:
    assert {room(module) for module in modules()} == set(FLOOR)


@pytest.mark.parametrize("module", sorted(modules()))
def test_arrows_run_down(module: str) -> None:
    up = [other for other in imports(module) if FLOOR[room(other)] > FLOOR[room(module)]]
    assert not up, f"{module} uses {up}, which stand above it"


@pytest.mark.parametrize("module", sorted(name for name in modules() if name.count(".") > 1))
def test_no_system_uses_another(module: str) -> None:
    if room(module) == "systems":
        own = module.split(".")[1]
        others = [name for name in imports(module) if room(name) == "systems" and name.count(".") > 1]
        assert all(name.split(".")[1] == own for name in others)


def test_there_are_no_circles() -> None:
    waiting = {module: imports(module) - {module} for module in modules()}
    while free := [module for module, used in waiting.items() if not used & waiting.keys()]:
        for module in free:
            del waiting[module]
    assert not waiting, f"these use each other: {sorted(waiting)}"


def test_inference_loads_no_training() -> None:
    names = [f"talkface.{name}".rstrip(".") for name in modules() if FLOOR[room(name)] <= FLOOR["api"]]
    code = (
        f"import sys, importlib\nfor name in {names!r}: importlib.import_module(name)\n"
        f"print(*[name for name in sys.modules if name.startswith({NOT_FOR_VERBS!r})])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not told.stdout.split()


def test_tasks_lie_in_their_room() -> None:
    """The table of trainings names modules in strings, which :func:`imports` does not see."""
    assert all(place.startswith("talkface.training.tasks.") for place in TASKS.values())
    by_name = {module for module, path in modules().items() if "import_module(" in path.read_text()}
    assert all(FLOOR[room(module)] >= FLOOR["training"] for module in by_name), by_name


FRAMES_OF_EVERY_VERB = """
import sys
from itertools import islice
from talkface.systems.g4g.pipeline import G4GPipeline
from talkface.systems.imagineid.pipeline import ImagineIdPipeline
from talkface.systems.tccp.pipeline import TccpPipeline
from talkface.systems.thpad.pipeline import ThpadPipeline

portrait, speech, video = sys.argv[1:4]
for generation in (
    ThpadPipeline.debug()(portrait, speech, size=64),
    G4GPipeline.debug()(video, speech),
    ImagineIdPipeline.debug()(speech, steps=1),
    TccpPipeline.debug()(video, speech, identity=portrait, steps=1, stop=0.4),
):
    assert len(list(islice(generation.frames(), 2))) == 2
loaded = [name for name in sys.modules if name.startswith(tuple(sys.argv[4:]))]
assert not loaded, loaded
"""


def test_verbs_run_without_training(
    portrait: Path, speech: Path, picture: Image.Image, tmp_path: Path
) -> None:
    close = np.asarray(picture.crop((104, 8, 344, 248)))
    video = write_clip(tmp_path / "still.mp4", close, None, seconds=0.8)
    arguments = [portrait, speech, video, *NOT_FOR_VERBS]
    subprocess.run([sys.executable, "-c", FRAMES_OF_EVERY_VERB, *arguments], check=True)


LONGEST_COPY = 6  # lines


def code_lines(path: Path) -> list[str]:
    """Lines of a file without indents, blank lines, comments, docstrings and imports."""
    text, others = path.read_text(), set()
    for node in ast.walk(ast.parse(text)):
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if docstring or isinstance(node, ast.Import | ast.ImportFrom):
            others |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = [line.strip() for number, line in enumerate(text.splitlines(), 1) if number not in others]
    return [line for line in lines if line and not line.startswith("#")]


def test_no_system_repeats_another() -> None:
    """No run of six lines stands in two systems."""
    first: dict[tuple[str, ...], str] = {}
    for module, path in sorted(modules().items()):
        if room(module) == "systems" and module.count(".") > 1:
            lines, system = code_lines(path), module.split(".")[1]
            for start in range(len(lines) - LONGEST_COPY + 1):
                run = tuple(lines[start : start + LONGEST_COPY])
                assert first.setdefault(run, system) == system, (module, run)


def test_functions_fit_a_screen() -> None:
    long = []
    for module, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION:
                long.append(f"{module}.{node.name}")
    assert not long


def test_long_files_say_why() -> None:
    """A file above 400 lines gives its reason in its docstring: "long because ..."."""
    for module, path in modules().items():
        text = path.read_text()
        if text.count("\n") > LONGEST_FILE:
            assert "long because" in (ast.get_docstring(ast.parse(text)) or "").lower(), module
