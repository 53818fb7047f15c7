"""Wrong input is refused in one line and leaves nothing behind; unusual input is handled."""

import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageOps

from conftest import RATE, Outcome, check_refused, read_video, write_clip, write_wav

Run = Callable[..., Outcome]


class Case:
    """A directory with a good portrait, good speech and an output name, for a test to spoil."""

    def __init__(self, folder: Path, picture: Image.Image, samples: np.ndarray) -> None:
        self.folder, self.picture, self.samples = folder, picture, samples
        self.image, self.audio, self.output = folder / "face.jpg", folder / "voice.wav", folder / "out.mp4"
        self.options: list[str] = []
        picture.save(self.image, quality=95)
        write_wav(self.audio, samples)

    @property
    def arguments(self) -> list[str]:
        return ["animate", str(self.image), str(self.audio), "-o", str(self.output), *self.options]

    def files(self) -> dict[str, int]:
        """Everything in the directory, with the time of its last change."""
        return {str(path): path.lstat().st_mtime_ns for path in self.folder.rglob("*") if path.is_file()}

    def paste(self, side: int, canvas: tuple[int, int] = (512, 512)) -> Image.Image:
        """The portrait, ``side`` pixels wide, in the middle of a grey picture."""
        whole = Image.new("RGB", canvas, (128, 128, 128))
        whole.paste(self.picture.resize((side, side)), ((canvas[0] - side) // 2, (canvas[1] - side) // 2))
        return whole


@pytest.fixture
def case(tmp_path: Path, picture: Image.Image, samples: np.ndarray) -> Case:
    return Case(tmp_path, picture, samples[RATE : RATE + 12 * RATE // 25])


# -- refused ---------------------------------------------------------------------------------------


def image_is_text(case: Case) -> None:
    case.image.write_text("this is no picture")


def audio_is_text(case: Case) -> None:
    case.audio.write_text("this is no sound" * 100)


def image_is_truncated(case: Case) -> None:
    case.image.write_bytes(case.image.read_bytes()[:20_000])


def audio_is_truncated(case: Case) -> None:
    whole = write_clip(case.folder / "whole.m4a", None, case.samples)
    case.audio = case.folder / "voice.m4a"
    case.audio.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])


def image_is_empty(case: Case) -> None:
    case.image.write_bytes(b"")


def audio_is_empty(case: Case) -> None:
    case.audio.write_bytes(b"")


def audio_has_no_samples(case: Case) -> None:
    write_wav(case.audio, case.samples[:0])


def audio_is_shorter_than_a_frame(case: Case) -> None:
    write_wav(case.audio, case.samples[:100])


def image_is_a_directory(case: Case) -> None:
    case.image = case.folder


def audio_is_a_directory(case: Case) -> None:
    case.audio = case.folder


def image_is_missing(case: Case) -> None:
    case.image.unlink()


def audio_is_missing(case: Case) -> None:
    case.audio.unlink()


def video_has_no_audio_stream(case: Case) -> None:
    case.audio = write_clip(case.folder / "mute.mp4", np.asarray(case.picture), None)


def audio_as_portrait(case: Case) -> None:
    case.image = case.audio


def picture_as_audio(case: Case) -> None:
    case.audio = case.image


def no_face(case: Case) -> None:
    ramp = np.linspace(0, 255, 256).astype(np.uint8)
    Image.fromarray(np.stack(np.broadcast_arrays(ramp, ramp[:, None], ramp), -1)).save(case.image)


def face_too_small(case: Case) -> None:
    case.paste(150).save(case.image, quality=95)


def face_too_small_though_enlarged(case: Case) -> None:
    face_too_small(case)
    case.options = ["--size", "2048"]


def face_in_profile(case: Case) -> None:
    Image.fromarray(skimage.data.camera()).save(case.image)


def face_that_is_not_there(case: Case) -> None:
    case.options = ["--face", "7"]


def output_directory_missing(case: Case) -> None:
    case.output = case.folder / "nowhere" / "out.mp4"


def output_below_a_file(case: Case) -> None:
    case.output = case.image / "out.mp4"


def output_is_a_directory(case: Case) -> None:
    (case.folder / "videos").mkdir()
    case.output = case.folder / "videos"


def output_in_a_place_nobody_can_write(case: Case) -> None:
    case.output = Path("/proc/out.mp4")


def output_exists(case: Case) -> None:
    case.output.write_bytes(b"precious")


def output_of_a_take_exists(case: Case) -> None:
    case.options = ["--takes", "3"]
    (case.folder / "out.take2.mp4").write_bytes(b"precious")


def motion_output_exists(case: Case) -> None:
    motion = case.folder / "motion.json"
    motion.write_text("precious")
    case.options = ["--export-motion", str(motion)]


def output_is_the_portrait(case: Case) -> None:
    case.output, case.options = case.image, ["--overwrite"]


def output_is_no_video_format(case: Case) -> None:
    case.output = case.folder / "out.docx"


def option(*options: str) -> Callable[[Case], None]:
    """A spoiler that gives an option outside its range."""

    def spoil(case: Case) -> None:
        case.options = list(options)

    spoil.__name__ = "option_" + "_".join(options).strip("-")
    return spoil


REFUSED: list[tuple[Callable[[Case], None], str]] = [
    (image_is_text, "face.jpg"),
    (audio_is_text, "voice.wav"),
    (image_is_truncated, "face.jpg"),
    (audio_is_truncated, "voice.m4a"),
    (image_is_empty, "face.jpg"),
    (audio_is_empty, "voice.wav"),
    (audio_has_no_samples, "voice.wav"),
    (audio_is_shorter_than_a_frame, "voice.wav"),
    (image_is_a_directory, "directory"),
    (audio_is_a_directory, "directory"),
    (image_is_missing, "face.jpg"),
    (audio_is_missing, "voice.wav"),
    (video_has_no_audio_stream, "mute.mp4"),
    (audio_as_portrait, "voice.wav"),
    (picture_as_audio, "face.jpg"),
    (no_face, "face"),
    (face_too_small, "48"),
    (face_too_small_though_enlarged, "48"),
    (face_in_profile, "face"),
    (face_that_is_not_there, "face"),
    (output_directory_missing, "nowhere"),
    (output_below_a_file, "out.mp4"),
    (output_is_a_directory, "videos"),
    (output_in_a_place_nobody_can_write, "out.mp4"),
    (output_exists, "--overwrite"),
    (output_of_a_take_exists, "out.take2.mp4"),
    (motion_output_exists, "motion.json"),
    (output_is_the_portrait, "input"),
    (output_is_no_video_format, "out.docx"),
    (option("--size", "huge"), "size"),
    (option("--size", "0"), "size"),
    (option("--fps", "-5"), "fps"),
    (option("--fps", "nan"), "fps"),
    (option("--seed", "-1"), "seed"),
    (option("--takes", "0"), "takes"),
    (option("--pose", "-1"), "pose"),
    (option("--blink", "nan"), "blink"),
    (option("--lips", "inf"), "lips"),
    (option("--device", "quantum"), "quantum"),
    (option("--progress", "maybe"), "progress"),
    (option("--no-such-option"), "--no-such-option"),
]


@pytest.mark.parametrize(("spoil", "named"), REFUSED, ids=[spoil.__name__ for spoil, _ in REFUSED])
def test_refused_in_one_line(spoil: Callable[[Case], None], named: str, case: Case, run: Run) -> None:
    spoil(case)
    before = case.files()
    check_refused(run(*case.arguments), named)
    assert case.files() == before, "nothing is left behind and nothing is touched"


def test_disk_full(case: Case, run: Run) -> None:
    before = case.files()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))  # no file of this process may grow larger
    try:
        outcome = run(*case.arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    check_refused(outcome, "out.mp4")
    assert case.files() == before


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(case: Case, samples: np.ndarray, signal_number: signal.Signals) -> None:
    write_wav(case.audio, np.tile(samples, 30))
    before = case.files()
    command = [sys.executable, "-m", "talkface.cli", *case.arguments, "--progress", "json"]

    # Background jobs of a shell ignore Ctrl-C, and so would what is started from one.
    def listen() -> None:
        signal.signal(signal_number, signal.SIG_DFL)

    # Between fork and exec there is one call, which takes no lock.
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=listen) as process:  # noqa: PLW1509
        assert process.stderr
        for line in process.stderr:
            step = json.loads(line)
            if step.get("stage") == "frames" and step["done"]:
                break
        process.send_signal(signal_number)
        rest = [line for line in process.stderr if not line.startswith("{")]
    assert process.returncode == 130
    assert rest == ["talkface: error: interrupted\n"]
    assert case.files() == before


# -- handled ---------------------------------------------------------------------------------------


def good(case: Case) -> None:
    pass


def alpha(case: Case) -> None:
    case.image = case.folder / "face.png"
    picture = case.picture.convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    picture.save(case.image)


def palette_with_transparency(case: Case) -> None:
    case.image = case.folder / "face.gif"
    case.picture.quantize().save(case.image, transparency=0)


def cmyk(case: Case) -> None:
    case.picture.convert("CMYK").save(case.image)


def sixteen_bits(case: Case) -> None:
    import cv2

    case.image = case.folder / "face.png"
    cv2.imwrite(str(case.image), np.asarray(case.picture)[..., ::-1].astype(np.uint16) * 257)


def sixteen_bits_grey(case: Case) -> None:
    case.image = case.folder / "face.png"
    Image.fromarray(np.asarray(case.picture.convert("L")).astype(np.uint16) * 257).save(case.image)


def greyscale(case: Case) -> None:
    case.picture.convert("L").save(case.image)


def exif_rotation(case: Case) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    upright = ImageOps.crop(case.picture, (56, 0, 56, 0))
    upright.transpose(Image.Transpose.ROTATE_90).save(case.image, exif=exif, quality=95)


def animated(case: Case) -> None:
    case.image = case.folder / "face.webp"
    grey = Image.new("RGB", case.picture.size, (128, 128, 128))
    case.picture.save(case.image, save_all=True, append_images=[grey], duration=100)


def hundred_megapixels(case: Case) -> None:
    case.picture.resize((10_000, 10_000), Image.Resampling.BILINEAR).save(case.image)
    case.options = ["--size", "512"]


def odd_size(case: Case) -> None:
    case.picture.crop((0, 0, 501, 487)).save(case.image)


def silent(case: Case) -> None:
    write_wav(case.audio, np.zeros(len(case.samples), np.int16))


def clipped(case: Case) -> None:
    write_wav(case.audio, np.where(case.samples > 0, 32767, -32768).astype(np.int16))


def not_a_number(case: Case) -> None:
    samples = (case.samples / 32768).astype("<f4")
    samples[1000:1100], samples[5000] = np.nan, np.inf
    data = samples.tobytes()
    head = struct.pack(
        "<4sI4s4sIHHIIHH", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 3, 1, RATE, 4 * RATE, 4, 32
    )
    case.audio.write_bytes(head + struct.pack("<4sI", b"data", len(data)) + data)


def eight_kilohertz(case: Case) -> None:
    write_wav(case.audio, case.samples[::2], RATE // 2)


def ninety_six_kilohertz(case: Case) -> None:
    write_wav(case.audio, np.repeat(case.samples, 6), 6 * RATE)


def six_channels(case: Case) -> None:
    write_wav(case.audio, np.stack([case.samples * 0] * 2 + [case.samples] + [case.samples * 0] * 3, -1))


def audio_inside_video(case: Case) -> None:
    case.audio = write_clip(case.folder / "film.mp4", np.asarray(case.picture), case.samples)


def odd_paths(case: Case) -> None:
    folder = case.folder / 'it\'s a "dir" of $HOME; %d été 日本 -x'
    folder.mkdir()
    case.image = Path(shutil.move(case.image, folder / "-face's $1 #1 é.jpg"))
    case.audio = Path(shutil.move(case.audio, folder / 'voice "日本" %s.wav'))
    case.output = folder / "out 'ü' $(x) :1.mp4"


HANDLED = [
    good,
    alpha,
    palette_with_transparency,
    cmyk,
    sixteen_bits,
    sixteen_bits_grey,
    greyscale,
    exif_rotation,
    animated,
    hundred_megapixels,
    odd_size,
    silent,
    clipped,
    not_a_number,
    eight_kilohertz,
    ninety_six_kilohertz,
    six_channels,
    audio_inside_video,
    odd_paths,
]


@pytest.mark.parametrize("prepare", HANDLED, ids=lambda prepare: prepare.__name__)
def test_handled(prepare: Callable[[Case], None], case: Case, run: Run) -> None:
    prepare(case)
    outcome = run(*case.arguments)
    assert outcome.code == 0, outcome
    assert outcome.err == []
    assert outcome.out == [str(case.output)]
    video = read_video(case.output)
    # An AAC stream in a film may end with the padding of its last block.
    assert video.frames in ((12, 13) if prepare is audio_inside_video else (12,))
    assert abs(video.sound_seconds - video.seconds) <= 1 / 25 + 1024 / 8000
    assert not [path for path in case.folder.rglob("*") if "partial" in path.name]
    if prepare is exif_rotation:
        assert video.size == (400, 512), "shown upright"


def test_several_faces_without_choice_takes_the_largest_and_says_so(case: Case, run: Run) -> None:
    both = Image.new("RGB", (900, 512))
    both.paste(case.picture, (0, 0))
    both.paste(case.picture.resize((388, 388)), (512, 0))
    both.save(case.image, quality=95)
    case.options = ["--size", "512"]
    outcome = run(*case.arguments)
    assert outcome.code == 0, outcome
    assert len(outcome.err) == 1
    assert outcome.err[0].startswith("talkface: warning: ")
    assert "face 0, the largest" in outcome.err[0]
    assert run(*case.arguments, "--face", "1", "--overwrite").err == []


@pytest.mark.skipif(os.name != "posix", reason="POSIX file modes")
def test_output_is_readable_by_others_as_usual(case: Case, run: Run) -> None:
    old = os.umask(0o022)
    try:
        assert run(*case.arguments).code == 0
    finally:
        os.umask(old)
    assert case.output.stat().st_mode & 0o777 == 0o644
