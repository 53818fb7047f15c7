"""One measurement of talkface.fill in a process of its own; see :mod:`measure` and :mod:`fill`."""

import time
from pathlib import Path

from measure import Figures, cold_and_warm, machine, matmul, peak_mib, run
from measure_dub import inputs


def fps(video: str, speech: str, folder: str, started: float, repeats: int) -> Figures:
    """Frames a second of fill(...).save(...): cold, from the start of the process, and warm."""
    import talkface

    def save() -> int:
        take = talkface.fill(video, speech, identity=f"{folder}/portrait.png", device="cpu")[0]
        take.save(Path(folder) / "fps.mp4", overwrite=True)
        return len(take)

    return cold_and_warm(save, started, repeats)


def first_frame(video: str, speech: str, folder: str, started: float) -> Figures:
    """Seconds from the start of the process to the first frame, for which all landmarks are found."""
    import talkface

    next(iter(talkface.fill(video, speech, identity=f"{folder}/portrait.png", device="cpu")[0]))
    return {"seconds": round(time.time() - started, 3)}


def memory(video: str, speech: str, folder: str) -> Figures:
    """Peak resident memory of the process that saves one video."""
    import talkface

    start = time.perf_counter()
    take = talkface.fill(video, speech, identity=f"{folder}/portrait.png", device="cpu")[0]
    take.save(Path(folder) / "memory.mp4", overwrite=True)
    seconds = time.perf_counter() - start
    return {"frames": len(take), "seconds": round(seconds, 1), "peak_mib": peak_mib()}


if __name__ == "__main__":
    run({one.__name__: one for one in (inputs, machine, matmul, fps, first_frame, memory)})
