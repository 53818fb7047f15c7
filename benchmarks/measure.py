"""One measurement in a process of its own: ``python benchmarks/measure.py NAME '{"argument": value}'``.

Writes what it found to standard output, as JSON. :mod:`animate` starts these, so that figures of memory
and of cold starts are independent of each other; :mod:`measure_dub` are those of :mod:`dub`.
"""

import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from talkface.systems.thpad.pipeline import ThpadPipeline

Figures = dict[str, Any]
FPS = 25
FACE_SHARE = 0.4  # of the picture's height, forehead to chin: a usual portrait
HELD_FRAMES = 50  # frames kept in memory to feed the encoder


def inputs(folder: str, sizes: list[str], seconds: list[float]) -> Figures:
    """Write portrait-SIZE.png and speech-SECONDS.wav, made from the bundled examples."""
    import talkface
    from talkface.media.image import load_image, save_image

    portrait = around_face(load_image(talkface.example_portrait()))
    for size in sizes:
        save_image(Path(folder) / f"portrait-{size}.png", _sized(portrait, size))
    write_speech(Path(folder), seconds)
    return {}


def write_speech(folder: Path, seconds: Iterable[float], start: float = 0.0) -> None:
    """Write speech-SECONDS.wav, the bundled example from ``start`` seconds on, again and again."""
    import wave

    import numpy as np

    import talkface
    from talkface.media.audio import read_audio

    speech = (read_audio(talkface.example_speech()) * 32767).astype("<i2")
    speech = np.roll(speech, -round(start * 16000))
    for length in seconds:
        with wave.open(str(folder / f"speech-{length:g}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            file.writeframes(np.resize(speech, round(length * 16000)).tobytes())


def around_face(portrait: "np.ndarray") -> "np.ndarray":
    """The square around the face in which FACE_SHARE of the height is the face; the example shows more."""
    from talkface.face.tracker import FaceTracker

    left, top, right, bottom = FaceTracker().track_image(portrait)[0].box
    side = min(round((bottom - top) / FACE_SHARE), *portrait.shape[:2])
    x, y = (
        int(min(max(0, (low + high - side) / 2), length - side))
        for low, high, length in ((left, right, portrait.shape[1]), (top, bottom, portrait.shape[0]))
    )
    return portrait[y : y + side, x : x + side]


def _sized(portrait: "np.ndarray", size: str) -> "np.ndarray":
    """The portrait at so many pixels a side, or as high as a 1920x1080 canvas and in its middle."""
    import cv2
    import numpy as np

    side = 1080 if size == "1080p" else int(size)
    smaller = side < max(portrait.shape)
    interpolation = cv2.INTER_AREA if smaller else cv2.INTER_LANCZOS4
    scaled = cv2.resize(portrait, (side, side), interpolation=interpolation)
    if size != "1080p":
        return scaled
    canvas = np.full((1080, 1920, 3), 128, np.uint8)
    canvas[:, 420:1500] = scaled
    return canvas


def machine() -> Figures:
    """What the figures were taken on."""
    import torch

    import talkface

    return {
        "cpu": _cpu_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "talkface": talkface.__version__,
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def matmul(side: int = 2048, budget: float = 2.0) -> Figures:
    """GFLOP/s of a square matrix product: the median over ``budget`` seconds.

    Without units for bf16 its product takes about a hundred times as long as in fp32: a smaller one is timed.
    """
    import torch

    from talkface.options import has_bf16_units

    found, sides = {}, {"fp32": side, "bf16": side if has_bf16_units() else side // 8}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        side = sides[name]
        a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
        a @ b
        times: list[float] = []
        while len(times) < 3 or (sum(times) < budget and len(times) < 100):
            start = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - start)
        found[name] = round(2 * side**3 / statistics.median(times) / 1e9, 1)
    return {"sides": sides, "gflops": found}


def cold_and_warm(save: Callable[[], int], started: float, repeats: int) -> Figures:
    """Frames a second of what saves a video and tells its frames: first since ``started``, then again."""
    frames = save()
    cold = time.time() - started
    warm, processor = median(save, repeats)
    return {
        "frames": frames,
        "cold_seconds": round(cold, 3),
        "cold_fps": round(frames / cold, 2),
        "warm_fps": round(frames / warm, 2),
        "warm_cpu_ms_per_frame": round(1000 * processor / frames, 2),
    }


def fps(portrait: str, speech: str, folder: str, started: float, repeats: int) -> Figures:
    """Frames a second of animate(...).save(...): cold, from the start of the process, and warm."""
    import talkface

    def save() -> int:
        video = talkface.animate(portrait, speech, device="cpu")[0]
        video.save(Path(folder) / "fps.mp4", overwrite=True)
        return len(video)

    return cold_and_warm(save, started, repeats)


def stages(portrait: str, speech: str, folder: str, repeats: int) -> Figures:
    """Milliseconds a frame of each stage, by the clock and of the processor (all cores), models loaded."""
    from talkface.media.image import load_image
    from talkface.rendering.portrait import PortraitRenderer
    from talkface.systems.thpad.pipeline import ThpadPipeline

    pipe = ThpadPipeline.from_pretrained("compact", device="cpu")
    motions: list[Any] = []

    def prepare() -> PortraitRenderer:
        picture = load_image(portrait)
        return PortraitRenderer(
            picture, pipe.tracker.track_image(picture)[0].points, pipe.face, pipe.parts.refiner
        )

    def speak() -> None:
        motions[:] = _motions(pipe, speech)

    full = prepare()
    speak()
    warp = PortraitRenderer(full.image, full.resting[:478], pipe.face, None)
    held = [frame for _, frame in zip(range(HELD_FRAMES), full.frames(motions), strict=False)]
    frames = sum(map(len, motions))
    taken = {
        "portrait": median(prepare, repeats),
        "speech_to_motion": median(speak, repeats),
        "warp": median(lambda: exhaust(warp.frames(motions)), repeats),
        "warp_and_refiner": median(lambda: exhaust(full.frames(motions)), repeats),
        "writer": median(lambda: _write(held, frames, Path(folder) / "stages.mp4", speech), repeats),
    }
    both, alone = taken["warp_and_refiner"], taken["warp"]
    taken["refiner"] = both[0] - alone[0], both[1] - alone[1]
    each = {"frames": frames, "portrait_ms_once": milliseconds(taken.pop("portrait"), 1)}
    return each | {name: milliseconds(value, frames) for name, value in taken.items()}


def _motions(pipe: "ThpadPipeline", speech: str) -> list[Any]:
    """Everything from the sound file to motion, as the pipeline does it."""
    from talkface.media.audio import probe_audio, stream_audio

    return list(pipe.speech_to_motion(stream_audio(speech, gain=probe_audio(speech).gain())))


def _write(held: list["np.ndarray"], count: int, path: Path, speech: str) -> None:
    """Encode ``count`` frames with sound, going through those held there and back."""
    from talkface.media.video import VideoWriter

    height, width = held[0].shape[:2]
    with VideoWriter(path, (width, height), FPS, speech, overwrite=True) as writer:
        for frame in _there_and_back(held, count):
            writer.write(frame)


def _there_and_back(held: list["np.ndarray"], count: int) -> Iterator["np.ndarray"]:
    cycle = held + held[-2:0:-1]
    return (cycle[k % len(cycle)] for k in range(count))


def exhaust(frames: Iterable[object]) -> None:
    """Iterate over all frames."""
    for _ in frames:
        pass


def median(work: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Seconds by the clock and of the processor that ``work`` takes, each the median of ``repeats``."""
    taken = []
    for _ in range(repeats):
        start, processor = time.perf_counter(), time.process_time()
        work()
        taken.append((time.perf_counter() - start, time.process_time() - processor))
    return statistics.median(t[0] for t in taken), statistics.median(t[1] for t in taken)


def milliseconds(seconds: tuple[float, float], frames: int) -> dict[str, float]:
    """Milliseconds a frame by the clock and of the processor."""
    return {name: round(1000 * s / frames, 3) for name, s in zip(("clock", "cpu"), seconds, strict=True)}


def first_frame(started: float) -> Figures:
    """Seconds from the start of the process to the first frame of the bundled example."""
    import talkface

    frame = next(
        iter(talkface.animate(talkface.example_portrait(), talkface.example_speech(), device="cpu")[0])
    )
    return {"seconds": round(time.time() - started, 3), "height": frame.shape[0]}


def memory(portrait: str, speech: str, folder: str) -> Figures:
    """Peak resident memory of the process that saves one video."""
    import talkface

    start = time.perf_counter()
    video = talkface.animate(portrait, speech, device="cpu")[0]
    video.save(Path(folder) / "memory.mp4", overwrite=True)
    seconds = time.perf_counter() - start
    return {"frames": len(video), "seconds": round(seconds, 1), "peak_mib": peak_mib()}


def peak_mib() -> float:
    """Peak resident memory of this process."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)


def run(measures: Mapping[str, Callable[..., Figures]]) -> None:
    """Take the measurement that the command line names, and write what is found."""
    sys.stdout.write(json.dumps(measures[sys.argv[1]](**json.loads(sys.argv[2]))) + "\n")


MEASURES: dict[str, Callable[..., Figures]] = {
    measure.__name__: measure for measure in (inputs, machine, matmul, fps, stages, first_frame, memory)
}


if __name__ == "__main__":
    run(MEASURES)
