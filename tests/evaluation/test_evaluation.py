"""``talkface evaluate`` on short videos."""

import csv
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from syncnet_sample import save_syncnet

import talkface
from conftest import RATE, Outcome, check_refused, write_wav
from talkface.cli import main
from talkface.cli.workshop import WITHOUT
from talkface.data.manifest import Item
from talkface.errors import ModelUnavailable
from talkface.evaluation import evaluate_pairs, evaluate_system
from talkface.evaluation.figures.fidelity import FrameFidelity, mouth_box
from talkface.evaluation.judges.own import OwnJudge
from talkface.evaluation.judges.sync import verdict
from talkface.evaluation.protocols import pair
from talkface.evaluation.protocols.clips import aligned_frames
from talkface.evaluation.protocols.dub import jobs, other_speech
from talkface.evaluation.tracking import track_file
from talkface.face import topology as tp
from talkface.face.masks import lower_face_mask
from talkface.face.tracker import FaceTrack, FaceTracker
from talkface.hub import save_pretrained
from talkface.media.video import VideoReader, VideoWriter
from talkface.systems.g4g.experts import SyncExpert, SyncExpertConfig
from talkface.systems.imagineid.pipeline import ImagineIdPipeline
from talkface.systems.imagineid.portrait import ABLATIONS as IMAGINE_ABLATIONS
from talkface.systems.imagineid.portrait import PortraitOptions
from talkface.systems.tccp.pipeline import ABLATIONS as FILL_ABLATIONS


@pytest.fixture(scope="module", autouse=True)
def few_samples() -> Iterator[None]:
    """Two frames of each clip are described, instead of eight: dlib is slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair, "SAMPLED_FRAMES", 2)
        yield


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory, samples: np.ndarray) -> Path:
    """A folder with two short videos of our own making in ``two``, the first also alone in ``clips``."""
    folder = tmp_path_factory.mktemp("real")
    for name in ("two", "clips"):
        (folder / name).mkdir()
    for name, start in (("a", 0), ("b", 4)):
        speech = write_wav(folder / f"{name}.wav", samples[start * RATE : (start + 1) * RATE + RATE // 2])
        video = folder / "two" / f"{name}.mp4"
        talkface.animate(talkface.example_portrait(), speech, size=256, seed=start).save(video)
    shutil.copy(folder / "two" / "a.mp4", folder / "clips")
    return folder


@pytest.fixture(scope="module")
def track(talking: Path) -> FaceTrack:
    """The face of the first video."""
    return track_file(talking / "two" / "a.mp4", FaceTracker())


def with_changed_frames(
    source: Path, target: Path, change: Callable[[np.ndarray, int], np.ndarray], sound: Path | None = None
) -> Path:
    """Write a video anew, with ``change(image, number)`` for each frame."""
    with (
        VideoReader(source) as reader,
        VideoWriter(target, reader.size, reader.fps, sound or source) as writer,
    ):
        for number, frame in enumerate(reader):
            writer.write(change(frame.image.copy(), number))
    return target


@pytest.fixture(scope="module")
def itself(talking: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The report's folder and the figures of a video beside itself, with SyncNet's."""
    folder, clips = tmp_path_factory.mktemp("itself"), talking / "clips"
    syncnet = save_syncnet(tmp_path_factory.mktemp("syncnet")) / "syncnet.safetensors"
    result = evaluate_pairs(clips, clips, folder, syncnet=syncnet)
    return folder, result["groups"]["all"]


def test_a_video_beside_itself_is_perfect(itself: tuple[Path, dict[str, Any]]) -> None:
    folder, figures = itself
    assert figures["aperture_r"]["mean"] == pytest.approx(1, abs=1e-4)
    assert figures["mouth_lmd"]["mean"] == pytest.approx(0, abs=1e-4)
    assert figures["offset_frames"] == 0
    assert figures["ratio_to_real"]["jitter"] == 1.0
    assert figures["mouth_psnr"]["mean"] == figures["frame_psnr"]["mean"] == float("inf")
    for name in ("mouth_ssim", "seam", "flicker", "mouth_sharpness"):
        assert figures[name]["mean"] == pytest.approx(1, abs=1e-4), name
    assert figures["outside_difference"]["mean"] == 0
    rows = list(csv.DictReader((folder / "clips.csv").open()))
    assert [row["name"] for row in rows] == ["a"]
    assert list((folder / "sheets").glob("*.png"))


def test_a_blurred_mouth_scores_lower_and_only_there(
    talking: Path, track: FaceTrack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def blur(image: np.ndarray, number: int) -> np.ndarray:
        box = mouth_box(track.points[number], image.shape[1::-1])
        image[box] = cv2.GaussianBlur(image[box], (0, 0), 3)
        return image

    real = talking / "two" / "a.mp4"
    made = with_changed_frames(real, tmp_path / "blurred.mp4", blur)
    again = with_changed_frames(real, tmp_path / "again.mp4", lambda image, _: image)
    scores = {}
    for video in (made, again):
        assert main(["evaluate", str(real), str(video), "-o", str(tmp_path / video.stem)]) == 0
        assert "mouth_psnr" in capsys.readouterr().out
        figures = json.loads((tmp_path / video.stem / "report.json").read_text())["groups"]["all"]
        scores[video.stem] = {k: v["mean"] for k, v in figures.items() if isinstance(v, dict) and "mean" in v}
    blurred, encoded = scores["blurred"], scores["again"]
    assert blurred["mouth_psnr"] < encoded["mouth_psnr"] - 3
    assert blurred["mouth_ssim"] < encoded["mouth_ssim"] - 0.03
    assert blurred["mouth_sharpness"] < 0.7 * encoded["mouth_sharpness"]
    assert encoded["mouth_sharpness"] == pytest.approx(1, abs=0.2)
    assert blurred["outside_difference"] == pytest.approx(encoded["outside_difference"], abs=0.3)
    page = (tmp_path / "blurred" / "report.html").read_text()
    assert "mouth_psnr" in page
    assert "data:image/jpeg;base64," in page
    assert 'src="sheets' not in page  # it needs nothing beside it


def test_videos_of_other_sizes_are_compared_by_their_lips(talking: Path, tmp_path: Path) -> None:
    real = talking / "two" / "a.mp4"
    with VideoReader(real) as reader, VideoWriter(tmp_path / "small.mp4", (208, 208), 25, real) as writer:
        for frame in reader:
            writer.write(cv2.resize(frame.image, (208, 208), interpolation=cv2.INTER_AREA))
    figures = evaluate_pairs(real, tmp_path / "small.mp4", tmp_path / "report")["groups"]["all"]
    assert figures["aperture_r"]["mean"] > 0.7
    assert "mouth_sharpness" in figures
    assert not {"mouth_psnr", "frame_psnr", "seam", "outside_difference"} & figures.keys()


@pytest.mark.slow
def test_evaluate_generates_and_scores_a_folder(
    talking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):  # the split of a single speaker is drawn from its name
        code = main(
            ["evaluate", "--data", str(talking / "clips"), "--split", split, "-o", str(tmp_path / split)]
        )
        if code == 0:
            report = json.loads((tmp_path / split / "report.json").read_text())
            assert (tmp_path / split / "videos" / "a.mp4").exists()
            assert report["groups"]["all"]["aperture_r"]["mean"] > 0.5  # its own words again
            assert report["takes"]["take_lip_agreement"]["count"] == 1
            return
    pytest.fail("neither split holds the clip")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--data", "missing"],
        ["a.mp4"],
        [],
        ["--data", ".", "--system", "levitate"],
        ["--data", "{talking}", "--split", "train", "--system", "dub", "--models", "missing"],
        ["--data", "{talking}", "--models", "missing"],
        ["a.mp4", "b.mp4", "--data", "."],
        ["missing.mp4", "missing.mp4"],
        ["a.mp4", "b.mp4", "--without", "tia"],
    ],
)
def test_evaluate_says_what_is_wrong(
    arguments: list[str], talking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [argument.format(talking=talking / "two") for argument in arguments]
    assert main(["evaluate", *arguments, "-o", str(tmp_path / "out")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("system", "parts"),
    [("animate", ()), ("dub", ()), ("imagine", IMAGINE_ABLATIONS), ("fill", FILL_ABLATIONS)],
)
def test_only_parts_of_the_system_can_be_left_out(
    system: str, parts: tuple[str, ...], talking: Path, tmp_path: Path, run: Callable[..., Outcome]
) -> None:
    asked = "--system", system, "--data", talking / "clips", "--split", "train", "-o", tmp_path / "out"
    outcome = run("evaluate", *asked, "--without", "first")
    check_refused(outcome, "there is no first to leave out")
    assert all(part in outcome.err[0] for part in parts)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", ["tia", "texture", "restorer"])
def test_the_portrait_s_parts_can_be_left_out_with_any_renderer(part: str) -> None:
    options = PortraitOptions(without=frozenset({part}))
    assert ImagineIdPipeline.debug().choose_renderer("auto", options) == "warp"


def test_help_offers_the_parts_that_there_are() -> None:
    imagined, filled = WITHOUT.split("Of fill:")
    assert set(re.findall(r"\w+", imagined)) >= set(IMAGINE_ABLATIONS)
    assert re.findall(r"\w+", filled) == list(FILL_ABLATIONS)


def test_original_weights_that_are_none_are_refused(
    talking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, wrong = str(talking / "two" / "a.mp4"), tmp_path / "wrong.model"
    torch.save({"layer": torch.zeros(1)}, wrong)
    for path in (tmp_path / "missing.model", wrong, talking / "a.wav"):
        assert main(["evaluate", clip, clip, "--syncnet", str(path), "-o", str(tmp_path / "out")]) == 2
        assert str(path) in capsys.readouterr().err


def test_no_lips_can_follow_a_silent_soundtrack(
    talking: Path, itself: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    import av

    clip, mute = talking / "clips" / "a.mp4", tmp_path / "mute.mp4"
    with av.open(str(clip)) as source, av.open(str(mute), "w") as target:
        video = target.add_stream_from_template(source.streams.video[0])
        sound = target.add_stream("aac", rate=16_000, layout="mono")
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = video
                target.mux(packet)
        for start in range(0, 32_000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 16_000, start
            target.mux(sound.encode(frame))
        target.mux(sound.encode(None))
    _, heard = itself
    silent = evaluate_pairs(clip, mute, tmp_path / "silent")["groups"]["all"]
    assert heard["aperture_r"]["mean"] > 0.99
    assert "aperture_r" not in silent
    assert "silent_opening" in silent


# -- dub ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_dub_is_scored_with_its_own_sound_and_with_another(talking: Path, tmp_path: Path) -> None:
    # Videos that are there already are scored as they are: the sources themselves, and with swapped sounds.
    output = tmp_path / "dub"
    todo = jobs(talking / "two", output, split="train")
    assert [(job.test, job.video.key, job.speech.key) for job in todo] == [
        *[("real", key, key) for key in "ab"],
        *[("self", key, key) for key in "ab"],
        ("cross", "a", "b"),
        ("cross", "b", "a"),
    ]
    for job in todo:
        if job.test != "real":
            job.target.parent.mkdir(parents=True, exist_ok=True)
            with_changed_frames(job.video_file, job.target, lambda image, _: image, job.speech_file)
    result = evaluate_system("dub", talking / "two", output, split="train")
    real, own, cross = (result["tests"][test]["groups"]["all"] for test in ("real", "self", "cross"))
    assert (output / "videos" / "real" / "a.mp4").exists()
    assert own["mouth_psnr"]["mean"] == pytest.approx(real["mouth_psnr"]["mean"], abs=3)
    # Nothing was redrawn, but encoded again, as the real ones are.
    assert real["aperture_r"]["mean"] > 0.7
    assert own["aperture_r"]["mean"] == pytest.approx(real["aperture_r"]["mean"], abs=0.1)
    assert cross["source_r"]["mean"] == pytest.approx(real["aperture_r"]["mean"], abs=0.1)
    assert cross["aperture_r"]["mean"] < cross["source_r"]["mean"] - 0.3
    assert not {"mouth_psnr", "mouth_lmd"} & cross.keys()
    assert cross["seam"]["mean"] == pytest.approx(1, abs=0.1)
    rows = list(csv.DictReader((output / "clips.csv").open()))
    assert [(row["test"], row["name"]) for row in rows] == [(job.test, job.video.key) for job in todo]
    assert {row["speech"] for row in rows if row["test"] == "cross"} == {"a", "b"}
    assert {path.stem for path in (output / "sheets").glob("*.png")} == {"real_00", "self_00", "cross_00"}


def test_a_video_that_is_there_is_not_made_again(talking: Path, tmp_path: Path) -> None:
    job = jobs(talking / "clips", tmp_path, split="train")[1]
    job.target.parent.mkdir(parents=True)
    job.target.write_text("made elsewhere")
    assert job.make().read_text() == "made elsewhere"


def test_videos_of_another_generator_are_not_scored_as_ours(
    talking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs(talking / "clips", tmp_path, split="train")
    (tmp_path / "videos" / "generator.sha256").write_text("of another one")
    arguments = ["--data", str(talking / "clips"), "--split", "train", "--system", "dub", "-o", str(tmp_path)]
    assert main(["evaluate", *arguments]) == 2
    assert "another generator" in capsys.readouterr().err


@given(speakers=st.lists(st.sampled_from("abcdef"), min_size=2, max_size=30))
def test_every_clip_gets_the_sound_of_another(speakers: list[str]) -> None:
    items = [
        Item(key=str(number), file="", corpus="web", speaker=speaker, split="val")
        for number, speaker in enumerate(speakers)
    ]
    pairs = other_speech(items)
    assert [video for video, _ in pairs] == items
    assert sorted(sound.key for _, sound in pairs) == sorted(item.key for item in items)
    assert all(video.key != sound.key for video, sound in pairs)
    most = max(Counter(speakers).values())
    same = sum(video.speaker == sound.speaker for video, sound in pairs)
    assert same == max(0, 2 * most - len(speakers))  # as few as there can be


def test_sounds_stay_within_their_group() -> None:
    items = [
        Item(key=f"{corpus}{number}", file="", corpus=corpus, speaker=f"s{number}", split="val")
        for corpus in ("studio", "web")
        for number in (2, 3, 4)
    ]
    assert all(video.corpus == sound.corpus for video, sound in other_speech(items))
    assert other_speech(items[:1]) == []


def test_the_mouth_box_holds_lips_and_chin(track: FaceTrack) -> None:
    mesh = track.points[0]
    box, larger = mouth_box(mesh, (256, 256)), mouth_box(mesh * 2, (512, 512))
    assert box
    assert larger
    rows, columns = box
    shown = mesh[[*tp.LIPS_OUTER, tp.CHIN]]
    assert rows.start <= shown[:, 1].min() < shown[:, 1].max() <= rows.stop
    assert columns.start <= shown[:, 0].min() < shown[:, 0].max() <= columns.stop
    assert mouth_box(mesh + np.array([1000, 0, 0]), (256, 256)) is None
    assert larger[0].stop - larger[0].start == pytest.approx(2 * (rows.stop - rows.start), abs=2)


@pytest.mark.parametrize("levels", [0, 12, 20])
def test_a_pasted_region_of_another_colour_has_a_seam(levels: int, talking: Path, track: FaceTrack) -> None:
    clip, fidelity = talking / "two" / "a.mp4", FrameFidelity()
    for number, real, _, _ in aligned_frames(clip, clip):
        inside = lower_face_mask(track.points[number], real.shape[1::-1]) > 0.5
        fidelity.add(
            real, np.clip(real + levels * inside[..., None], 0, 255).astype(np.uint8), track.points[number]
        )
    figures = fidelity.figures()
    assert figures["outside_difference"] == 0
    if levels:
        assert figures["seam"] > 1 + levels / 50
    else:
        assert figures["seam"] == pytest.approx(1)


def test_flicker_is_change_that_the_real_video_has_not(talking: Path, track: FaceTrack) -> None:
    clip, steady, flickering = talking / "two" / "a.mp4", FrameFidelity(), FrameFidelity()
    for number, real, _, _ in aligned_frames(clip, clip):
        for fidelity, levels in ((steady, 10), (flickering, 10 * (number % 2))):
            brighter = np.clip(real.astype(int) + levels, 0, 255).astype(np.uint8)
            fidelity.add(real, brighter, track.points[number])
    assert steady.figures()["flicker"] == pytest.approx(1, abs=0.1)
    assert flickering.figures()["flicker"] > 2


def test_frames_are_paired_by_time(tmp_path: Path) -> None:
    for name, fps in (("slow.mp4", 10), ("fast.mp4", 25)):
        with VideoWriter(tmp_path / name, (64, 64), fps) as writer:
            for number in range(2 * fps):
                writer.write(np.full((64, 64, 3), 100 * number // fps, np.uint8))
    pairs = [(a, b) for a, _, b, _ in aligned_frames(tmp_path / "fast.mp4", tmp_path / "slow.mp4")]
    assert [b for _, b in pairs] == list(range(20))
    assert all(abs(a / 25 - b / 10) <= 0.02 + 1e-6 for a, b in pairs)


# -- sync experts ------------------------------------------------------------------------------------


def test_our_judge_judges_a_video(talking: Path, track: FaceTrack, tmp_path: Path) -> None:
    tiny = SyncExpert(SyncExpertConfig(widths=(8, 8, 8, 8), audio=16, embedding=16))
    save_pretrained(tmp_path, tiny.config_dict(), tiny.state_dict())
    clip, judge = talking / "two" / "a.mp4", OwnJudge(str(tmp_path))
    said = verdict(judge, clip, track, clip)
    assert said is not None
    assert len(said.score.curve) == 31
    assert said.figures("lse")["lse_d"] > 0
    # Windows are the same wherever the video is cut into pieces.
    pictures = np.random.default_rng(0).integers(0, 256, (20, 96, 96, 3), np.uint8)
    assert np.allclose(judge.embed_crops(pictures)[10:], judge.embed_crops(pictures[10:]), atol=1e-5)
    with pytest.raises(ModelUnavailable):
        OwnJudge(str(tmp_path / "missing"))


def test_syncnet_scores_stand_beside_ours(itself: tuple[Path, dict[str, Any]]) -> None:
    folder, figures = itself
    assert figures["syncnet_lse_d"]["mean"] == figures["real_syncnet_lse_d"]["mean"] > 0
    assert figures["ratio_to_real"]["syncnet_lse_d"] == 1
    assert len(figures["syncnet_lse_curve"]) == 31
    assert "<polyline" in (folder / "report.html").read_text()
