"""``talkface imagine``: what it writes and refuses, with people drawn in a step; whom it shows."""

import io
import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import talkface
from conftest import RATE, Outcome, check_refused, read_video, write_wav
from talkface.cli import main
from talkface.data.prepare import list_items
from talkface.evaluation import evaluate_system
from talkface.face.tracker import FaceTracker
from talkface.media.video import VideoReader
from talkface.systems.imagineid.config import EMOTIONS

Run = Callable[..., Outcome]
MOVES = 0.005  # standard deviation of the opening of lips that speak, in inter-ocular distances


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory, samples: np.ndarray) -> Path:
    """Two seconds of a man's voice."""
    return write_wav(tmp_path_factory.mktemp("voice") / "voice.wav", samples[RATE : 3 * RATE])


@pytest.fixture(scope="module")
def higher(tmp_path_factory: pytest.TempPathFactory, samples: np.ndarray) -> Path:
    """The same words, three quarters as long and higher: as from a smaller throat."""
    part = samples[RATE : 4 * RATE].astype(float)
    short = np.interp(np.arange(0, len(part), 1.5), np.arange(len(part)), part)
    return write_wav(tmp_path_factory.mktemp("voice") / "higher.wav", short)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped LDM, for ``--base``, without what finishes its drafts: a person in a second."""
    folder, shipped = tmp_path_factory.mktemp("ldm"), Path(talkface.__file__).parent / "weights" / "compact"
    for name in ("face-diffusion", "face-autoencoder", "portrait-critic"):
        shutil.copytree(shipped / name, folder / name)
    return folder


# -- what it writes, of people drawn in a step --------------------------------------------------------


@pytest.mark.slow
def test_two_people_speak_and_are_explained(speech: Path, base: Path, tmp_path: Path, run: Run) -> None:
    two = write_two(speech, 30, tmp_path, run, "--base", base, "--steps", 1)
    assert len(list(tmp_path.iterdir())) == 6
    assert (two.portraits[0] != two.portraits[1]).any()


@dataclass(frozen=True)
class Two:
    """What ``imagine --takes 2`` wrote."""

    videos: list[Path]
    portraits: list[np.ndarray]
    explanations: list[dict]


def write_two(voice: Path, frames: int, folder: Path, run: Run, *options: object) -> Two:
    """Imagine two people who say so many frames of speech, and look at the form of all that is written."""
    outcome = run(
        "imagine", voice, "-o", folder / "out.mp4", "--takes", 2, "--seed", 5,
        "--prompt", "a man with quixotic glasses", "--portrait-out", folder / "p.png",
        "--explain", folder / "why.json", *options,
    )  # fmt: skip
    assert outcome.code == 0, outcome
    videos = [folder / f"out.take{k}.mp4" for k in (1, 2)]
    assert outcome.out == [str(path) for path in videos]
    assert "quixotic" in outcome.err[0]
    for path in videos:
        video = read_video(path)
        assert (video.frames, video.fps, video.size) == (frames, 25, (256, 256))
        assert video.sound_seconds == pytest.approx(frames / 25, abs=0.1)
        assert video.metadata["synthetic"] == "true"
        assert "imagineid" in video.metadata["comment"]
    portraits = [np.asarray(Image.open(folder / f"p.take{k}.png")) for k in (1, 2)]
    assert [portrait.shape for portrait in portraits] == [(256, 256, 3)] * 2
    explanations = [json.loads((folder / f"why.take{k}.json").read_text()) for k in (1, 2)]
    for why in explanations:
        check_explanation(why, frames)
    return Two(videos, portraits, explanations)


def check_explanation(why: dict, frames: int) -> None:
    assert why["identity"]["male"]["probability"] > 0.5
    assert why["identity"]["age"]["spread"] > 0
    assert len(why["identity"]["shape"]["alpha"]) == len(why["identity"]["shape"]["spread"])
    assert why["portrait"]["ignored_words"] == ["quixotic"]
    assert "glasses" in why["portrait"]["caption"]
    assert why["emotion"]["names"] == list(EMOTIONS)
    np.testing.assert_allclose(np.sum(why["emotion"]["probabilities"], 1), 1, atol=0.01)
    assert len(why["emotion"]["probabilities"]) == frames // 5
    assert len(why["content"]["opening"]) == frames
    assert np.std(why["content"]["opening"]) > MOVES


@pytest.mark.slow
def test_same_seed_same_person_at_any_size(speech: Path, base: Path) -> None:
    one, other = talkface.imagine(speech, seed=3, takes=2, steps=1, base=str(base))
    again = talkface.imagine(speech, seed=3, size=512, steps=1, base=str(base))[0]
    small, large, stranger = (next(iter(take)) for take in (one, again, other))
    np.testing.assert_array_equal(one.imagined.image, again.imagined.image)
    np.testing.assert_array_equal(one.motion.rotation, again.motion.rotation)
    assert (small != stranger).any()
    assert again.size == (512, 512)
    assert large.shape == (512, 512, 3)
    tracker = FaceTracker()
    eyes = [tracker.track_image(image)[0].points[[33, 263], :2] for image in (small, large)]
    np.testing.assert_allclose(eyes[1], 2 * eyes[0], atol=8)


@pytest.mark.slow
def test_identity_content_and_emotion_come_from_three_recordings(
    speech: Path, higher: Path, base: Path
) -> None:
    def explained(**options: object) -> dict:
        take = talkface.imagine(speech, seed=2, steps=1, base=str(base), **options)[0]
        next(iter(take))
        return take.explain()

    own, mixed = explained(), explained(identity_from=higher, emotion="happy")
    assert own["identity"]["male"] != mixed["identity"]["male"]
    opening = [np.array(one["content"]["opening"]) for one in (own, mixed)]
    assert len(opening[0]) == len(opening[1]) >= 20
    assert np.corrcoef(opening[0], opening[1])[0, 1] > 0.7
    assert {tuple(row) for row in mixed["emotion"]["probabilities"]} == {
        tuple(np.eye(8)[EMOTIONS.index("happy")])
    }
    taken = explained(emotion_from=higher)
    assert taken["identity"] == own["identity"]
    assert len({tuple(row) for row in taken["emotion"]["probabilities"]}) == 1


def test_the_prompt_decides_what_the_voice_does_not(speech: Path, base: Path) -> None:
    take = talkface.imagine(speech, prompt="an old woman with a hat", steps=1, base=str(base))[0]
    words = take.imagined.caption.split(", ")
    assert "man" not in words
    assert take.imagined.ignored == []


@pytest.mark.slow
def test_frames_and_sound_are_as_long_as_the_speech(samples: np.ndarray, base: Path, tmp_path: Path) -> None:
    speech = write_wav(tmp_path / "speech.wav", samples[RATE : RATE + round(4.03 * RATE)])
    path = talkface.imagine(speech, steps=1, base=str(base)).save(tmp_path / "out.mp4")[0]
    video = read_video(path)
    assert video.frames == 101
    assert video.sound_seconds == pytest.approx(4.03, abs=0.1)


# -- unusual input ---------------------------------------------------------------------------------


def test_two_voices_are_said(
    samples: np.ndarray, base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    low = samples[RATE : 9 * RATE].astype(float)
    deep = np.interp(np.arange(0, len(low), 0.8), np.arange(len(low)), low)
    high = np.interp(np.arange(0, len(low), 1.7), np.arange(len(low)), low)
    both = write_wav(tmp_path / "both.wav", np.concatenate([deep, high, high]))
    assert len(talkface.imagine(both, steps=1, base=str(base))) == 1
    assert "several voices" in caplog.text


@pytest.mark.parametrize("prompt", ["glasses " * 300, "\u00e9\u4e2d\u6587 \U0001f600 --- ;; \x00"])
def test_any_prompt_is_read(speech: Path, base: Path, prompt: str) -> None:
    take = talkface.imagine(speech, prompt=prompt, steps=1, base=str(base))[0]
    assert take.portrait.shape == (256, 256, 3)


# -- refused ---------------------------------------------------------------------------------------


def _noise(folder: Path) -> list[object]:
    noise = np.random.default_rng(0).normal(0, 3000, 4 * RATE)
    return [write_wav(folder / "in.wav", noise.clip(-32768, 32767))]


def _silence(folder: Path) -> list[object]:
    return [write_wav(folder / "in.wav", np.zeros(3 * RATE))]


def _music(folder: Path) -> list[object]:
    time = np.arange(4 * RATE) / RATE
    chord = sum(np.sin(2 * np.pi * hertz * time) for hertz in (262, 330, 392, 523)) * np.exp(
        -(time % 0.5) * 4
    )
    return [write_wav(folder / "in.wav", 6000 * chord)]


REFUSED: dict[str, tuple[Callable[[Path], list[object]] | list[object], str]] = {
    "noise": (_noise, "of voice"),
    "silence": (_silence, "of voice"),
    "music": (_music, "of voice"),
    "size": (["VOICE", "--size", 300], "size is 300"),
    "steps": (["VOICE", "--steps", 0], "steps is 0"),
    "many_steps": (["VOICE", "--steps", 1000], "steps is 1000"),
    "guidance": (["VOICE", "--guidance", -1], "guidance is -1"),
    "emotion": (["VOICE", "--emotion", "jolly"], "jolly"),
    "two_emotions": (["VOICE", "--emotion", "sad", "--emotion-from", "VOICE"], "not both"),
    "renderer": (["VOICE", "--renderer", "magic"], "renderer is magic"),
    "takes": (["VOICE", "--takes", 0], "takes"),
    "seed": (["VOICE", "--seed", -1], "seed is -1"),
    "base": (["VOICE", "--base", "nothing/there/at/all"], "base model"),
    "portrait": (["VOICE", "--portrait-out", "FOLDER/p.txt"], "p.txt"),
    "identity": (["VOICE", "--identity-from", "FOLDER/none.wav"], "none.wav"),
    "device": (["VOICE", "--device", "abacus"], "abacus"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(name: str, voice: Path, base: Path, tmp_path: Path, run: Run) -> None:
    make, named = REFUSED[name]
    given = make(tmp_path) if callable(make) else make
    given = given if "--base" in given else [*given, "--base", base]
    given = [str(part).replace("VOICE", str(voice)).replace("FOLDER", str(tmp_path)) for part in given]
    before = set(tmp_path.iterdir())
    outcome = run("imagine", *given, "-o", tmp_path / "out.mp4")
    check_refused(outcome, named)
    assert set(tmp_path.iterdir()) == before


def test_short_speech_is_refused(samples: np.ndarray, base: Path, tmp_path: Path, run: Run) -> None:
    speech = write_wav(tmp_path / "short.wav", samples[RATE : RATE + RATE // 2])
    check_refused(run("imagine", speech, "-o", tmp_path / "out.mp4", "--base", base), "at least 1 s")


# -- people, with the shipped LDM -------------------------------------------------------------------


@pytest.fixture(scope="module")
def people(voice: Path, tmp_path_factory: pytest.TempPathFactory) -> Two:
    """Two people of one voice."""

    def run(*arguments: object) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main([str(argument) for argument in arguments])
        return Outcome(code, out.getvalue().splitlines(), err.getvalue().splitlines())

    return write_two(voice, 50, tmp_path_factory.mktemp("people"), run)


@pytest.mark.slow
def test_two_takes_are_two_people_on_their_meshes(people: Two) -> None:
    one, two = (portrait.astype(int) for portrait in people.portraits)
    assert np.abs(one - two).mean() > 8
    assert all(why["portrait"]["mesh_adherence"] < 0.1 for why in people.explanations)


@pytest.mark.slow
def test_the_person_speaks(people: Two) -> None:
    with VideoReader(people.videos[0]) as reader:
        tracks = FaceTracker().track_video((frame.time, frame.image) for frame in reader)
    assert tracks
    assert tracks[0].found.mean() > 0.98


@pytest.mark.slow
def test_a_person_is_the_same_when_imagined_again(people: Two, voice: Path) -> None:
    """However large: the first of the two people is asked for by the seed alone."""
    again = talkface.imagine(voice, seed=5, prompt="a man with quixotic glasses", size=512)[0]
    np.testing.assert_array_equal(again.imagined.image, people.portraits[0])


# -- measured --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_is_measured_beside_real_people(talking: Path, tmp_path: Path) -> None:
    """Of a folder that is not prepared, videos are scored; what needs held-out voices is left out."""
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copy(talking, folder / "a.mp4")
    result = evaluate_system("imagine", folder, tmp_path / "report", split=_split(folder))
    assert list(result["tests"]) == ["videos"]
    figures = result["tests"]["videos"]["groups"]["all"]
    assert figures["face_found"]["mean"] == 1.0
    assert figures["mesh_adherence"]["mean"] < 0.06
    assert figures["background_drift"]["mean"] < 1.5
    assert (tmp_path / "report" / "report.html").is_file()


def _split(folder: Path) -> str:
    """Which part of the data a plain folder falls to."""
    return list_items(folder)[0].split
