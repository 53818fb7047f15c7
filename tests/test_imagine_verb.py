"""``talkface imagine`` with the shipped models: what it writes, what it refuses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import talkface
from conftest import RATE, Outcome, check_refused, read_video, write_wav
from talkface.data.prepare import list_items
from talkface.evaluation import evaluate_system
from talkface.face.tracker import FaceTracker
from talkface.media.video import VideoReader
from talkface.systems.imagineid.config import EMOTIONS

Run = Callable[..., Outcome]


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


# -- what it writes --------------------------------------------------------------------------------


def test_two_people_speak_and_are_explained(voice: Path, tmp_path: Path, run: Run):
    outcome = run(
        "imagine", voice, "-o", tmp_path / "out.mp4", "--takes", 2, "--seed", 5,
        "--prompt", "a man with quixotic glasses", "--portrait-out", tmp_path / "p.png",
        "--explain", tmp_path / "why.json",
    )  # fmt: skip
    assert outcome.code == 0, outcome
    assert outcome.out == [str(tmp_path / f"out.take{k}.mp4") for k in (1, 2)]
    assert "quixotic" in outcome.err[0]
    portraits = []
    for take in (1, 2):
        video = read_video(tmp_path / f"out.take{take}.mp4")
        assert (video.frames, video.fps, video.size) == (50, 25, (256, 256))
        assert video.sound_seconds == pytest.approx(2.0, abs=0.1)
        assert video.metadata["synthetic"] == "true"
        assert "imagineid" in video.metadata["comment"]
        portraits.append(np.asarray(Image.open(tmp_path / f"p.take{take}.png")).astype(int))
        assert portraits[-1].shape == (256, 256, 3)
        check_explanation(json.loads((tmp_path / f"why.take{take}.json").read_text()))
    assert np.abs(portraits[0] - portraits[1]).mean() > 8
    assert len(list(tmp_path.iterdir())) == 6


def check_explanation(why: dict) -> None:
    assert why["identity"]["male"]["probability"] > 0.5
    assert why["identity"]["age"]["spread"] > 0
    assert len(why["identity"]["shape"]["alpha"]) == len(why["identity"]["shape"]["spread"])
    assert why["portrait"]["ignored_words"] == ["quixotic"]
    assert "glasses" in why["portrait"]["caption"]
    assert why["portrait"]["mesh_adherence"] < 0.1
    assert why["emotion"]["names"] == list(EMOTIONS)
    np.testing.assert_allclose(np.sum(why["emotion"]["probabilities"], 1), 1, atol=0.01)
    assert len(why["emotion"]["probabilities"]) == 10
    assert len(why["content"]["opening"]) == 50
    assert np.std(why["content"]["opening"]) > 0.005


def test_same_seed_same_person(voice: Path):
    frames = [next(iter(talkface.imagine(voice, seed=3, steps=2)[0])) for _ in range(2)]
    np.testing.assert_array_equal(*frames)
    other = next(iter(talkface.imagine(voice, seed=4, steps=2)[0]))
    assert (other != frames[0]).any()


def test_a_take_is_one_person_at_any_size(voice: Path):
    small, large = (talkface.imagine(voice, seed=1, size=size)[0] for size in (256, 512))
    assert large.size == (512, 512)
    tracker = FaceTracker()
    first = next(iter(large))
    assert first.shape == (512, 512, 3)
    eyes = [tracker.track_image(image)[0].points[[33, 263], :2] for image in (next(iter(small)), first)]
    np.testing.assert_allclose(eyes[1], 2 * eyes[0], atol=8)


def test_identity_content_and_emotion_come_from_three_recordings(voice: Path, higher: Path, tmp_path: Path):
    def explained(**options: object) -> dict:
        take = talkface.imagine(voice, seed=2, steps=2, **options)[0]
        for _ in take:
            pass
        return take.explain()

    own, other, glad = explained(), explained(identity_from=higher), explained(emotion="happy")
    assert own["identity"]["male"] != other["identity"]["male"]
    opening = [np.array(one["content"]["opening"]) for one in (own, other, glad)]
    assert np.corrcoef(opening[0], opening[1])[0, 1] > 0.7
    assert own["identity"] == glad["identity"]
    assert {tuple(row) for row in glad["emotion"]["probabilities"]} == {
        tuple(np.eye(8)[EMOTIONS.index("happy")])
    }
    taken = explained(emotion_from=higher)
    assert len({tuple(row) for row in taken["emotion"]["probabilities"]}) == 1


def test_the_prompt_decides_what_the_voice_does_not(voice: Path):
    take = talkface.imagine(voice, prompt="an old woman with a hat")[0]
    words = take.imagined.caption.split(", ")
    assert "man" not in words
    assert take.imagined.ignored == []


@pytest.mark.parametrize("seconds", [1.5, 4.04])
def test_frames_and_sound_are_as_long_as_the_speech(seconds: float, samples: np.ndarray, tmp_path: Path):
    speech = write_wav(tmp_path / "speech.wav", samples[RATE : RATE + round(seconds * RATE)])
    path = talkface.imagine(speech, steps=2).save(tmp_path / "out.mp4")[0]
    video = read_video(path)
    assert video.frames == round(seconds * 25)


def test_the_person_speaks(voice: Path, tmp_path: Path):
    path = talkface.imagine(voice, seed=1).save(tmp_path / "out.mp4")[0]
    with VideoReader(path) as reader:
        tracks = FaceTracker().track_video((frame.time, frame.image) for frame in reader)
    assert tracks
    assert tracks[0].found.mean() > 0.98


# -- unusual input ---------------------------------------------------------------------------------


def test_two_voices_are_said(voice: Path, higher: Path, samples: np.ndarray, tmp_path: Path, run: Run):
    low = samples[RATE : 9 * RATE].astype(float)
    deep = np.interp(np.arange(0, len(low), 0.8), np.arange(len(low)), low)
    high = np.interp(np.arange(0, len(low), 1.7), np.arange(len(low)), low)
    both = write_wav(tmp_path / "both.wav", np.concatenate([deep, high, high]))
    outcome = run("imagine", both, "-o", tmp_path / "out.mp4", "--steps", 1)
    assert outcome.code == 0
    assert any("several voices" in line for line in outcome.err), outcome.err


@pytest.mark.parametrize("prompt", ["", "glasses " * 300, "\u00e9\u4e2d\u6587 \U0001f600", "--- ;; \x00"])
def test_any_prompt_is_read(voice: Path, prompt: str):
    assert talkface.imagine(voice, prompt=prompt, steps=1)[0].portrait.shape == (256, 256, 3)


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
def test_refused_in_one_line(name: str, voice: Path, tmp_path: Path, run: Run):
    make, named = REFUSED[name]
    given = make(tmp_path) if callable(make) else make
    given = [str(part).replace("VOICE", str(voice)).replace("FOLDER", str(tmp_path)) for part in given]
    before = set(tmp_path.iterdir())
    outcome = run("imagine", *given, "-o", tmp_path / "out.mp4")
    check_refused(outcome, named)
    assert set(tmp_path.iterdir()) == before


def test_short_speech_is_refused(samples: np.ndarray, tmp_path: Path, run: Run):
    speech = write_wav(tmp_path / "short.wav", samples[RATE : RATE + RATE // 2])
    check_refused(run("imagine", speech, "-o", tmp_path / "out.mp4"), "at least 1 s")


# -- measured --------------------------------------------------------------------------------------


def test_it_is_measured_beside_real_people(talking: Path, tmp_path: Path):
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
