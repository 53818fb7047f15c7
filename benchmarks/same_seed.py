"""Does a seed give the same video on another processor? Each verb, as other processors would make it.

    python benchmarks/same_seed.py [--cpus one-thread,avx2,default] [--verbs animate,dub] [-o DIR]

Prints, beside this processor's own video: whether the file is equal to the bit; how far frames are apart, in
levels of 255 (mean, 99th percentile, mean of the worst frame); and how well the lips agree (correlation of
their opening). The videos stay in DIR to be looked at. scripts/other_cpus.py imitates the processors.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from other_cpus import PROCESSORS, environment

TALKFACE = [sys.executable, "-m", "talkface"]


def commands(folder: Path) -> dict[str, list[str]]:
    """The arguments of each verb, without its output; ``folder`` holds the inputs."""
    import talkface

    portrait, speech = str(talkface.example_portrait()), str(folder / "speech-4.wav")
    video, other = str(folder / "video.mp4"), str(folder / "speech-2.wav")
    return {
        "animate": ["animate", portrait, speech, "--size", "256", "--seed", "3"],
        "dub": ["dub", video, other],
        "imagine": ["imagine", speech, "--seed", "3"],
        "fill": ["fill", video, other, "--identity", portrait, "--to", "1"],
    }


def write_inputs(folder: Path) -> None:
    """Speech of 4 and of 2 other seconds, and the video that dub and fill change."""
    from measure import write_speech

    write_speech(folder, [4])
    write_speech(folder, [2], start=5.0)
    made = commands(folder)["animate"]
    subprocess.run([*TALKFACE, *made, "-o", str(folder / "video.mp4")], check=True, capture_output=True)


def compared(own: Path, other: Path) -> dict[str, float | str]:
    """How far two videos are apart."""
    from talkface.face import topology as tp
    from talkface.face.tracker import FaceTracker
    from talkface.media.source import SourceVideo

    tracker, apart, openings = FaceTracker(), [], []
    for one, two in zip(SourceVideo(own), SourceVideo(other), strict=True):
        apart.append(np.abs(one.image.astype(int) - two.image))
        faces = [tracker.track_image(frame.image) for frame in (one, two)]
        if all(faces):
            openings.append([float(tp.aperture(found[0].points[None])[0]) for found in faces])
    levels = np.stack([difference.mean() for difference in apart])
    return {
        "equal file": "yes" if own.read_bytes() == other.read_bytes() else "no",
        "mean": round(float(levels.mean()), 3),
        "99 %": float(np.percentile(np.concatenate([part.ravel()[::7] for part in apart]), 99)),
        "worst frame": round(float(levels.max()), 2),
        "lips r": round(float(np.corrcoef(np.array(openings).T)[0, 1]), 3) if len(openings) > 2 else "-",
    }


def main() -> None:
    """Make every verb's video under every processor, and print how they compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cpus", default="one-thread,avx2,default,zen3", help=f"of {', '.join(PROCESSORS)}")
    parser.add_argument("--verbs", default="animate,dub,imagine,fill")
    parser.add_argument("-o", "--output", type=Path, default=Path("outputs/same_seed"))
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    write_inputs(given.output)
    for verb in given.verbs.split(","):
        videos = {}
        for name in ["own", "own", *given.cpus.split(",")]:
            video = given.output / f"{verb}-{name}{'-again' if name in videos else ''}.mp4"
            began = time.perf_counter()
            subprocess.run(
                [*TALKFACE, *commands(given.output)[verb], "-o", str(video), "--overwrite"],
                env=environment(name, given.output),
                check=True,
                capture_output=True,
            )
            seconds = time.perf_counter() - began
            label = f"{name} again" if name in videos else name
            videos[name] = videos.get(name, video)
            figures = compared(videos["own"], video)
            print(
                f"{verb:8} {label:10} {seconds:6.1f} s ", *(f"{k} {v}" for k, v in figures.items()), sep="  "
            )


if __name__ == "__main__":
    main()
