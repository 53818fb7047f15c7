"""Speed and memory of talkface.animate on the bundled portrait and speech, on this machine's CPU.

Run as ``python benchmarks/animate.py [--quick] [-o benchmarks.json]``.
Every figure comes from a fresh process.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Figures = dict[str, Any]
PARTS = ("matmul", "fps", "stages", "first-frame", "memory")
STAGES = ("speech_to_motion", "warp", "refiner", "writer")
console = Console()


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        only: Names out of PARTS.
        sizes: Pixels a side, or "1080p", for speed.
        seconds: Length of the speech, for speed.
        repeats: Runs of which the median is given.
        memory_size: Pixels a side, for memory.
        memory_seconds: Lengths of the speech, for memory.
        output: Where the JSON goes.
    """

    only: tuple[str, ...]
    sizes: tuple[str, ...]
    seconds: float
    repeats: int
    memory_size: str
    memory_seconds: tuple[float, ...]
    output: Path


def some_parts(text: str) -> tuple[str, ...]:
    """Names out of PARTS."""
    only = tuple(text.split(","))
    if not set(only) <= set(PARTS):
        raise argparse.ArgumentTypeError(f"takes {', '.join(PARTS)}")
    return only


def common_parser(verb: str, output: str) -> argparse.ArgumentParser:
    """Options of every benchmark."""
    parser = argparse.ArgumentParser(description=f"Speed and memory of {verb} on a CPU.")
    parser.add_argument("--quick", action="store_true", help="shorter and once: a few minutes")
    parser.add_argument("--only", type=some_parts, default=",".join(PARTS), help="some of %(default)s")
    parser.add_argument("-o", "--output", type=Path, default=Path(output), help="%(default)s")
    return parser


def read_plan(arguments: list[str]) -> Plan:
    """Make a plan of the command line."""
    parser = common_parser("talkface.animate", "benchmarks.json")
    parser.add_argument("--sizes", help="for speed: 256,512,1080p; with --quick 256,512")
    parser.add_argument("--seconds", type=float, help="of speech, for speed: 10; with --quick 4")
    parser.add_argument("--memory-seconds", help="of speech, for memory: 10,60,600; with --quick 10,60")
    given = parser.parse_args(arguments)
    sizes = given.sizes or ("256,512" if given.quick else "256,512,1080p")
    lengths = given.memory_seconds or ("10,60" if given.quick else "10,60,600")
    return Plan(
        only=given.only,
        sizes=tuple(sizes.split(",")),
        seconds=given.seconds or (4.0 if given.quick else 10.0),
        repeats=1 if given.quick else 3,
        memory_size="256" if given.quick else "512",
        memory_seconds=tuple(float(length) for length in lengths.split(",")),
        output=given.output,
    )


def measure(name: str, label: str = "", script: str = "measure.py", **arguments: object) -> Figures:
    """Take one measurement in a process of its own; what it says is shown only if it fails."""
    command = [sys.executable, str(Path(__file__).with_name(script)), name, json.dumps(arguments)]
    with console.status(f"{name} {label}"):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stderr}measuring {name} {label} failed")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure_all(plan: Plan, folder: Path) -> Figures:
    """Take all measurements of a plan; inputs and videos lie in ``folder``."""
    wants_memory = "memory" in plan.only
    sizes = {*plan.sizes, *([plan.memory_size] if wants_memory else [])}
    lengths = {plan.seconds, *(plan.memory_seconds if wants_memory else [])}
    place = str(folder)
    measure("inputs", folder=place, sizes=sorted(sizes), seconds=sorted(lengths))
    found: Figures = {"machine": measure("machine"), "seconds_of_speech": plan.seconds}
    if "matmul" in plan.only:
        found["matmul"] = measure("matmul")
    speech = str(folder / f"speech-{plan.seconds:g}.wav")
    for part in ("fps", "stages"):
        if part in plan.only:
            found[part] = {size: measure_size(part, plan, size, folder, speech) for size in plan.sizes}
    if "first-frame" in plan.only:
        found["first_frame"] = measure_first_frame(plan.repeats)
    if wants_memory:
        found["memory"] = {
            f"{length:g}": measure(
                "memory",
                label=f"{length:g} s",
                portrait=str(folder / f"portrait-{plan.memory_size}.png"),
                speech=str(folder / f"speech-{length:g}.wav"),
                folder=place,
            )
            for length in plan.memory_seconds
        }
        found["memory_size"] = plan.memory_size
    return found


def measure_size(part: str, plan: Plan, size: str, folder: Path, speech: str) -> Figures:
    """Frames a second, or milliseconds of each stage, at one size."""
    started = {"started": time.time()} if part == "fps" else {}
    return measure(
        part,
        label=size,
        portrait=str(folder / f"portrait-{size}.png"),
        speech=speech,
        folder=str(folder),
        repeats=plan.repeats,
        **started,
    )


def measure_first_frame(repeats: int) -> Figures:
    """Seconds from starting Python to the first frame, and to the end of ``talkface --help``."""
    frames = [measure("first_frame", started=time.time())["seconds"] for _ in range(repeats)]
    helps = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "talkface", "--help"], check=True, capture_output=True)
        helps.append(time.perf_counter() - start)
    return {"seconds": statistics.median(frames), "help_seconds": round(statistics.median(helps), 3)}


def show_machine(found: Figures) -> None:
    """Print what the figures were taken on, and what to compare it by."""
    machine = found["machine"]
    console.print(
        f"{machine['cpu']} ({machine['instructions']}), {machine['cores']} cores, "
        f"{machine['torch_threads']} threads, torch {machine['torch']}, "
        f"load average {machine['load_average']} at the start"
    )
    if "matmul" in found:
        speed = found["matmul"]["gflops"]
        console.print(f"Matrix product: {speed['fp32']} GFLOP/s in fp32, {speed['bf16']} in bf16")


def show(found: Figures) -> None:
    """Print the figures as tables."""
    show_machine(found)
    if "fps" in found:
        show_fps(found)
    if "stages" in found:
        show_stages(found)
    if "first_frame" in found:
        first = found["first_frame"]
        console.print(
            f"From starting Python: first frame {first['seconds']:.2f} s, "
            f"--help {first['help_seconds']:.2f} s"
        )
    if "memory" in found:
        show_memory(found)


def show_fps(found: Figures) -> None:
    """Print frames a second, end to end."""
    table = Table(
        "size",
        "frames/s warm",
        "frames/s cold",
        "cold, s",
        title=f"End to end, {found['seconds_of_speech']:g} s at 25 frames/s",
    )
    for size, row in found["fps"].items():
        table.add_row(size, f"{row['warm_fps']:.1f}", f"{row['cold_fps']:.1f}", f"{row['cold_seconds']:.1f}")
    console.print(table)


def show_stages(found: Figures) -> None:
    """Print milliseconds a frame of each stage."""
    columns = [name.replace("_", " ") for name in STAGES]
    table = Table(
        "size", *columns, "portrait, once", title="Stages, ms a frame by the clock (all cores' time)"
    )
    for size, row in found["stages"].items():
        cells = [row[name] for name in (*STAGES, "portrait_ms_once")]
        table.add_row(size, *(f"{cell['clock']:.1f} ({cell['cpu']:.1f})" for cell in cells))
    console.print(table)


def show_memory(found: Figures) -> None:
    """Print peak memory by length."""
    table = Table("speech, s", "peak, MiB", "took, s", title=f"Resident memory at {found['memory_size']}")
    for length, row in found["memory"].items():
        table.add_row(length, f"{row['peak_mib']:.0f}", f"{row['seconds']:.1f}")
    console.print(table)


def write(found: Figures, output: Path) -> None:
    """Write the figures as JSON."""
    output.write_text(json.dumps(found, indent=2) + "\n")
    console.print(f"Written to {output}", soft_wrap=True)


def run(
    read: Callable[[list[str]], Any],
    take: Callable[[Any, Path], Figures],
    tell: Callable[[Figures], None],
) -> None:
    """Read a plan from the command line, take its measurements, print and write them."""
    plan = read(sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        found = take(plan, Path(folder))
    tell(found)
    write(found, plan.output)


if __name__ == "__main__":
    run(read_plan, measure_all, show)
