"""The plan of the house: which room may use which, and what a verb loads."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

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
