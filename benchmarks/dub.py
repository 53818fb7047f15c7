"""Speed and memory of talkface.dub on a 720p video made from the bundled examples, on this machine's CPU.

Run as ``python benchmarks/dub.py [--quick] [-o benchmarks-dub.json]``.
Every figure comes from a fresh process.
"""

import statistics
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.table import Table

from animate import Figures, common_parser, console, measure, run, show_machine

STAGES = ("decoder", "tracking", "speech", "occlusion", "jaw", "mouth", "encoder")
measure_dub = partial(measure, script="measure_dub.py")


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
    return plan_of_a_video(arguments, "dub", (5.0, 30.0), ("10", "10,60,600"))


def plan_of_a_video(
    arguments: list[str], verb: str, seconds: tuple[float, float], memory: tuple[str, str]
) -> Plan:
    """A plan for a verb that takes a video and speech; lengths with --quick and without."""
    parser = common_parser(f"talkface.{verb}", f"benchmarks-{verb}.json")
    parser.add_argument(
        "--seconds", type=float, help=f"of video, for speed: {seconds[1]:g}; with --quick {seconds[0]:g}"
    )
    parser.add_argument(
        "--memory-seconds", help=f"of video, for memory: {memory[1]}; with --quick {memory[0]}"
    )
    given = parser.parse_args(arguments)
    slow = not given.quick
    return Plan(
        only=given.only,
        seconds=given.seconds or seconds[slow],
        repeats=3 if slow else 1,
        memory_seconds=tuple(float(length) for length in (given.memory_seconds or memory[slow]).split(",")),
        output=given.output,
    )


def measure_all(plan: Plan, folder: Path) -> Figures:
    """Take all measurements of a plan; inputs and videos lie in ``folder``."""
    lengths = {plan.seconds, *(plan.memory_seconds if "memory" in plan.only else ())}
    measure_dub("inputs", folder=str(folder), seconds=sorted(lengths))
    found: Figures = {"machine": measure_dub("machine"), "seconds": plan.seconds}
    if "matmul" in plan.only:
        found["matmul"] = measure_dub("matmul")
    files = video_and_speech(folder, plan.seconds)
    place = {"folder": str(folder), "repeats": plan.repeats}
    if "fps" in plan.only:
        found["fps"] = measure_dub("fps", **files, **place, started=time.time())
    if "stages" in plan.only:
        found["stages"] = measure_dub("stages", **files, **place)
    if "first-frame" in plan.only:
        times = [measure_dub("first_frame", **files, started=time.time()) for _ in range(plan.repeats)]
        found["first_frame"] = {"seconds": statistics.median(one["seconds"] for one in times)}
    if "memory" in plan.only:
        found["memory"] = {
            f"{length:g}": measure_dub(
                "memory", label=f"{length:g} s", **video_and_speech(folder, length), folder=str(folder)
            )
            for length in plan.memory_seconds
        }
    return found


def video_and_speech(folder: Path, seconds: float) -> dict[str, str]:
    """Files of that length, as ``inputs`` wrote them."""
    return {
        "video": str(folder / f"video-{seconds:g}.mp4"),
        "speech": str(folder / f"speech-{seconds:g}.wav"),
    }


def show(found: Figures) -> None:
    """Print the figures as tables."""
    show_machine(found)
    if "fps" in found:
        row = found["fps"]
        console.print(
            f"End to end, {found['seconds']:g} s of 1280x720 at 25 frames/s: {row['warm_fps']:.1f} frames/s "
            f"warm, {row['cold_fps']:.1f} from the start of the process ({row['cold_seconds']:.1f} s)"
        )
    if "stages" in found:
        show_stages(found["stages"])
    if "first_frame" in found:
        console.print(f"From starting Python to the first frame: {found['first_frame']['seconds']:.2f} s")
    if "memory" in found:
        table = Table("video, s", "peak, MiB", "took, s", title="Resident memory")
        for length, row in found["memory"].items():
            table.add_row(length, f"{row['peak_mib']:.0f}", f"{row['seconds']:.1f}")
        console.print(table)


def show_stages(found: Figures) -> None:
    """Print milliseconds a frame of each stage."""
    title = "Stages, ms a frame by the clock (all cores' time)"
    table = Table(*STAGES, "first look, once", title=title)
    cells = [found[name] for name in (*STAGES, "first_look_ms_once")]
    table.add_row(*(f"{cell['clock']:.1f} ({cell['cpu']:.1f})" for cell in cells))
    console.print(table)


if __name__ == "__main__":
    run(read_plan, measure_all, show)
