"""dub: the video stays what it is but for the lips, at every rate, in every mode, for one face or several."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

import talkface
from conftest import RATE, Outcome, write_wav
from media_samples import apart, copied, write_film, write_video
from talkface.errors import TalkfaceError
from talkface.face import topology as tp
from talkface.face.masks import lower_face_outline
from talkface.face.model import FaceModel
from talkface.face.tracker import FaceTracker
from talkface.media.audio import probe_audio, read_audio, stream_audio
from talkface.media.rate import exact_fps
from talkface.media.source import SourceVideo
from talkface.media.timeline import MODES
from talkface.media.video import Frame

Run = Callable[..., Outcome]
RATES = [23.976, 25.0, 29.97, 30.0, 50.0, 60.0]


# -- looking at videos -----------------------------------------------------------------------------


def pictures(path: Path) -> list[np.ndarray]:
    return [frame.image for frame in SourceVideo(path)]


def times(path: Path) -> list[float]:
    """Seconds at which the frames of a file begin."""
    with av.open(str(path)) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]


def tracked(images: list[np.ndarray]) -> np.ndarray:
    """The largest face of each picture, (T, 478, 3)."""
    tracker = FaceTracker()
    faces = [tracker.track_image(image) for image in images]
    return np.stack([max(found, key=lambda face: face.box[3] - face.box[1]).points for found in faces])


def openings(images: list[np.ndarray]) -> np.ndarray:
    """Inner-lip opening over inter-ocular distance, (T,)."""
    return tp.aperture(tracked(images))


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Which pixels differ, (H, W)."""
    return (before != after).any(-1)


def near_lower_face(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The lower face of a mesh and a little around it: another tracking finds it a little elsewhere."""
    mask = np.zeros((size[1], size[0]), np.uint8)
    cv2.fillPoly(mask, [np.round(lower_face_outline(points)).astype(np.int32)], 1)
    return cv2.dilate(mask, np.ones((size[0] // 28,) * 2, np.uint8)) > 0


def smaller(images: list[np.ndarray], side: int = 160) -> list[np.ndarray]:
    return [cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in images]


def other_person(images: list[np.ndarray]) -> list[np.ndarray]:
    """Somebody else with other words: mirrored, of another shape, darker, from end to start."""
    out = []
    for image in images[::-1]:
        wide = cv2.resize(image, None, fx=1.25, fy=1.0)[:, 32:-32]
        toned = wide[:, ::-1].astype(np.float32) * [0.62, 0.5, 0.42]
        out.append(np.clip(toned, 0, 255).astype(np.uint8))
    return out


@pytest.fixture(scope="module")
def short(talking_frames: list[np.ndarray]) -> list[np.ndarray]:
    """12 pictures of 160x160."""
    return smaller(talking_frames[10:22])


@pytest.fixture(scope="module")
def clip(short: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 frames, 25 a second, without sound."""
    return write_film(tmp_path_factory.mktemp("clip") / "clip.mp4", short, Fraction(25))


@pytest.fixture(scope="module")
def voice(other_speech: Path, samples: np.ndarray) -> Callable[[float], Path]:
    """Gives speech of so many seconds."""

    def make(seconds: float) -> Path:
        path = other_speech.with_name(f"voice-{seconds:g}.wav")
        return write_wav(path, samples[5 * RATE : round((5 + seconds) * RATE)])

    return make


# -- one face --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dubbed(talking: Path, other_speech: Path) -> list[np.ndarray]:
    """All frames of ``talking`` with other words, before they are encoded."""
    return list(talkface.dub(talking, other_speech)[0])


def test_only_the_lower_face_changes(
    talking: Path, talking_frames: list[np.ndarray], dubbed: list[np.ndarray]
) -> None:
    assert len(dubbed) == len(talking_frames) == 75
    faces = tracked(talking_frames)
    for before, after, points in zip(talking_frames, dubbed, faces, strict=True):
        assert after.dtype == np.uint8
        differs = changed(before, after)
        assert not (differs & ~near_lower_face(points, (256, 256))).any()
        mouth = points[tp.LIPS_OUTER, :2].round().astype(int)
        assert differs[mouth[:, 1], mouth[:, 0]].mean() > 0.5, "the lips are redrawn"
        eyes = points[[33, 263, 168], :2].round().astype(int)
        assert not differs[eyes[:, 1], eyes[:, 0]].any()


def test_the_lips_follow_the_new_words(
    talking_frames: list[np.ndarray], dubbed: list[np.ndarray], other_speech: Path
) -> None:
    from talkface.systems.g4g.geometry import mouth_shape
    from talkface.systems.g4g.pipeline import G4GPipeline

    face, lips = FaceModel.from_pretrained(), G4GPipeline.from_pretrained("compact", "cpu").speech_to_lips
    spoken = lips(stream_audio(other_speech, gain=probe_audio(other_speech).gain()))
    wanted = mouth_shape(face, np.concatenate([part.beta_mouth for part in spoken]))[:75, 0]
    seen, original = openings(dubbed), openings(talking_frames)
    assert np.corrcoef(seen, wanted)[0, 1] > 0.6
    assert np.corrcoef(seen, wanted)[0, 1] > np.corrcoef(original, wanted)[0, 1] + 0.3


def test_the_same_input_gives_the_same_video(clip: Path, voice: Callable[[float], Path]) -> None:
    dubbing = talkface.dub(clip, voice(1.0))[0]
    first, again, anew = list(dubbing), list(dubbing), list(talkface.dub(clip, voice(1.0))[0])
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, anew)


def test_no_lip_motion_closes_the_mouth(talking: Path, talking_frames: list[np.ndarray]) -> None:
    closed = list(talkface.dub(talking, talking.with_name("own.wav"), lips=0.0, start=0.8, stop=1.6)[0])
    wide = talking_frames[20:40]
    assert len(closed) == 20
    assert openings(wide).max() > 0.1
    assert openings(closed).mean() < 0.45 * openings(wide).mean()
    assert openings(closed).max() < 0.5 * openings(wide).max()


def half_silent(folder: Path, samples: np.ndarray) -> Path:
    """Silence for 0.8 s, then words."""
    voice = np.concatenate([np.zeros(RATE * 8 // 10, np.int16), samples[5 * RATE : 6 * RATE]])
    return write_wav(folder / "half.wav", voice)


def test_silence(
    talking: Path, talking_frames: list[np.ndarray], samples: np.ndarray, tmp_path: Path
) -> None:
    """The mouth is closed, or with ``keep_silence`` what it was, to the bit."""
    speech = half_silent(tmp_path, samples)
    kept = list(talkface.dub(talking, speech, keep_silence=True, stop=1.3)[0])
    closed = list(talkface.dub(talking, speech, stop=1.3)[0])
    for number in range(13):
        np.testing.assert_array_equal(kept[number], talking_frames[number])
        assert (closed[number] != talking_frames[number]).any()
    assert all(changed(kept[k], talking_frames[k]).any() for k in range(27, 32))
    assert openings(closed[:13]).max() < 0.4 * openings(talking_frames[:13]).max()


# -- frames and times ------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", RATES)
def test_every_frame_of_a_constant_rate(
    fps: float, short: list[np.ndarray], voice: Callable[[float], Path], tmp_path: Path, run: Run
) -> None:
    rate = exact_fps(fps)
    source = write_film(tmp_path / "in.mp4", short, rate)
    outcome = run("dub", source, voice(1.0), "-o", tmp_path / "out.mp4")
    assert outcome == Outcome(0, [str(tmp_path / "out.mp4")], [])
    done = SourceVideo(tmp_path / "out.mp4")
    assert (done.fps, done.variable, done.frame_count, done.size) == (rate, False, 12, (160, 160))
    assert times(tmp_path / "out.mp4") == pytest.approx([k / rate for k in range(12)], abs=1e-4)
    assert done.duration == pytest.approx(float(12 / rate))
    sound = probe_audio(tmp_path / "out.mp4").duration
    assert abs(sound - done.duration) <= 1 / rate + 1024 / RATE


STEPS = [40, 40, 7, 90, 33, 33, 34, 120, 40, 15, 60]
"""Milliseconds between the frames of a variable rate."""


def test_variable_rate_is_kept(
    short: list[np.ndarray], voice: Callable[[float], Path], tmp_path: Path
) -> None:
    begins = (np.cumsum([0, *STEPS]) / 1000).tolist()
    source = write_video(tmp_path / "in.mp4", short, begins)
    talkface.dub(source, voice(1.0)).save(tmp_path / "out.mp4")
    assert times(tmp_path / "out.mp4") == pytest.approx(begins, abs=1e-3)
    done, was = SourceVideo(tmp_path / "out.mp4"), SourceVideo(source)
    assert (done.variable, done.frame_count) == (True, 12)
    assert done.duration == pytest.approx(was.duration, abs=2e-3)


@pytest.mark.parametrize("seconds", [0.28, 0.72])
@pytest.mark.parametrize("mode", MODES)
def test_sync_modes(
    mode: str,
    seconds: float,
    clip: Path,
    short: list[np.ndarray],
    voice: Callable[[float], Path],
    tmp_path: Path,
    run: Run,
) -> None:
    """Shorter and longer speech than the video's 12 frames; which frame is shown is seen above the mouth."""
    outcome = run("dub", clip, voice(seconds), "-o", tmp_path / "out.mp4", "--sync-mode", mode)
    assert outcome.code == 0, outcome
    spoken = round(25 * seconds)
    order = {
        "cut_off": [*range(12)][:spoken],
        "silence": [*range(12)],
        "loop": [k % 12 for k in range(spoken)],
        "bounce": [*range(12), *range(10, -1, -1)][:spoken],
        "remap": [round((k + 0.5) * 12 / spoken - 0.5) for k in range(spoken)],
    }[mode]
    assert (len(outcome.err) == 1) == (mode == "silence" and spoken > 12), "what is lost is said"
    done = pictures(tmp_path / "out.mp4")
    assert len(done) == len(order)
    before = pictures(clip)
    for image, number in zip(done, order, strict=True):
        away = [apart(image[:60], other[:60]) for other in before]
        assert away[number] < min(away) + 0.15
    sound = probe_audio(tmp_path / "out.mp4").duration
    assert sound <= len(order) / 25 + 1024 / RATE


def test_from_to(
    talking: Path, talking_frames: list[np.ndarray], other_speech: Path, tmp_path: Path, run: Run
) -> None:
    out = tmp_path / "out.mp4"
    outcome = run("dub", talking, other_speech, "-o", out, "--start", "0:01", "--stop", "1.4")
    assert outcome.code == 0, outcome
    done = pictures(out)
    assert len(done) == 10
    copies = copied(talking)
    for number, image in enumerate(done, start=25):
        was = talking_frames[number][:100]
        assert apart(image[:100], was) < apart(copies[number].image[:100], was) + 1
    heard, said = read_audio(out), read_audio(other_speech)
    window = heard[2000:5000]
    fits = [float(window @ said[2000 + k : 5000 + k]) for k in range(-1600, 1601, 4)]
    assert abs(4 * int(np.argmax(fits)) - 1600) < 200, "the speech begins with the stretch"


# -- faces that come and go, several faces -----------------------------------------------------------


def test_frames_without_a_face_pass_through(
    talking_frames: list[np.ndarray], other_speech: Path, tmp_path: Path
) -> None:
    empty = [
        np.full_like(image, 90) + (np.arange(256, dtype=np.uint8) // 4)[:, None] for image in talking_frames
    ]
    images = [*talking_frames[:12], *empty[:8], *talking_frames[20:32]]
    source = write_film(tmp_path / "in.mp4", images, Fraction(25), crf=8)
    before, after = pictures(source), list(talkface.dub(source, other_speech)[0])
    assert len(after) == 32
    for number in range(32):
        assert changed(before[number], after[number]).any() == (number < 12 or number >= 20), number


def test_a_microphone_before_the_mouth_stays(
    talking_frames: list[np.ndarray], other_speech: Path, tmp_path: Path
) -> None:
    images, covered = [image.copy() for image in talking_frames[:26]], []
    for image, points in zip(images[16:], tracked(images[16:]), strict=True):
        x, y = (int(value) for value in 0.6 * points[61, :2] + 0.4 * points[17, :2] + [-4, 10])
        thing = np.zeros((256, 256), np.uint8)
        cv2.line(thing, (x, y), (x - 40, 255), 1, 14)
        cv2.circle(thing, (x, y), 15, 1, -1)
        image[thing > 0] = 58, 58, 62
        covered.append(thing > 0)
    source = write_film(tmp_path / "in.mp4", images, Fraction(25), crf=8)
    before, after = pictures(source)[16:], list(talkface.dub(source, other_speech)[0])[16:]
    for thing, shown, made in zip(covered, before, after, strict=True):
        away = np.abs(shown.astype(int) - made).max(-1)
        assert (away[thing] <= 4).mean() > 0.9
        assert away[~thing].max() > 10, "the mouth beside it is drawn"


@pytest.fixture(scope="module")
def two(talking: Path, talking_frames: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people side by side, the left of whom says what is heard; the right one is larger."""
    right = [cv2.resize(image[28:-28, 28:-28], (256, 256)) for image in other_person(talking_frames)]
    images = [np.concatenate(pair, 1) for pair in zip(talking_frames[:50], right[:50], strict=True)]
    sound = read_audio(talking.with_name("own.wav"))[: 2 * RATE, None]
    path = tmp_path_factory.mktemp("two") / "two.mp4"
    return write_film(path, images, Fraction(25), [sound])


def sides(dubbing: Iterable[np.ndarray], source: Path) -> tuple[float, float]:
    """In which part of the frames something changes on the left and on the right."""
    left, right = [], []
    for before, after in zip(pictures(source), dubbing, strict=False):
        differs = changed(before, after)
        left.append(differs[:, :256].any())
        right.append(differs[:, 256:].any())
    return float(np.mean(left)), float(np.mean(right))


@pytest.mark.parametrize(
    ("face", "expected"), [(0, (0, 1)), (1, (1, 0)), ("1", (1, 0)), ("all", (1, 1)), ("auto", (1, 0))]
)
def test_whose_lips(
    face: int | str, expected: tuple[int, int], two: Path, voice: Callable[[float], Path]
) -> None:
    stop = None if face == "auto" else 0.6
    assert sides(talkface.dub(two, voice(0.6), face=face, stop=stop)[0], two) == expected


def test_a_speech_for_each_face(
    two: Path, voice: Callable[[float], Path], samples: np.ndarray, tmp_path: Path, run: Run
) -> None:
    low = write_wav(tmp_path / "low.wav", (samples[: RATE * 4 // 10] * 0).astype(np.int16))
    tracks = ["--audio-tracks", f"face0={low}", "--audio-tracks", f"face1={voice(0.6)}"]
    out = tmp_path / "out.mp4"
    outcome = run("dub", two, *tracks, "-o", out)
    assert outcome.code == 0, outcome
    assert len(times(out)) == 15, "as long as the longer one"
    heard, said = read_audio(out), read_audio(voice(0.6))
    count = min(len(heard), len(said)) - 1000
    assert np.corrcoef(heard[1000:count], said[1000:count])[0, 1] > 0.9, "the other is silent"
    frames = list(talkface.dub(two, audio_tracks={0: low, 1: voice(0.6)}, stop=0.4)[0])
    assert sides(frames, two) == (1, 1)
    assert openings([frame[:, 256:] for frame in frames]).max() < 0.1, "whose speech is silence is silent"


def test_sounds_of_several_faces_are_mixed(two: Path, samples: np.ndarray, tmp_path: Path) -> None:
    time = np.arange(RATE // 2) / RATE
    tones = [
        write_wav(tmp_path / f"{hertz}.wav", 6000 * np.sin(2 * np.pi * hertz * time)) for hertz in (300, 700)
    ]
    out = talkface.dub(two, audio_tracks=dict(enumerate(tones)), stop=0.4).save(tmp_path / "out.mp4")[0]
    spectrum = np.abs(np.fft.rfft(read_audio(out)[: RATE * 4 // 10] * np.hanning(RATE * 4 // 10)))
    peaks = {hertz: spectrum[round(hertz * 0.4)] for hertz in (300, 500, 700)}
    assert min(peaks[300], peaks[700]) > 20 * peaks[500]


# -- plan, interruption, errors --------------------------------------------------------------------


def test_dry_run(two: Path, clip: Path, voice: Callable[[float], Path], tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    outcome = run("dub", two, voice(0.4), "--face", "1", "--dry-run", "-o", folder / "out.mp4")
    assert (outcome.code, outcome.err) == (0, [])
    text = "\n".join(outcome.out)
    for said in (
        "512 x 256",
        "25 fps",
        "10 frames",
        "faces: 2",
        "face 0",
        "face 1",
        "voice-0.4.wav",
        "MB",
        " s ",
    ):
        assert said in text
    assert "stays as it is" in next(line for line in outcome.out if "face 0" in line)
    assert not list(folder.iterdir())
    assert run("dub", clip, voice(0.2), "--dry-run").code == 0, "no output need be named"


def test_plan_of_the_api(clip: Path, voice: Callable[[float], Path]) -> None:
    dubbing = talkface.dub(clip, voice(0.4))[0]
    assert (len(dubbing), dubbing.fps, dubbing.size, dubbing.duration) == (10, 25, (160, 160), 0.4)
    person = dubbing.plan.faces[0]
    assert person.share == 1
    assert person.speech == voice(0.4)
    assert person.size[0] <= person.size[1] < 100
    assert dubbing.plan.memory > 1e8


def test_note_that_it_is_synthetic(clip: Path, voice: Callable[[float], Path], tmp_path: Path) -> None:
    talkface.dub(clip, voice(0.2)).save(tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        note = " ".join(container.metadata.values())
    for said in ("ynthetic", talkface.__version__, "g4g"):
        assert said in note


def test_progress_as_json(clip: Path, voice: Callable[[float], Path], tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out.mp4"
    outcome = run("dub", clip, voice(0.4), "-o", out, "--progress", "json")
    assert (outcome.code, outcome.out) == (0, [])
    events = [json.loads(line) for line in outcome.err]
    last = [event for event in events if event.get("stage") == "frames"][-1]
    assert (last["done"], last["total"]) == (10, 10)
    assert events[-1] == {"event": "done", "output": str(out)}


@pytest.fixture(scope="module")
def slow_film(talking_frames: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 s at 4 frames a second: two segments of the writer, and some."""
    images = smaller([talking_frames[k % 74] for k in range(48)])
    return write_film(tmp_path_factory.mktemp("slow") / "slow.mp4", images, Fraction(4))


@pytest.mark.slow
def test_resuming_gives_what_one_run_gives(
    slow_film: Path, samples: np.ndarray, tmp_path: Path, run: Run
) -> None:
    speech = write_wav(tmp_path / "long.wav", np.resize(samples, 12 * RATE))
    out, dubbing = tmp_path / "out.mp4", talkface.dub(slow_film, speech)[0]
    whole: list[Frame] = []

    def interrupted(after: float | None = None) -> Iterator[Frame]:
        for frame in talkface.dub(slow_film, speech)[0].timed(after):
            if len(whole) == 43:
                raise KeyboardInterrupt
            whole.append(frame)
            yield frame

    dubbing.timed = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        dubbing.save(out)
    assert not out.exists()
    outcome = run("dub", slow_film, speech, "-o", out, "--resume", "--progress", "json")
    assert outcome.code == 0, outcome
    steps = [json.loads(line) for line in outcome.err]
    assert min(step["done"] for step in steps if step.get("stage") == "frames") > 40, "not made again"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long.wav", "out.mp4"]
    assert times(out) == pytest.approx([k / 4 for k in range(48)])
    rest = list(talkface.dub(slow_film, speech)[0].timed(whole[39].time))
    for before, after in zip(whole[40:], rest, strict=False):
        assert after.time == before.time
        assert np.abs(after.image.astype(int) - before.image).mean() < 0.05
    for before, image in zip(whole, pictures(out), strict=False):
        assert np.abs(image.astype(int) - before.image).mean() < 4


def test_another_stretch_is_not_resumed(slow_film: Path, samples: np.ndarray, tmp_path: Path) -> None:
    """What is left of one job is not taken for another."""
    speech = write_wav(tmp_path / "long.wav", np.resize(samples, 12 * RATE))
    prints = [
        talkface.dub(slow_film, speech, **options)[0].fingerprint
        for options in ({}, {"start": 1.0, "stop": 3.0}, {"start": 2.0, "stop": 4.0}, {"lips": 0.5})
    ]
    assert len(set(prints)) == 4


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_interrupted(slow_film: Path, samples: np.ndarray, tmp_path: Path) -> None:
    speech = write_wav(tmp_path / "long.wav", np.resize(samples, 12 * RATE))
    command = [sys.executable, "-m", "talkface.cli", "dub", str(slow_film), str(speech)]
    command += ["-o", str(tmp_path / "out.mp4"), "--progress", "json"]

    def listen() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=listen,  # noqa: PLW1509 - it sets a signal's handler and takes no lock
    ) as process:
        assert process.stderr
        for line in process.stderr:
            if json.loads(line).get("done"):
                break
        process.send_signal(signal.SIGTERM)
        rest = [line for line in process.stderr if not line.startswith("{")]
    assert process.returncode == 130
    assert rest == ["talkface: error: interrupted\n"]
    assert [path.name for path in tmp_path.iterdir()] == ["long.wav"]


def test_nothing_is_left_after_an_error(clip: Path, voice: Callable[[float], Path], tmp_path: Path) -> None:
    class Broken(Exception):
        pass

    def fail(stage: str, done: int, total: int) -> None:
        raise Broken

    with pytest.raises(Broken):
        talkface.dub(clip, voice(0.4)).save(tmp_path / "out.mp4", progress=fail)
    assert not list(tmp_path.iterdir())
    with pytest.raises(TalkfaceError):
        talkface.dub(clip, voice(0.4)).save(tmp_path / "nowhere" / "out.mp4")


def test_a_portrait_is_no_video(portrait: Path, other_speech: Path) -> None:
    with pytest.raises(TalkfaceError, match="picture"):
        talkface.dub(portrait, other_speech)[0]


@pytest.mark.parametrize("suffix", ["mkv", "mov", "webm"])
def test_containers(suffix: str, clip: Path, voice: Callable[[float], Path], tmp_path: Path) -> None:
    out = talkface.dub(clip, voice(0.2)).save(tmp_path / f"out.{suffix}")[0]
    assert len(pictures(out)) == 5
    assert len(read_audio(out)) > 0.15 * RATE


def test_large_and_small_faces(talking_frames: list[np.ndarray], other_speech: Path, tmp_path: Path) -> None:
    """From 45 to 450 pixels; the mouth is drawn at the frame's own resolution."""
    for side in (104, 1040):
        images = [np.asarray(Image.fromarray(image).resize((side, side))) for image in talking_frames[10:14]]
        source = write_film(tmp_path / f"{side}.mp4", images, Fraction(25))
        before, after = pictures(source), list(talkface.dub(source, other_speech)[0])
        points = tracked(before)
        for one, two, face in zip(before, after, points, strict=True):
            differs = changed(one, two)
            assert differs.any()
            assert not (differs & ~near_lower_face(face, (side, side))).any()
