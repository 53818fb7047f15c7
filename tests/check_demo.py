"""Looks at a finished demo as a viewer would: all frames, sound of the same length, a face in every frame.

Run as ``python tests/check_demo.py demo.mp4 [LESS]``, shorter than the speech by LESS seconds; exits with
the complaint if something is wrong.
"""

import sys
from pathlib import Path

import talkface
from talkface.face.tracker import FaceTracker
from talkface.media.audio import probe_audio
from talkface.media.video import VideoReader


def check(path: Path, less: float) -> str:
    """Describe a demo, ``less`` seconds shorter than the speech, or exit with what is wrong with it."""
    speech = probe_audio(talkface.example_speech())
    tracker, frames, without_face = FaceTracker(), 0, []
    with VideoReader(path) as video:
        for frame in video:
            if not tracker.track_image(frame.image):
                without_face.append(frames)
            frames += 1
        fps, sound = video.fps, video.has_audio
    expected = round((speech.duration - less) * 25)
    if fps != 25 or frames != expected:
        sys.exit(f"{path} has {frames} frames at {fps} a second, not {expected} at 25")
    if not sound:
        sys.exit(f"{path} has no sound")
    length = probe_audio(path).duration
    if abs(length - frames / fps) > 1 / fps:
        sys.exit(f"the sound of {path} lasts {length:.3f} s, its frames {frames / fps:.3f} s")
    if without_face:
        sys.exit(f"{path} shows no face in frames {without_face}")
    return f"{path}: {frames} frames, {length:.2f} s of sound, a face in every frame"


if __name__ == "__main__":
    print(check(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0))
