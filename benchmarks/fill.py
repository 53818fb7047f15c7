"""Speed and memory of talkface.fill on a 720p video made from the bundled examples, on this machine's CPU.

Run as ``python benchmarks/fill.py [--quick] [-o benchmarks-fill.json]``.
Every figure comes from a fresh process.
"""

import statistics
import time
from functools import partial
from pathlib import Path

from rich.table import Table

from animate import Figures, console, measure, run, show_machine
from dub import Plan, plan_of_a_video, video_and_speech

measure_fill = partial(measure, script="measure_fill.py")


def read_plan(arguments: list[str]) -> Plan:
    """Make a plan of the command line."""
    return plan_of_a_video(arguments, "fill", (3.0, 8.0), ("5", "5,20,60"))


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
    return {**video_and_speech(folder, seconds), "folder": str(folder)}


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
