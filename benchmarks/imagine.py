"""Speed and memory of talkface.imagine on the bundled speech, on this machine's CPU.

Run as ``python benchmarks/imagine.py [--quick] [-o benchmarks-imagine.json]``.
Every figure comes from a fresh process.
"""

import statistics
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.table import Table

from animate import Figures, common_parser, console, measure, run, show_machine

RENDERERS = ("warp", "diffusion")
measure_imagine = partial(measure, script="measure_imagine.py")


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        only: Names out of PARTS.
        renderers: Names out of RENDERERS.
        seconds: Length of the speech, for speed.
        repeats: Runs of which the median is given.
        memory_seconds: Lengths of the speech, for memory.
        output: Where the JSON goes.
    """

    only: tuple[str, ...]
    renderers: tuple[str, ...]
    seconds: float
    repeats: int
    memory_seconds: tuple[float, ...]
    output: Path


def read_plan(arguments: list[str]) -> Plan:
    """Make a plan of the command line."""
    parser = common_parser("talkface.imagine", "benchmarks-imagine.json")
    parser.add_argument("--renderers", default=",".join(RENDERERS), help="%(default)s")
    parser.add_argument("--seconds", type=float, help="of speech, for speed: 10; with --quick 4")
    parser.add_argument("--memory-seconds", help="of speech, for memory: 10,60,600; with --quick 10")
    given = parser.parse_args(arguments)
    lengths = given.memory_seconds or ("10" if given.quick else "10,60,600")
    return Plan(
        only=given.only,
        renderers=tuple(given.renderers.split(",")),
        seconds=given.seconds or (4.0 if given.quick else 10.0),
        repeats=1 if given.quick else 3,
        memory_seconds=tuple(float(length) for length in lengths.split(",")),
        output=given.output,
    )


def measure_all(plan: Plan, folder: Path) -> Figures:
    """Take all measurements of a plan; inputs and videos lie in ``folder``."""
    lengths = {plan.seconds, *(plan.memory_seconds if "memory" in plan.only else ())}
    measure_imagine("inputs", folder=str(folder), seconds=sorted(lengths))
    found: Figures = {"machine": measure_imagine("machine"), "seconds": plan.seconds}
    if "matmul" in plan.only:
        found["matmul"] = measure_imagine("matmul")
    speech = str(folder / f"speech-{plan.seconds:g}.wav")
    if "stages" in plan.only:
        found["portrait"] = measure_imagine("portrait", speech=speech)
    for renderer in plan.renderers:
        found[renderer] = _measure_renderer(plan, renderer, folder, speech)
    return found


def _measure_renderer(plan: Plan, renderer: str, folder: Path, speech: str) -> Figures:
    own: Figures = {}
    given = {"renderer": renderer, "label": renderer}
    place = {"folder": str(folder), **given}
    if "fps" in plan.only:
        own["fps"] = measure_imagine("fps", speech=speech, repeats=plan.repeats, started=time.time(), **place)
    if "first-frame" in plan.only:
        times = [measure_imagine("first_frame", started=time.time(), **given) for _ in range(plan.repeats)]
        own["first_frame"] = statistics.median(one["seconds"] for one in times)
    if "memory" in plan.only:
        own["memory"] = {
            f"{length:g}": measure_imagine("memory", speech=str(folder / f"speech-{length:g}.wav"), **place)
            for length in plan.memory_seconds
        }
    return own


def show(found: Figures) -> None:
    """Print the figures as a table."""
    show_machine(found)
    if "portrait" in found:
        once = found["portrait"]
        console.print(
            f"Once a person: listening {once['listen']:.2f} s, imagining {once['imagine']:.2f} s "
            f"({once['tries']} portraits)"
        )
    table = Table("renderer", "frames/s warm", "frames/s cold", "first frame, s", "peak, MiB")
    for renderer in (name for name in RENDERERS if name in found):
        own = found[renderer]
        speed, memory = own.get("fps", {}), own.get("memory", {})
        table.add_row(
            renderer,
            f"{speed['warm_fps']:.1f}" if speed else "",
            f"{speed['cold_fps']:.1f}" if speed else "",
            f"{own['first_frame']:.1f}" if "first_frame" in own else "",
            ", ".join(f"{one['peak_mib']:.0f} ({length} s)" for length, one in memory.items()),
        )
    console.print(table)


if __name__ == "__main__":
    run(read_plan, measure_all, show)
