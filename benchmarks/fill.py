"""Speed and memory of talkface.fill on a 720p video made from the bundled examples, on this machine's CPU.

Run as ``python benchmarks/fill.py [--quick] [-o benchmarks-fill.json]``.
Every figure comes from a fresh process.
"""

import statistics
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.table import Table

from animate import Figures, common_parser, console, measure, run, show_machine

measure_fill = partial(measure, script="measure_fill.py")


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        only: Names out of PARTS.
        seconds: Length of video and speech, for speed.
        repeats: Runs of which the median is given.
        memory_seconds: Lengths of video and speech, for memory.
        output: Where the JSON goes.
    """

    only: tuple[str, ...]
    seconds: float
    repeats: int
    memory_seconds: tuple[float, ...]
    output: Path


def read_plan(arguments: list[str]) -> Plan:
    """Make a plan of the command line."""
    parser = common_parser("talkface.fill", "benchmarks-fill.json")
    parser.add_argument("--seconds", type=float, help="of video, for speed: 8; with --quick 3")
    parser.add_argument("--memory-seconds", help="of video, for memory: 5,20,60; with --quick 5")
    given = parser.parse_args(arguments)
    lengths = given.memory_seconds or ("5" if given.quick else "5,20,60")
    return Plan(
        only=given.only,
        seconds=given.seconds or (3.0 if given.quick else 8.0),
        repeats=1 if given.quick else 3,
        memory_seconds=tuple(float(length) for length in lengths.split(",")),
        output=given.output,
    )


def measure_all(plan: Plan, folder: Path) -> Figures:
    """Take all measurements of a plan; inputs and videos lie in ``folder``."""
    lengths = {plan.seconds, *(plan.memory_seconds if "memory" in plan.only else ())}
    measure_fill("inputs", folder=str(folder), seconds=sorted(lengths))
    found: Figures = {"machine": measure_fill("machine"), "seconds": plan.seconds}
    if "matmul" in plan.only:
        found["matmul"] = measure_fill("matmul")
    files = _files(folder, plan.seconds)
    if "fps" in plan.only:
        found["fps"] = measure_fill("fps", **files, started=time.time(), repeats=plan.repeats)
    if "first-frame" in plan.only:
        times = [measure_fill("first_frame", **files, started=time.time()) for _ in range(plan.repeats)]
        found["first_frame"] = {"seconds": statistics.median(one["seconds"] for one in times)}
    if "memory" in plan.only:
        found["memory"] = {
            f"{length:g}": measure_fill("memory", label=f"{length:g} s", **_files(folder, length))
            for length in plan.memory_seconds
        }
    return found


def _files(folder: Path, seconds: float) -> dict[str, str]:
    return {
        "video": str(folder / f"video-{seconds:g}.mp4"),
        "speech": str(folder / f"speech-{seconds:g}.wav"),
        "folder": str(folder),
    }


def show(found: Figures) -> None:
    """Print the figures as a table."""
    show_machine(found)
    table = Table("frames/s warm", "frames/s cold", "first frame, s", "peak, MiB", title="fill, 1280x720")
    speed, first = found.get("fps", {}), found.get("first_frame", {})
    table.add_row(
        f"{speed['warm_fps']:.2f}" if speed else "",
        f"{speed['cold_fps']:.2f}" if speed else "",
        f"{first['seconds']:.1f}" if first else "",
        ", ".join(f"{one['peak_mib']:.0f} ({length} s)" for length, one in found.get("memory", {}).items()),
    )
    console.print(table)


if __name__ == "__main__":
    run(read_plan, measure_all, show)
