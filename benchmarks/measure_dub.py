"""One measurement of talkface.dub in a process of its own; see :mod:`measure` and :mod:`dub`."""

import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measure import (
    Figures,
    around_face,
    cold_and_warm,
    exhaust,
    machine,
    matmul,
    median,
    milliseconds,
    peak_mib,
    run,
    write_speech,
)

if TYPE_CHECKING:
    import numpy as np

    from talkface.face.occlusion import OcclusionFinder
    from talkface.face.people.follower import Sighting
    from talkface.media.decode import Frame
    from talkface.media.source import SourceVideo
    from talkface.systems.g4g.pipeline import G4GPipeline
    from talkface.systems.g4g.renderer import FaceEdit, MouthRenderer, PreparedEdit

    Followed = list[tuple[Frame, dict[int, Sighting]]]

WIDTH, HEIGHT = 1280, 720
PORTRAIT = 576  # pixels a side of the talking portrait, of which the face is two fifths
TALK = 8.0  # seconds of it at most; longer videos are the same again
HELD_FRAMES = 100  # frames kept in memory to feed a stage
BATCH = 4  # frames drawn at once, as in the pipeline
COVER_EVERY = 2  # frames from one look at what covers the mouth to the next, as in the pipeline
OTHER = 5.0  # seconds of the example after which the new words begin


def inputs(folder: str, seconds: list[float]) -> Figures:
    """Write video-SECONDS.mp4, 1280x720 at 25 frames a second, and speech-SECONDS.wav with other words."""
    own = min(TALK, max(seconds))
    write_speech(Path(folder), [own])
    talk = _write_talk(Path(folder), Path(folder) / f"speech-{own:g}.wav")
    write_speech(Path(folder), seconds, start=OTHER)
    for length in seconds:
        _repeat(talk, Path(folder) / f"video-{length:g}.mp4", length)
    return {}


def _write_talk(folder: Path, speech: Path) -> Path:
    """A talking portrait in front of a still background."""
    import numpy as np

    import talkface
    from talkface.media.image import load_image, save_image
    from talkface.media.video import VideoWriter

    portrait = folder / "portrait.png"
    save_image(portrait, around_face(load_image(talkface.example_portrait())))
    random = np.random.default_rng(0)
    wall = np.linspace(70, 150, WIDTH)[None, :, None] + random.normal(0, 4, (HEIGHT, WIDTH, 3))
    canvas, path = wall.clip(0, 255).astype(np.uint8), folder / "talk.mp4"
    left, top = (WIDTH - PORTRAIT) // 2, HEIGHT - PORTRAIT
    with VideoWriter(path, (WIDTH, HEIGHT), 25, speech) as writer:
        for frame in talkface.animate(portrait, speech, size=PORTRAIT)[0]:
            canvas[top:, left : left + PORTRAIT] = frame
            writer.write(canvas)
    return path


def _repeat(source: Path, target: Path, seconds: float) -> None:
    """The packets of a video again and again, for so many seconds; the sound is left out."""
    import av

    stream, passed, end = None, 0, Fraction(seconds).limit_denominator(1000)
    with av.open(str(target), "w") as output:
        while stream is None or passed * stream.time_base < end:
            with av.open(str(source)) as container:
                pictures = container.streams.video[0]
                stream = stream or output.add_stream_from_template(pictures)
                for packet in container.demux(pictures):
                    if packet.size and (passed + packet.pts) * packet.time_base < end:
                        packet.pts, packet.dts = packet.pts + passed, packet.dts + passed
                        packet.stream = stream
                        output.mux(packet)
                passed += pictures.duration


def fps(video: str, speech: str, folder: str, started: float, repeats: int) -> Figures:
    """Frames a second of dub(...).save(...): cold, from the start of the process, and warm."""
    import talkface

    def save() -> int:
        dubbing = talkface.dub(video, speech, device="cpu")[0]
        dubbing.save(Path(folder) / "fps.mp4", overwrite=True)
        return len(dubbing)

    return cold_and_warm(save, started, repeats)


def stages(video: str, speech: str, folder: str, repeats: int) -> Figures:
    """Milliseconds a frame of each stage, by the clock and of the processor (all cores), models loaded.

    Each stage is fed with what the one before has made, which is not counted.
    """
    from talkface.face.occlusion import OcclusionFinder
    from talkface.face.people import Follower, scan
    from talkface.media.audio import probe_audio, stream_audio
    from talkface.media.source import SourceVideo
    from talkface.systems.g4g.bank import FaceCrops, gather
    from talkface.systems.g4g.pipeline import G4GPipeline
    from talkface.systems.g4g.renderer import MouthRenderer

    pipe, source = G4GPipeline.from_pretrained("compact", device="cpu"), SourceVideo(video)
    held = list(islice(source.frames(), HELD_FRAMES))
    people: list[Any] = []

    def look() -> None:
        crops = FaceCrops()
        persons = scan(source.sparse(64), pipe.tracker, pipe.face, crops.keep)
        bank = gather(crops, persons[0], pipe.face, pipe.parts.occlusion)
        finder = OcclusionFinder(pipe.parts.occlusion, pipe.face.mesh_warp(), bank.references)
        people[:] = [persons, MouthRenderer(pipe.face, pipe.parts.generator, bank, "cpu"), finder]

    def listen() -> list[Any]:
        gain = probe_audio(speech).gain()
        return list(pipe.speech_to_lips(stream_audio(speech, gain=gain)))

    taken = {"first_look": median(look, repeats)}
    persons, renderer, finder = people
    lips = listen()
    spoken = sum(len(stretch.gate) for stretch in lips)

    def follow() -> Iterator[tuple["Frame", dict[int, "Sighting"]]]:
        return Follower(pipe.tracker, persons, [0]).follow(iter(held))

    followed = list(follow())
    taken |= {
        "decoder": median(lambda: exhaust(islice(source.frames(), HELD_FRAMES)), repeats),
        "tracking": median(lambda: exhaust(follow()), repeats),
        "speech": median(lambda: exhaust(listen()), repeats),
        "occlusion": median(lambda: _look_for_covers(finder, followed[::COVER_EVERY]), repeats),
        **_drawing(pipe, renderer, persons[0].neutral, followed, lips, repeats),
        "encoder": median(lambda: _write(held, source, speech, Path(folder) / "stages.mp4"), repeats),
    }
    each = {"frames": len(held), "first_look_ms_once": milliseconds(taken.pop("first_look"), 1)}
    counts = {name: spoken if name == "speech" else len(held) for name in taken}
    return each | {name: milliseconds(value, counts[name]) for name, value in taken.items()}


def _look_for_covers(finder: "OcclusionFinder", followed: "Followed") -> None:
    for frame, sightings in followed:
        if sighting := sightings.get(0):
            finder(frame.image, sighting.points)


def _drawing(
    pipe: "G4GPipeline",
    renderer: "MouthRenderer",
    neutral: "np.ndarray",
    followed: "Followed",
    lips: list[Any],
    repeats: int,
) -> dict[str, tuple[float, float]]:
    """Seconds of moving the jaw and cutting the crop, and of drawing and pasting the mouth."""
    prepared: list[PreparedEdit] = []

    def prepare() -> None:
        prepared[:] = [renderer.prepare(edit) for edit in _edits(pipe, neutral, followed, lips)]

    def draw() -> None:
        for start in range(0, len(prepared), BATCH):
            renderer.draw(prepared[start : start + BATCH])

    return {"jaw": median(prepare, repeats), "mouth": median(draw, repeats)}


def _edits(
    pipe: "G4GPipeline", neutral: "np.ndarray", followed: "Followed", lips: list[Any]
) -> "Iterator[FaceEdit]":
    """What the renderer is asked for, as the pipeline does it."""
    import numpy as np

    from talkface.performance.lip_track import LipTrack
    from talkface.systems.g4g.geometry import Retargeter
    from talkface.systems.g4g.renderer import FaceEdit

    retarget, track = Retargeter(pipe.face, neutral, 25), LipTrack(iter(lips))
    for frame, sightings in followed:
        target = track.at(frame.time)
        if sighting := sightings.get(0):
            moved = retarget(sighting.points[None], target.beta_mouth[None], np.ones(1, np.float32))
            rotation = moved.pose.rotation_vectors[0]
            yield FaceEdit(frame.image, sighting.points, moved.points[0], rotation, target, frame.time)


def _write(held: "list[Frame]", source: "SourceVideo", speech: str, path: Path) -> None:
    """Encode the frames held, with sound, as a dubbed video is."""
    from talkface.media.segments import SegmentedWriter

    with SegmentedWriter(path, like=source, audio=speech, overwrite=True) as writer:
        for frame in held:
            writer.write(frame.image, frame.time)


def first_frame(video: str, speech: str, started: float) -> Figures:
    """Seconds from the start of the process to the first frame."""
    import talkface

    next(iter(talkface.dub(video, speech, device="cpu")[0]))
    return {"seconds": round(time.time() - started, 3)}


def memory(video: str, speech: str, folder: str) -> Figures:
    """Peak resident memory of the process that saves one video."""
    import talkface

    start = time.perf_counter()
    dubbing = talkface.dub(video, speech, device="cpu")[0]
    dubbing.save(Path(folder) / "memory.mp4", overwrite=True)
    seconds = time.perf_counter() - start
    return {"frames": len(dubbing), "seconds": round(seconds, 1), "peak_mib": peak_mib()}


if __name__ == "__main__":
    run({one.__name__: one for one in (inputs, machine, matmul, fps, stages, first_frame, memory)})
