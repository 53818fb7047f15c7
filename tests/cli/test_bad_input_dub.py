"""dub refuses wrong input in one line and leaves nothing; unusual videos keep their frames and times."""

from collections.abc import Callable, Collection
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from conftest import RATE, Outcome, check_refused, write_clip, write_wav
from media_samples import apart, copied, damage, tone, write_film, write_video
from talkface.face.model import FaceModel
from talkface.face.tracker import FaceTracker
from talkface.face.warp import move_ring, resample, with_ring
from talkface.media.audio import probe_audio
from talkface.media.source import SourceVideo

Run = Callable[..., Outcome]
SIDE = 160


class Case:
    """A directory with a good video (15 frames), good speech and an output name, for a test to spoil."""

    def __init__(self, folder: Path, images: list[np.ndarray], samples: np.ndarray) -> None:
        self.folder, self.images, self.samples = folder, images, samples
        self.video = folder / "film.mp4"
        self.output: Path | None = folder / "out.mp4"
        self.speech: list[object] = [write_wav(folder / "voice.wav", samples)]
        self.options: list[object] = []
        self.film(images)

    @property
    def voice(self) -> Path:
        return self.folder / "voice.wav"

    @property
    def arguments(self) -> list[str]:
        output = ["-o", self.output] if self.output else []
        whole = ["dub", self.video, *self.speech, *output, *self.options]
        return [str(argument) for argument in whole]

    def film(self, images: list[np.ndarray], **options: object) -> None:
        """Put other pictures into the video."""
        write_film(self.video, images, Fraction(25), **options)

    def files(self) -> dict[str, int]:
        """Everything in the directory, with the time of its last change."""
        return {str(path): path.lstat().st_mtime_ns for path in self.folder.rglob("*")}


@pytest.fixture(scope="module")
def images(talking_frames: list[np.ndarray]) -> list[np.ndarray]:
    """15 pictures of 160x160 with a face of 65 pixels."""
    return [cv2.resize(i, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for i in talking_frames[10:25]]


@pytest.fixture
def case(tmp_path: Path, images: list[np.ndarray], samples: np.ndarray) -> Case:
    return Case(tmp_path, images, samples[RATE : 2 * RATE])


def landscape(count: int = 15) -> list[np.ndarray]:
    """Pictures without a face."""
    ramp = np.linspace(0, 255, SIDE).astype(np.uint8)
    image = np.stack(np.broadcast_arrays(ramp, ramp[:, None], ramp), -1)
    return [np.roll(image, 3 * k, 1) for k in range(count)]


# -- refused ---------------------------------------------------------------------------------------


def video_is_sound(case: Case) -> None:
    case.video = case.voice


def video_is_sound_in_a_container_for_videos(case: Case) -> None:
    case.video = write_clip(case.folder / "sound.mp4", None, case.samples)


def video_is_a_picture(case: Case) -> None:
    case.video = case.folder / "face.png"
    Image.fromarray(case.images[0]).save(case.video)


def video_is_text(case: Case) -> None:
    case.video.write_text("this is no film" * 100)


def video_is_missing(case: Case) -> None:
    case.video.unlink()


def video_is_empty(case: Case) -> None:
    case.video.write_bytes(b"")


def video_is_a_directory(case: Case) -> None:
    case.video = case.folder


def video_has_lost_its_index(case: Case) -> None:
    case.video.write_bytes(case.video.read_bytes()[: case.video.stat().st_size // 2])


def no_face(case: Case) -> None:
    case.film(landscape(60))


def face_too_small(case: Case) -> None:
    small = [np.full((SIDE, SIDE, 3), 120, np.uint8) for _ in case.images]
    for canvas, image in zip(small, case.images, strict=True):
        canvas[40:120, 40:120] = cv2.resize(image, (80, 80), interpolation=cv2.INTER_AREA)
    case.film(small)


def speech_is_missing(case: Case) -> None:
    case.voice.unlink()


def speech_is_text(case: Case) -> None:
    case.voice.write_text("this is no sound" * 100)


def speech_is_a_mute_video(case: Case) -> None:
    case.speech = [write_film(case.folder / "mute.mp4", case.images, Fraction(25))]


def speech_is_shorter_than_a_frame(case: Case) -> None:
    write_wav(case.voice, case.samples[:100])


def speech_is_empty(case: Case) -> None:
    write_wav(case.voice, case.samples[:0])


def no_speech(case: Case) -> None:
    case.speech = []


def speech_and_track(case: Case) -> None:
    case.options = ["--audio-tracks", f"face0={case.voice}"]


def track(*texts: str) -> Callable[[Case], None]:
    """A spoiler that gives audio tracks instead of speech; {} stands for a good file."""

    def spoil(case: Case) -> None:
        case.speech = []
        for text in texts:
            case.options += ["--audio-tracks", text.format(case.voice)]

    spoil.__name__ = "track_" + "_".join(text.split("=")[0] for text in texts)
    return spoil


def option(*options: str) -> Callable[[Case], None]:
    """A spoiler that gives an option outside its range."""

    def spoil(case: Case) -> None:
        case.options = list(options)

    spoil.__name__ = "option_" + "_".join(options).strip("-")
    return spoil


def no_output(case: Case) -> None:
    case.output = None


def output_is_the_video(case: Case) -> None:
    case.output, case.options = case.video, ["--overwrite"]


def output_is_the_speech(case: Case) -> None:
    case.output, case.options = case.voice, ["--overwrite"]


def output_is_a_track(case: Case) -> None:
    track("face0={}")(case)
    case.output = case.voice
    case.options.append("--overwrite")


def output_exists(case: Case) -> None:
    case.output.write_bytes(b"precious")


def output_directory_missing(case: Case) -> None:
    case.output = case.folder / "nowhere" / "out.mp4"


def output_is_no_video_format(case: Case) -> None:
    case.output = case.folder / "out.docx"


REFUSED: list[tuple[Callable[[Case], None], str]] = [
    (video_is_sound, "voice.wav"),
    (video_is_sound_in_a_container_for_videos, "sound.mp4"),
    (video_is_a_picture, "picture"),
    (video_is_text, "film.mp4"),
    (video_is_missing, "film.mp4"),
    (video_is_empty, "film.mp4"),
    (video_is_a_directory, "directory"),
    (video_has_lost_its_index, "film.mp4"),
    (no_face, "no face"),
    (face_too_small, "40 px"),
    (speech_is_missing, "voice.wav"),
    (speech_is_text, "voice.wav"),
    (speech_is_a_mute_video, "mute.mp4"),
    (speech_is_shorter_than_a_frame, "voice.wav"),
    (speech_is_empty, "voice.wav"),
    (no_speech, "speech"),
    (speech_and_track, "not both"),
    (track("face0={}", "face0={}"), "face 0"),
    (track("{}"), "face0="),
    (track("face0="), "face0="),
    (track("face={}"), "face0="),
    (track("left={}"), "face0="),
    (track("face0={}", "face3={}"), "face is 3"),
    (track("face0=nothing.wav"), "nothing.wav"),
    (option("--face", "1"), "shows 1"),
    (option("--face", "-1"), "face"),
    (option("--face", "mine"), "mine"),
    (option("--sync-mode", "stretch"), "stretch"),
    (option("--lips", "-1"), "lips"),
    (option("--lips", "nan"), "lips"),
    (option("--start", "0.4", "--stop", "0.2"), "later"),
    (option("--start", "0.4", "--stop", "0.4"), "later"),
    (option("--start", "10"), "10"),
    (option("--start", "soon"), "soon"),
    (option("--stop", ""), "time"),
    (option("--audio-stream", "2", "--face", "auto"), "audio stream"),
    (option("--device", "quantum"), "quantum"),
    (option("--progress", "maybe"), "progress"),
    (no_output, "--output"),
    (output_is_the_video, "input"),
    (output_is_the_speech, "input"),
    (output_is_a_track, "input"),
    (output_exists, "--overwrite"),
    (output_directory_missing, "nowhere"),
    (output_is_no_video_format, "out.docx"),
]


@pytest.mark.parametrize(("spoil", "named"), REFUSED, ids=[spoil.__name__ for spoil, _ in REFUSED])
def test_refused_in_one_line(spoil: Callable[[Case], None], named: str, case: Case, run: Run) -> None:
    spoil(case)
    before = case.files()
    check_refused(run(*case.arguments), named)
    assert case.files() == before, "nothing is left behind and nothing is touched"


# -- handled ---------------------------------------------------------------------------------------


@pytest.fixture
def dub(case: Case, run: Run) -> Callable[..., list[np.ndarray]]:
    """Dubs the case's video, which must work with these words said about it; gives the frames."""

    def dub(*said: str) -> list[np.ndarray]:
        outcome = run(*case.arguments)
        assert outcome.code == 0, outcome
        assert outcome.out == [str(case.output)]
        assert len(outcome.err) == len(said), outcome.err
        for line, words in zip(outcome.err, said, strict=True):
            assert line.startswith("talkface: warning: ")
            assert words in line
        assert {path.name for path in case.folder.iterdir()} <= {
            *("film.mp4", "film.mkv", "voice.wav", "out.mp4")
        }
        return [frame.image for frame in SourceVideo(case.output)]

    return dub


def above(image: np.ndarray) -> np.ndarray:
    """The part of a picture above the mouth."""
    return image[: len(image) * 4 // 10]


def check_kept(
    case: Case, made: list[np.ndarray], shown: list[np.ndarray], whole: Collection[int] = ()
) -> None:
    """Pictures are what was shown, as far as their encoder allows: above the mouth, or in the ``whole``."""
    for number, (image, frame, was) in enumerate(zip(made, copied(case.video), shown, strict=True)):
        height, width = was.shape[:2]
        part = np.s_[: height if number in whole else height * 4 // 10, :width]
        lost = apart(frame.image[part], was[part])
        assert lost < 12, "they are the same pictures"
        assert apart(image[part], was[part]) < lost + 1, number


def test_silence_as_speech_closes_the_mouth(
    case: Case, talking_frames: list[np.ndarray], dub: Callable[..., list[np.ndarray]]
) -> None:
    from talkface.face import topology as tp

    shown = talking_frames[16:31]  # at their full size: of a small face, closed lips are not seen as such
    case.film(shown)
    write_wav(case.voice, np.zeros(RATE, np.int16))
    made, tracker = dub(), FaceTracker()
    points = [
        np.stack([tracker.track_image(image)[0].points for image in images]) for images in (made, shown)
    ]
    closed, talking = (tp.aperture(p) for p in points)
    assert talking.mean() > 0.06
    assert closed.mean() < 0.5 * talking.mean(), (closed, talking)


def test_end_behind_the_end(case: Case, dub: Callable[..., list[np.ndarray]]) -> None:
    case.options = ["--stop", "60"]
    assert len(dub("ends at 0.60 s")) == 15


def test_shot_cuts(case: Case, dub: Callable[..., list[np.ndarray]]) -> None:
    """Another shot, a landscape, the first shot again."""
    mirrored = [np.ascontiguousarray(image[:, ::-1]) for image in case.images[5:10]]
    shown = [*case.images[:5], *mirrored, *landscape(5), *case.images[10:]]
    case.film(shown)
    write_wav(case.voice, case.samples)
    made = dub("not seen in 5 frame")
    check_kept(case, made, shown, whole=range(10, 15))


@pytest.mark.parametrize("degrees", [90, 180])
def test_rotated_phone_video(degrees: int, case: Case, dub: Callable[..., list[np.ndarray]]) -> None:
    wide = [image[:, 16:144] for image in case.images]
    stored = [np.ascontiguousarray(np.rot90(image, -degrees // 90)) for image in wide]
    write_video(case.video, stored, rotation=degrees)
    made = dub("upright")
    assert made[0].shape == (160, 128, 3)
    check_kept(case, made, wide)
    assert SourceVideo(case.output).rotation == 0


def test_interlaced_video(case: Case, dub: Callable[..., list[np.ndarray]]) -> None:
    write_video(case.video, case.images, options={"x264-params": "tff=1", "crf": "10"}, interlaced=True)
    made = dub("deinterlaced")
    check_kept(case, made, case.images)
    assert not SourceVideo(case.output).interlaced


def test_ten_bits(case: Case, dub: Callable[..., list[np.ndarray]]) -> None:
    write_video(case.video, case.images, pix_fmt="yuv420p10le")
    check_kept(case, dub("8 bits"), case.images)


def test_odd_size(case: Case, dub: Callable[..., list[np.ndarray]]) -> None:
    case.video.unlink()
    case.video = case.folder / "film.mkv"
    odd = [np.ascontiguousarray(image[:157, 5:]) for image in case.images]
    write_video(case.video, odd, codec="ffv1", pix_fmt="yuv444p")
    outcome = dub("4:2:0", "odd size")
    assert outcome[0].shape == (158, 156, 3)
    check_kept(case, outcome, odd)


def test_grey_video(case: Case, dub: Callable[..., list[np.ndarray]]) -> None:
    grey = [np.repeat(image.mean(-1, keepdims=True), 3, -1).astype(np.uint8) for image in case.images]
    case.film(grey)
    made = dub()
    check_kept(case, made, grey)
    assert max(int(np.ptp(image.astype(int), axis=2).max()) for image in made) < 40


def test_corrupt_frames_in_the_middle(case: Case, run: Run) -> None:
    """They are left out and reported; the others keep their times."""
    images = case.images * 3
    case.film(images, keyframes=15)
    damage(case.video, [20, 21])
    write_wav(case.voice, np.resize(case.samples, 2 * RATE))
    outcome = run(*case.arguments)
    assert outcome.code == 0, outcome
    assert any("damaged" in line for line in outcome.err)
    assert all(line.startswith("talkface: warning: ") for line in outcome.err)
    made = SourceVideo(case.output)
    assert made.duration == pytest.approx(1.8, abs=0.05)
    whole = [frame for frame in made if frame.time < 0.79 or frame.time >= 1.2]
    assert len(whole) == 20 + 15
    copies = {round(frame.time * 25): frame.image for frame in copied(case.video)}
    for frame in whole:
        number = round(frame.time * 25)
        was = above(images[number])
        assert apart(above(frame.image), was) < apart(above(copies[number]), was) + 1
    assert probe_audio(case.output).duration == pytest.approx(1.8, abs=0.1)


def test_several_audio_tracks(case: Case, dub: Callable[..., list[np.ndarray]]) -> None:
    """None of them is heard any more; one of them may be said to be the speech."""
    case.film(case.images, sounds=[tone(0.6, RATE, hertz=hertz) for hertz in (300, 500)])
    case.options = ["--audio-stream", "1", "--face", "auto"]
    check_kept(case, dub(), case.images)
    with av.open(str(case.output)) as container:
        assert len(container.streams.audio) == 1


def turned(image: np.ndarray, degrees: float) -> np.ndarray:
    """A picture whose face is turned to the side."""
    points = FaceTracker().track_image(image)[0].points
    angle, middle = np.radians(degrees), points[[234, 454]].mean(0)
    axes = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    rest = with_ring(points)
    moved = move_ring(rest, rest, ((points - middle) @ axes.T + middle).astype(np.float32))
    field = FaceModel.from_pretrained().mesh_warp().field(rest, moved, (SIDE, SIDE), 1.0)
    out = np.empty_like(image)
    resample(image, field, out)
    return out


def test_profiles_pass_through(case: Case, dub: Callable[..., list[np.ndarray]]) -> None:
    angles = [0] * 5 + [80] * 10 + [0] * 5
    shown = [turned(case.images[0], angle) if angle else case.images[0] for angle in angles]
    case.film(shown, crf=8)
    made = dub("not seen in 10 frame")
    check_kept(case, made, shown, whole=range(7, 13))


def test_one_frame_without_a_face(case: Case, dub: Callable[..., list[np.ndarray]]) -> None:
    shown = [*case.images[:7], landscape(1)[0], *case.images[8:]]
    case.film(shown)
    made = dub("not seen in 1 frame")
    check_kept(case, made, shown, whole=[7])


@pytest.mark.parametrize("part", ["bottom", "left"])
def test_mouths_at_the_border(part: str, case: Case, dub: Callable[..., list[np.ndarray]]) -> None:
    cut = {"bottom": np.s_[:100], "left": np.s_[:, 70:]}[part]
    shown = [np.ascontiguousarray(image[cut]) for image in case.images]
    case.film(shown)
    made = dub()
    check_kept(case, made, shown)
    assert np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(made, shown, strict=True)]) > 0.3


def test_single_frame(case: Case, dub: Callable[..., list[np.ndarray]]) -> None:
    case.film(case.images[:1])
    case.options = ["--sync-mode", "loop"]
    write_wav(case.voice, case.samples[: RATE * 3 // 10])
    made = dub()
    assert len(made) == 8
    for image in made:
        check_kept(case, [image], case.images[:1])


def test_odd_paths(case: Case, run: Run) -> None:
    folder = case.folder / 'it\'s a "dir" of $HOME; %d été 日本 -x'
    folder.mkdir()
    video = case.video.rename(folder / "-film's $1 #1 é.mp4")
    voice = case.voice.rename(folder / 'voice "日本" %s=1.wav')
    output = folder / "out 'ü' $(x) :1.mp4"
    outcome = run("dub", video, "--audio-tracks", f"face0={voice}", "-o", output, "--stop", "0.2")
    assert outcome == Outcome(0, [str(output)], [])
