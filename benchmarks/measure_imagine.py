"""One measurement of talkface.imagine in a process of its own; see :mod:`measure` and :mod:`imagine`."""

import time
from pathlib import Path

from measure import Figures, cold_and_warm, machine, matmul, peak_mib, run, write_speech


def inputs(folder: str, seconds: list[float]) -> Figures:
    """Write speech-SECONDS.wav, made from the bundled example."""
    write_speech(Path(folder), seconds)
    return {}


def fps(speech: str, folder: str, renderer: str, started: float, repeats: int) -> Figures:
    """Frames a second of imagine(...).save(...), listening and imagining included: cold and warm."""
    import talkface

    def save() -> int:
        takes = talkface.imagine(speech, renderer=renderer, device="cpu")
        takes.save(Path(folder) / f"{renderer}.mp4", overwrite=True)
        return len(takes[0])

    return cold_and_warm(save, started, repeats)


def portrait(speech: str) -> Figures:
    """Seconds to listen to a speech and to imagine its speaker, models loaded."""
    import talkface

    _ = talkface.imagine(speech, steps=1, device="cpu")[0].portrait  # loads them
    start = time.perf_counter()
    take = talkface.imagine(speech, seed=1, device="cpu")[0]
    heard = time.perf_counter() - start
    tries = take.imagined.tries
    whole = time.perf_counter() - start
    return {"listen": round(heard, 3), "imagine": round(whole - heard, 3), "tries": tries}


def first_frame(renderer: str, started: float) -> Figures:
    """Seconds from the start of the process to the first frame of the bundled example."""
    import talkface

    frame = next(iter(talkface.imagine(talkface.example_speech(), renderer=renderer, device="cpu")[0]))
    return {"seconds": round(time.time() - started, 3), "height": frame.shape[0]}


def memory(speech: str, folder: str, renderer: str) -> Figures:
    """Peak resident memory of the process that saves one video."""
    import talkface

    start = time.perf_counter()
    takes = talkface.imagine(speech, renderer=renderer, device="cpu")
    takes.save(Path(folder) / "memory.mp4", overwrite=True)
    seconds = time.perf_counter() - start
    return {"frames": len(takes[0]), "seconds": round(seconds, 1), "peak_mib": peak_mib()}


if __name__ == "__main__":
    run({one.__name__: one for one in (inputs, machine, matmul, fps, portrait, first_frame, memory)})
