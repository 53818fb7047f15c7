"""``talkface fill``: what it writes and refuses with a tiny LDM, and what it shows with the shipped one."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import talkface
from conftest import RATE, Outcome, check_refused, read_video, write_wav
from media_samples import write_film
from talkface.data.prepare import list_items
from talkface.diffusion.autoencoder import FaceAutoencoder
from talkface.diffusion.critic import PortraitCritic
from talkface.diffusion.model import FaceDiffusion
from talkface.evaluation import evaluate_system
from talkface.evaluation.protocols import fill, pair
from talkface.evaluation.tracking import track_file
from talkface.face import topology as tp
from talkface.face.tracker import FaceTracker
from talkface.hub import save_pretrained
from talkface.media.video import VideoReader
from talkface.nn.marks import weights_mark
from talkface.systems.tccp.config import FACE
from talkface.systems.tccp.model import MVControlNet
from talkface.systems.tccp.pipeline import TccpPipeline

Run = Callable[..., Outcome]
SIDE, BOX = 192, (50, 30, 92, 124)


@dataclass(frozen=True)
class FillFiles:
    """A film of 12 frames, its speech, and a picture of whose face is to be filled in."""

    video: Path
    speech: Path
    identity: Path
    frames: list[np.ndarray]


@pytest.fixture(scope="module")
def files(
    tmp_path_factory: pytest.TempPathFactory, talking_frames: list[np.ndarray], samples: np.ndarray
) -> FillFiles:
    folder = tmp_path_factory.mktemp("scene")
    frames = [
        cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for image in talking_frames[10:22]
    ]
    Image.fromarray(talking_frames[0]).save(folder / "anna.png")
    return FillFiles(
        write_film(folder / "film.mp4", frames, Fraction(25)),
        write_wav(folder / "voice.wav", samples[RATE : RATE + RATE * 12 // 25]),
        folder / "anna.png",
        frames,
    )


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TccpPipeline]:
    """Loads all of fill for a device, with a tiny random LDM; what listens and moves is the shipped one."""
    folder = tmp_path_factory.mktemp("ldm")
    torch.manual_seed(0)
    model = FaceDiffusion.debug()
    parts = {
        "face-diffusion": model,
        "face-autoencoder": FaceAutoencoder.debug(),
        "portrait-critic": PortraitCritic.debug(),
    }
    for name, module in parts.items():
        config = {"class": type(module).__name__, "model": asdict(module.config)}
        save_pretrained(folder / name, config, module.state_dict(), dtype=torch.float32)
    net = MVControlNet(FACE, model)
    config = {"class": "MVControlNet", "model": asdict(FACE), "built_on": {"base": weights_mark(model)}}
    save_pretrained(folder / "tccp-video", config, net.state_dict())
    return cache(lambda device: TccpPipeline.from_pretrained(str(folder), device))


@pytest.fixture
def tiny(pipeline: Callable[[str], TccpPipeline], monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes ``talkface.fill`` take the tiny LDM."""
    # The command line, which these tests run, has no option for another pipeline.
    monkeypatch.setattr(talkface.api, "_tccp", pipeline)


def outside(box: tuple[int, int, int, int]) -> np.ndarray:
    """Pixels (SIDE, SIDE) that are well outside of a box, whatever an encoder does at its border."""
    left, top, width, height = box
    away = np.ones((SIDE, SIDE), bool)
    away[top - 8 : top + height + 8, left - 8 : left + width + 8] = False
    return away


# -- what it writes, with a tiny LDM ---------------------------------------------------------------


def test_a_box_is_filled_and_its_landmarks_are_drawn_again(
    files: FillFiles, tiny: None, tmp_path: Path, run: Run
) -> None:
    one, landmarks = tmp_path / "one.mp4", tmp_path / "lm.json"
    given = [files.video, files.speech, "--identity", files.identity, "--mask", ",".join(map(str, BOX))]
    outcome = run("fill", *given, "-o", one, "--landmarks-out", landmarks)
    assert outcome.code == 0, outcome
    assert outcome.out == [str(one)]
    video = read_video(one)
    assert (video.frames, video.fps, video.size) == (12, 25, (SIDE, SIDE))
    assert video.sound_seconds == pytest.approx(12 / 25, abs=0.1)
    assert video.metadata["synthetic"] == "true"
    assert "tccp" in video.metadata["comment"]
    for frame, real in zip(VideoReader(one), files.frames, strict=True):
        assert np.abs(frame.image.astype(int) - real)[outside(BOX)].mean() < 4
    written = json.loads(landmarks.read_text())
    assert len(written["times"]) == len(written["place"]) == len(written["beta_mouth"]) == 12

    drawn_from: dict[str, object] = {"identity": files.identity, "mask": ",".join(map(str, BOX)), "stop": 0.2}
    found = talkface.fill(files.video, files.speech, **drawn_from)[0]
    first = found.save_landmarks(tmp_path / "first.json")
    drawn = talkface.fill(files.video, files.speech, **drawn_from, landmarks=first)[0]
    for one, again in zip(found, drawn, strict=True):
        assert np.abs(one.astype(int) - again).mean() < 0.2
    assert run("fill", *given, "--stop", 0.2, "-o", tmp_path / "again.mp4", "--landmarks", first).code == 0


def test_a_mask_video_of_other_size_and_length_is_stretched(
    files: FillFiles, tiny: None, tmp_path: Path, run: Run
) -> None:
    masks = [np.zeros((96, 96, 3), np.uint8) for _ in range(6)]
    for k, mask in enumerate(masks):
        mask[15:77, 25 + k : 71 + k] = 255
    write_film(tmp_path / "mask.mp4", masks, Fraction(25))
    outcome = run(
        "fill", files.video, files.speech, "--identity", files.identity, "-o", tmp_path / "out.mp4",
        "--mask", tmp_path / "mask.mp4", "--stop", "0.2",
    )  # fmt: skip
    assert outcome.code == 0, outcome
    assert "96 x 96" in outcome.err[0]
    assert read_video(tmp_path / "out.mp4").frames == 5


# -- refused ---------------------------------------------------------------------------------------


def _painted(folder: Path, name: str, *boxes: tuple[int, int, int, int]) -> Path:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for left, top, width, height in boxes:
        mask[top : top + height, left : left + width] = 255
    Image.fromarray(mask).save(folder / name)
    return folder / name


@pytest.fixture(scope="module")
def wrong(files: FillFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures, masks and landmarks with which something is wrong."""
    folder = tmp_path_factory.mktemp("wrong")
    Image.fromarray(np.full((SIDE, SIDE, 3), 90, np.uint8)).save(folder / "nobody.png")
    Image.fromarray(np.concatenate([files.frames[0]] * 2, 1)).save(folder / "couple.png")
    _painted(folder, "nothing.png")
    _painted(folder, "all.png", (0, 0, SIDE, SIDE))
    _painted(folder, "small.png", (60, 60, 20, 20))
    (folder / "text.json").write_text("no landmarks")
    (folder / "text.mp4").write_text("no film" * 100)
    (folder / "other.json").write_text(json.dumps({"format": "talkface.Landmarks/1", "times": [0.0]}))
    write_film(folder / "grey.mp4", [np.full((SIDE, SIDE, 3), 90, np.uint8)] * 12, Fraction(25))
    return folder


REFUSED: dict[str, tuple[list[object], str]] = {
    "identity_missing": (["--identity", "FOLDER/none.png"], "none.png"),
    "identity_nobody": (["--identity", "FOLDER/nobody.png"], "no face found in nobody.png"),
    "identity_several": (["--identity", "FOLDER/couple.png"], "2 faces"),
    "identity_speech": (["--identity", "SPEECH"], "voice.wav"),
    "mask_missing": (["--mask", "FOLDER/none.png"], "none.png"),
    "mask_nothing": (["--mask", "FOLDER/nothing.png"], "covers nothing"),
    "mask_everything": (["--mask", "FOLDER/all.png"], "everything"),
    "mask_small": (["--mask", "FOLDER/small.png"], "no head fits"),
    "mask_outside": (["--mask", "500,10,90,90"], "leaves the frame"),
    "mask_words": (["--mask", "a,b,c,d"], "x,y,w,h"),
    "mask_black_video": (["--mask", "FOLDER/grey.mp4"], "no hole"),
    "mask_text": (["--mask", "FOLDER/text.mp4"], "text.mp4"),
    "face": (["--face", 3], "face is 3"),
    "margin": (["--margin", 9], "margin is 9"),
    "sync_mode": (["--sync-mode", "magic"], "magic"),
    "takes": (["--takes", 0], "takes"),
    "steps": (["--steps", 0], "steps is 0"),
    "resolution": (["--resolution", 300], "choose 256 or 512"),
    "seed": (["--seed", -1], "seed is -1"),
    "landmarks_text": (["--landmarks", "FOLDER/text.json"], "no landmarks"),
    "landmarks_other": (["--landmarks", "FOLDER/other.json"], "no landmarks"),
    "stretch": (["--start", "9", "--stop", "10"], "over before 9 s"),
    "device": (["--device", "abacus"], "abacus"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(
    name: str, files: FillFiles, wrong: Path, tiny: None, tmp_path: Path, run: Run
) -> None:
    given, named = REFUSED[name]
    identity = [] if "--identity" in given else ["--identity", files.identity]
    given = [str(part).replace("SPEECH", str(files.speech)).replace("FOLDER", str(wrong)) for part in given]
    outcome = run("fill", files.video, files.speech, *identity, *given, "-o", tmp_path / "out.mp4")
    check_refused(outcome, named)
    assert not list(tmp_path.iterdir())


def test_what_shows_nobody_needs_a_mask(
    files: FillFiles, wrong: Path, tiny: None, tmp_path: Path, run: Run
) -> None:
    given = [wrong / "grey.mp4", files.speech, "--identity", files.identity, "-o", tmp_path / "out.mp4"]
    check_refused(run("fill", *given), "face")
    assert run("fill", *given, "--mask", ",".join(map(str, BOX)), "--stop", "0.08").code == 0


def test_landmarks_of_another_length_are_refused(
    files: FillFiles, tiny: None, tmp_path: Path, run: Run
) -> None:
    given = [files.video, files.speech, "--identity", files.identity]
    short = [*given, "--stop", "0.2", "-o", tmp_path / "short.mp4", "--landmarks-out", tmp_path / "lm.json"]
    assert run("fill", *short).code == 0
    outcome = run("fill", *given, "-o", tmp_path / "out.mp4", "--landmarks", tmp_path / "lm.json")
    check_refused(outcome, "5 frames")
    assert not (tmp_path / "out.mp4").exists()


# -- with the shipped LDM ------------------------------------------------------------------------


@pytest.mark.slow
def test_the_face_is_there_and_it_is_the_asked_one(files: FillFiles) -> None:
    take = talkface.fill(files.video, files.speech, identity=files.identity)[0]
    made, tracker = list(take), FaceTracker()
    assert len(made) == len(take) == 12
    for image, real in zip(made, files.frames, strict=True):
        seen, hidden = (tracker.track_image(each)[0].points for each in (image, real))
        away = np.linalg.norm((seen - hidden)[:, :2], axis=1).mean()
        assert away < 0.15 * tp.inter_ocular(hidden)
        assert np.abs(image.astype(int) - real).mean() < 12


@pytest.mark.slow
def test_somebody_imagined_is_filled_in_twice(
    files: FillFiles, speech: Path, tmp_path: Path, run: Run
) -> None:
    outcome = run(
        "fill", files.video, speech, "--identity", "imagined", "-o", tmp_path / "out.mp4",
        "--takes", 2, "--stop", "0.04",
    )  # fmt: skip
    assert outcome.code == 0, outcome
    assert outcome.out == [str(tmp_path / f"out.take{k}.mp4") for k in (1, 2)]
    one, two = (next(iter(VideoReader(path))).image for path in outcome.out)
    assert FaceTracker().track_image(one)
    assert np.abs(one.astype(int) - files.frames[0]).max() > 30
    assert np.abs(one.astype(int) - two).max() > 30, "two people"


# -- measured --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_is_measured_beside_its_baselines(
    files: FillFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair, "SAMPLED_FRAMES", 2)  # for the recognisers, which are slow
    monkeypatch.setattr(fill, "COMPARED_FRAMES", 2)
    folder = tmp_path / "data"
    folder.mkdir()
    film = talkface.animate(files.identity, files.speech, size=SIDE)[0]
    film.save(folder / "a.mp4")
    assert track_file(folder / "a.mp4", FaceTracker()).found.all()
    split = list_items(folder)[0].split
    result = evaluate_system("fill", folder, tmp_path / "report", split=split)
    assert set(result["tests"]) == {"real", "fill", "chained", "framewise", "controlnet", "pasted"}
    figures = result["tests"]["fill"]["groups"]["all"]
    assert figures["outside_difference"]["mean"] < 4
    assert figures["hole_psnr"]["mean"] > 15
    assert (tmp_path / "report" / "report.html").is_file()
    shutil.rmtree(tmp_path / "report")
