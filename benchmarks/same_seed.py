"""Does a seed give the same video on another processor? Each verb, as other processors would make it.

    python benchmarks/same_seed.py [--cpus one-thread,avx2,default] [--verbs animate,dub] [-o DIR]

Prints, beside this processor's own video: how far frames are apart before they are encoded, in levels of 255
(share of values that differ at all, mean, 99.9th percentile, mean of the worst frame); how far after it; and
how well the lips agree (correlation of their opening). Frames and videos stay in DIR to be looked at.
scripts/other_cpus.py imitates the processors.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from other_cpus import PROCESSORS, environment

FRAMES = 50


def generated(verb: str, folder: Path) -> Iterable[np.ndarray]:
    """The frames of a verb, of inputs in a folder."""
    import talkface

    portrait, video = folder / "portrait-256.png", folder / "video.mp4"
    speech, other = folder / "speech-4.wav", folder / "speech-2.wav"
    if verb == "animate":
        return talkface.animate(portrait, speech, seed=3)[0]
    if verb == "dub":
        return talkface.dub(video, other)[0]
    if verb == "imagine":
        return talkface.imagine(speech, seed=3)[0]
    return talkface.fill(video, other, identity=portrait, stop=1.0)[0]


def write_inputs(folder: Path) -> None:
    """A portrait, speech of 4 and of 2 other seconds, and the video that dub and fill change."""
    import talkface
    from measure import inputs, write_speech

    folder.mkdir(parents=True, exist_ok=True)
    inputs(str(folder), ["256"], [4])
    write_speech(folder, [2], start=5.0)
    made = talkface.animate(folder / "portrait-256.png", folder / "speech-4.wav", seed=3)[0]
    made.save(folder / "video.mp4", overwrite=True)


def write(verb: str, folder: Path, name: str) -> None:
    """Make a verb's frames here, and put them beside their video."""
    from talkface.media.video import VideoWriter

    frames = np.stack(list(islice(generated(verb, folder), FRAMES)))
    np.savez_compressed(folder / f"{verb}-{name}.npz", frames=frames)
    path = folder / f"{verb}-{name}.mp4"
    with VideoWriter(path, frames.shape[2:0:-1], 25, overwrite=True) as writer:
        for frame in frames:
            writer.write(frame)


def compared(folder: Path, verb: str, name: str) -> dict[str, float]:
    """How far a verb's frames are from this processor's own."""
    from talkface.face import topology as tp
    from talkface.face.tracker import FaceTracker
    from talkface.media.source import SourceVideo

    own, other = (np.load(folder / f"{verb}-{n}.npz")["frames"] for n in ("own", name))
    apart = np.abs(own.astype(int) - other)
    videos = [SourceVideo(folder / f"{verb}-{n}.mp4") for n in ("own", name)]
    encoded = [np.abs(a.image.astype(int) - b.image).mean() for a, b in zip(*videos, strict=True)]
    tracker, openings = FaceTracker(), []
    for pair in zip(own, other, strict=True):
        faces = [tracker.track_image(image) for image in pair]
        if all(faces):
            openings.append([float(tp.aperture(found[0].points[None])[0]) for found in faces])
    return {
        "values apart %": 100 * float((apart > 0).mean()),
        "mean": float(apart.mean()),
        "99.9 %": float(np.percentile(apart, 99.9)),
        "worst frame": float(apart.mean((1, 2, 3)).max()),
        "encoded": float(np.mean(encoded)),
        "lips r": float(np.corrcoef(np.array(openings).T)[0, 1]),
    }


def main() -> None:
    """Make every verb's frames under every processor, and print how they compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpus", default="one-thread,avx2,default,zen3", help=f"of {', '.join(PROCESSORS)}")
    parser.add_argument("--verbs", default="animate,dub,imagine,fill")
    parser.add_argument("-o", "--output", type=Path, default=Path("outputs/same_seed"))
    parser.add_argument("--write", nargs=2, metavar=("VERB", "NAME"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.write:
        write(given.write[0], given.output, given.write[1])
        return
    names = given.cpus.split(",")
    if unknown := [name for name in names if name not in PROCESSORS]:
        parser.error(f"--cpus {','.join(unknown)}: choose of {', '.join(PROCESSORS)}")
    write_inputs(given.output)
    settings = {"own": environment("own", given.output)}
    for name in names:
        try:
            settings[name] = environment(name, given.output)
        except OSError as error:
            print(f"{name} is left out: {error}")
    for verb in given.verbs.split(","):
        for name, variables in settings.items():
            began = time.perf_counter()
            command = [sys.executable, __file__, "-o", str(given.output), "--write", verb, name]
            subprocess.run(command, env=variables, check=True)
            seconds = time.perf_counter() - began
            told = (f"{what} {value:.4g}" for what, value in compared(given.output, verb, name).items())
            print(f"{verb:8} {name:10} {seconds:6.1f} s ", *told, sep="  ", flush=True)


if __name__ == "__main__":
    main()
