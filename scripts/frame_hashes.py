"""Hashes of the frames of a dozen short generations: equal before and after a change that changes nothing.

    python scripts/frame_hashes.py FOLDER [--only NAME,...] > hashes.txt

Every verb, renderer and mode, with fixed seeds and one thread, before anything is encoded. FOLDER keeps the
inputs: what is written there once is used again, since an encoder may write other bytes the next time.
Hashes are of one processor: compare two runs on the same machine.
"""

import argparse
import hashlib
import json
import sys
import time
import wave
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

FRAMES = 40


def write_inputs(folder: Path) -> None:
    """Two portraits, two stretches of speech, a mask, and two videos that dub and fill change."""
    import talkface
    from talkface.media.audio import read_audio

    folder.mkdir(parents=True, exist_ok=True)
    picture = cv2.imread(str(talkface.example_portrait()))
    for side in (256, 384):
        path = folder / f"portrait-{side}.png"
        cv2.imwrite(str(path), cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA))
    speech = read_audio(talkface.example_speech())
    for name, start, seconds in (("speech", 2.5, 1.6), ("other", 6.0, 1.0), ("long", 0.5, 3.0)):
        part = speech[int(start * 16e3) : int((start + seconds) * 16e3)]
        with wave.open(str(folder / f"{name}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes((part * 32767).astype("<i2").tobytes())
    for name, rate in (("video", 25), ("fast", 30)):
        made = talkface.animate(folder / "portrait-384.png", folder / "speech.wav", seed=5, fps=rate)[0]
        made.save(folder / f"{name}.mp4")
    mask = np.zeros((384, 384), np.uint8)
    cv2.ellipse(mask, (192, 190), (88, 120), 0, 0, 360, 255, -1)
    cv2.imwrite(str(folder / "mask.png"), mask)


def generations(folder: Path) -> dict[str, Callable[[], Iterable[np.ndarray]]]:
    """What begins each generation, by its name."""
    import talkface

    portrait, large = folder / "portrait-256.png", folder / "portrait-384.png"
    speech, other, long = (folder / f"{name}.wav" for name in ("speech", "other", "long"))
    video, fast = folder / "video.mp4", folder / "fast.mp4"
    return {
        "animate": lambda: talkface.animate(portrait, speech, seed=3)[0],
        "animate-strong": lambda: talkface.animate(large, other, seed=8, pose=1.5, blink=2, lips=1.4, fps=30)[
            0
        ],
        "animate-still": lambda: talkface.animate(large, other, seed=4, size=192, still=True)[0],
        "dub": lambda: talkface.dub(video, other)[0],
        "dub-remap": lambda: talkface.dub(fast, long, sync_mode="remap", keep_silence=True, lips=1.3)[0],
        "dub-bounce": lambda: talkface.dub(video, long, sync_mode="bounce", face="auto")[0],
        "dub-stretch": lambda: talkface.dub(
            fast, other, sync_mode="silence", face="all", start=0.3, stop=1.4
        )[0],
        "imagine-warp": lambda: talkface.imagine(speech, seed=3)[0],
        "imagine-diffusion": lambda: talkface.imagine(speech, seed=2, renderer="diffusion", steps=3)[0],
        "imagine-prompt": lambda: talkface.imagine(
            speech, seed=1, prompt="a woman with glasses", emotion="happy", size=512, steps=4, still=True
        )[0],
        "fill": lambda: talkface.fill(video, other, identity=portrait, seed=2)[0],
        "fill-mask": lambda: talkface.fill(
            fast, other, identity=[portrait, large], mask=folder / "mask.png", stop=0.7, sync_mode="loop"
        )[0],
        "fill-imagined": lambda: talkface.fill(
            video, speech, identity="imagined", mask="100,60,190,250", resolution=512, steps=1, stop=0.4
        )[0],
    }


def hashed(frames: Iterable[np.ndarray]) -> tuple[str, int]:
    """A hash of all frames, and how many there were."""
    digest, count = hashlib.sha256(), 0
    for frame in islice(frames, FRAMES):
        digest.update(repr((frame.shape, frame.dtype)).encode() + np.ascontiguousarray(frame).tobytes())
        count += 1
    return digest.hexdigest()[:20], count


def main() -> None:
    """Print a line for each generation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", help="names, separated by commas")
    given = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    cv2.setNumThreads(1)
    done = given.folder / "inputs.json"
    if not done.is_file():
        write_inputs(given.folder)
        done.write_text(json.dumps(sorted(path.name for path in given.folder.iterdir())))
    named = generations(given.folder)
    for name in given.only.split(",") if given.only else named:
        began = time.perf_counter()
        digest, count = hashed(named[name]())
        print(f"{name:18} {count:3} {digest}", flush=True)
        print(f"{name:18} {time.perf_counter() - began:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
