"""Figures that are known beforehand, and the verb on tiny inputs."""

import csv
import json
import shutil
from collections import Counter
from functools import cache

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import talkface
from conftest import RATE, write_wav
from talkface.cli import main
from talkface.data.manifest import Item
from talkface.errors import ModelUnavailable
from talkface.evaluation import evaluate_pairs, evaluate_system
from talkface.evaluation.figures.fidelity import FrameFidelity, mouth_box, psnr, ssim
from talkface.evaluation.figures.motion import blink_depths, frechet, jitter, kernel_distance
from talkface.evaluation.figures.performance import track_file
from talkface.evaluation.figures.sync import best_correlation, correlation_curve, mouth_distance
from talkface.evaluation.judges.expert import EvaluationExpert, judge, sync_accuracy, sync_distance
from talkface.evaluation.judges.syncnet import OriginalSyncNet, SyncNet, mfcc
from talkface.evaluation.protocols import pair
from talkface.evaluation.protocols.clips import aligned_frames
from talkface.evaluation.protocols.dub import jobs, other_speech
from talkface.evaluation.report import protocol_hash, summarise
from talkface.face import topology as tp
from talkface.face.masks import lower_face_mask
from talkface.face.model import FaceModel
from talkface.face.tracker import FaceTracker
from talkface.hub import save_pretrained
from talkface.media.video import VideoReader, VideoWriter
from talkface.systems.g4g.experts import SyncExpert, SyncExpertConfig


@pytest.fixture(scope="module", autouse=True)
def few_looks():
    """Two frames of each clip are told from strangers, instead of eight: dlib takes its time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair, "_LOOKED_AT", 2)
        yield


@pytest.fixture(scope="module")
def talking(tmp_path_factory, samples):
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
def track(talking):
    """The face of the first video."""
    return track_file(talking / "two" / "a.mp4", FaceTracker())


def with_changed_frames(source, target, change, sound=None):
    """Write a video anew, with ``change(image, number)`` for each frame."""
    with (
        VideoReader(source) as reader,
        VideoWriter(target, reader.size, reader.fps, sound or source) as writer,
    ):
        for number, frame in enumerate(reader):
            writer.write(change(frame.image.copy(), number))
    return target


@given(lag=st.integers(-5, 5), seed=st.integers(0, 100))
def test_the_curve_finds_any_delay(lag: int, seed: int) -> None:
    signal = np.random.default_rng(seed).standard_normal(80)
    late = np.roll(signal, lag)  # the generated signal comes ``lag`` frames later
    curve = correlation_curve(late[10:-10], signal[10:-10], 7)
    assert int(np.argmax(curve)) - 7 == lag
    assert curve.max() > 0.99


def test_best_correlation_allows_one_frame_only() -> None:
    signal = np.random.default_rng(0).standard_normal(200)
    assert best_correlation(np.roll(signal, 1), signal) > 0.99
    assert best_correlation(np.roll(signal, 3), signal) < 0.4


def test_blinks_are_short_closures() -> None:
    openness = np.ones(100)
    openness[20:23] = 0.1
    openness[50:90] = 0.2  # closed eyes, not a blink
    assert blink_depths(openness) == [pytest.approx(0.1)]
    assert blink_depths(np.ones(50)) == []


@cache
def mean_face():
    """The 3DMM's mean (478, 3)."""
    return FaceModel.from_pretrained().mean


def test_jitter_is_zero_for_even_motion_and_grows_with_noise() -> None:
    mean = mean_face() * 100
    still = np.repeat(mean[None], 20, 0) + np.arange(20)[:, None, None]
    noisy = still + np.random.default_rng(0).standard_normal(still.shape)
    assert jitter(still.astype(np.float64)) == pytest.approx(0, abs=1e-3)
    assert jitter(noisy) > 1.0


@given(scale=st.floats(0.5, 2), angle=st.floats(-1, 1), shift=st.floats(-50, 50))
def test_mouth_distance_ignores_where_the_head_is(scale: float, angle: float, shift: float) -> None:
    points = np.repeat(mean_face()[None] * 100, 3, 0)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = points.copy()
    moved[..., :2] = scale * points[..., :2] @ turn.T + shift
    assert mouth_distance(moved, points) == pytest.approx(0, abs=1e-2)


@given(st.integers(0, 1000))
def test_kernel_distance_tells_kinds_apart_and_is_unbiased(seed: int) -> None:
    generator = np.random.default_rng(seed)
    a, b, other = (generator.normal(size=(100, 8)) for _ in range(3))
    assert kernel_distance(a, b) == pytest.approx(kernel_distance(b, a))
    assert abs(kernel_distance(a, b)) < 0.5 < kernel_distance(a, other + 1)


def test_frechet_of_a_shift_is_its_square() -> None:
    sample = np.random.default_rng(0).standard_normal((500, 3))
    assert frechet(sample, sample) == pytest.approx(0, abs=1e-6)
    assert frechet(sample + np.array([2.0, 0, 0]), sample) == pytest.approx(4, abs=1e-6)


def test_summary_leaves_out_what_is_unknown() -> None:
    figures = summarise([{"a": 1.0}, {"a": 3.0}, {"a": float("nan")}, {"name": "x"}])["a"]
    assert figures["mean"] == 2.0
    assert figures["count"] == 2
    assert figures["low"] <= 2.0 <= figures["high"]


def test_summary_of_equal_pictures_is_infinite() -> None:
    assert summarise([{"a": float("inf")}, {"a": 3.0}])["a"]["mean"] == float("inf")


def test_protocols_differ_when_anything_does() -> None:
    assert protocol_hash({"clips": ["a"]}) == protocol_hash({"clips": ["a"]})
    assert protocol_hash({"clips": ["a"]}) != protocol_hash({"clips": ["b"]})


@pytest.fixture(scope="module")
def itself(talking, syncnet, tmp_path_factory):
    """The report's folder and the figures of a video beside itself, with SyncNet's."""
    folder, clips = tmp_path_factory.mktemp("itself"), talking / "clips"
    result = evaluate_pairs(clips, clips, folder, syncnet=syncnet / "syncnet.safetensors")
    return folder, result["groups"]["all"]


def test_a_video_beside_itself_is_perfect(itself) -> None:
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


def test_a_blurred_mouth_scores_lower_and_only_there(talking, track, tmp_path, capsys) -> None:
    def blur(image, number):
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


def test_videos_of_other_sizes_are_compared_by_their_lips(talking, tmp_path) -> None:
    real = talking / "two" / "a.mp4"
    with VideoReader(real) as reader, VideoWriter(tmp_path / "small.mp4", (208, 208), 25, real) as writer:
        for frame in reader:
            writer.write(cv2.resize(frame.image, (208, 208), interpolation=cv2.INTER_AREA))
    figures = evaluate_pairs(real, tmp_path / "small.mp4", tmp_path / "report")["groups"]["all"]
    assert figures["aperture_r"]["mean"] > 0.7
    assert "mouth_sharpness" in figures
    assert not {"mouth_psnr", "frame_psnr", "seam", "outside_difference"} & figures.keys()


@pytest.mark.slow
def test_evaluate_generates_and_scores_a_folder(talking, tmp_path, capsys) -> None:
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
    ],
)
def test_evaluate_says_what_is_wrong(arguments: list[str], talking, tmp_path, capsys) -> None:
    arguments = [argument.format(talking=talking / "two") for argument in arguments]
    assert main(["evaluate", *arguments, "-o", str(tmp_path / "out")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_original_weights_that_are_none_are_refused(talking, tmp_path, capsys) -> None:
    clip, wrong = str(talking / "two" / "a.mp4"), tmp_path / "wrong.model"
    torch.save({"layer": torch.zeros(1)}, wrong)
    for path in (tmp_path / "missing.model", wrong, talking / "a.wav"):
        assert main(["evaluate", clip, clip, "--syncnet", str(path), "-o", str(tmp_path / "out")]) == 2
        assert str(path) in capsys.readouterr().err


def test_no_lips_can_follow_a_silent_soundtrack(talking, itself, tmp_path) -> None:
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
def test_dub_is_scored_with_its_own_sound_and_with_another(talking, tmp_path) -> None:
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


def test_a_video_that_is_there_is_not_made_again(talking, tmp_path) -> None:
    job = jobs(talking / "clips", tmp_path, split="train")[1]
    job.target.parent.mkdir(parents=True)
    job.target.write_text("made elsewhere")
    assert job.make().read_text() == "made elsewhere"


def test_videos_of_another_generator_are_not_scored_as_ours(talking, tmp_path, capsys) -> None:
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


# -- fidelity ----------------------------------------------------------------------------------------


def test_psnr_of_a_known_error() -> None:
    assert psnr(0.0) == float("inf")
    assert psnr(255.0**2 / 1000) == pytest.approx(30)


def test_ssim_is_that_of_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    random = np.random.default_rng(0)
    a = cv2.GaussianBlur(random.integers(0, 256, (40, 56, 3), np.uint8), (0, 0), 2)
    b = np.clip(a + random.normal(0, 8, a.shape), 0, 255).astype(np.uint8)
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = metrics.structural_similarity(a, b, channel_axis=-1, **settings)
    assert ssim(a, b) == pytest.approx(expected, abs=1e-4)
    assert ssim(a, a) == pytest.approx(1, abs=1e-6)


def test_the_mouth_box_holds_lips_and_chin(track) -> None:
    mesh = track.points[0]
    rows, columns = mouth_box(mesh, (256, 256))
    shown = mesh[[*tp.LIPS_OUTER, tp.CHIN]]
    assert rows.start <= shown[:, 1].min() < shown[:, 1].max() <= rows.stop
    assert columns.start <= shown[:, 0].min() < shown[:, 0].max() <= columns.stop
    assert mouth_box(mesh + np.array([1000, 0, 0]), (256, 256)) is None
    larger = mouth_box(mesh * 2, (512, 512))
    assert larger[0].stop - larger[0].start == pytest.approx(2 * (rows.stop - rows.start), abs=2)


@pytest.mark.parametrize("levels", [0, 12, 20])
def test_a_pasted_region_of_another_colour_has_a_seam(levels: int, talking, track) -> None:
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


def test_flicker_is_change_that_the_real_video_has_not(talking, track) -> None:
    clip, steady, flickering = talking / "two" / "a.mp4", FrameFidelity(), FrameFidelity()
    for number, real, _, _ in aligned_frames(clip, clip):
        for fidelity, levels in ((steady, 10), (flickering, 10 * (number % 2))):
            brighter = np.clip(real.astype(int) + levels, 0, 255).astype(np.uint8)
            fidelity.add(real, brighter, track.points[number])
    assert steady.figures()["flicker"] == pytest.approx(1, abs=0.1)
    assert flickering.figures()["flicker"] > 2


def test_frames_are_paired_by_time(tmp_path) -> None:
    for name, fps in (("slow.mp4", 10), ("fast.mp4", 25)):
        with VideoWriter(tmp_path / name, (64, 64), fps) as writer:
            for number in range(2 * fps):
                writer.write(np.full((64, 64, 3), 100 * number // fps, np.uint8))
    pairs = [(a, b) for a, _, b, _ in aligned_frames(tmp_path / "fast.mp4", tmp_path / "slow.mp4")]
    assert [b for _, b in pairs] == list(range(20))
    assert all(abs(a / 25 - b / 10) <= 0.02 + 1e-6 for a, b in pairs)


# -- sync experts ------------------------------------------------------------------------------------


@given(late=st.integers(-12, 12), seed=st.integers(0, 50), padded=st.booleans())
def test_the_shift_of_the_sound_is_found(late: int, seed: int, padded: bool) -> None:
    sound = np.random.default_rng(seed).standard_normal((120, 8))
    lips = np.roll(sound, late, axis=0)  # the lips show what was heard ``late`` frames before
    score = sync_distance(lips[20:100], sound[20:100], padded=padded)
    assert score.offset == late
    assert score.confidence > 1
    assert score.curve.argmin() - 15 == late
    assert score.distance == score.curve.min()


def test_distances_are_those_of_the_released_code() -> None:
    random = np.random.default_rng(0)
    video, audio = random.standard_normal((2, 40, 6))
    score = sync_distance(video, audio, padded=True)
    padded = torch.nn.functional.pad(torch.from_numpy(audio), (0, 0, 15, 15))
    apart = [(torch.from_numpy(row) - padded[k : k + 31]).norm(dim=1) for k, row in enumerate(video)]
    mean = torch.stack(apart).mean(0)
    assert score.distance == pytest.approx(float(mean.min()))
    assert score.confidence == pytest.approx(float(mean.median() - mean.min()))
    assert score.offset == 15 - int(mean.argmin())


def test_sync_needs_enough_windows_of_one_shape() -> None:
    with pytest.raises(ValueError, match="reach"):
        sync_distance(np.zeros((15, 2)), np.zeros((15, 2)))
    with pytest.raises(ValueError, match="reach"):
        sync_distance(np.zeros((30, 2)), np.zeros((31, 2)))


def test_accuracy_is_one_for_the_right_sound_and_chance_for_noise() -> None:
    video, noise = np.random.default_rng(0).standard_normal((2, 3000, 4))
    assert sync_accuracy(video, video) == 1
    assert sync_accuracy(video, np.roll(video, 1, 0)) == 1  # a frame is tolerated
    assert sync_accuracy(video, np.roll(video, 3, 0)) < 0.1
    assert sync_accuracy(video, noise) == pytest.approx(3 / 31, abs=0.03)
    assert np.isnan(sync_accuracy(video[:30], video[:30]))


def test_our_expert_judges_a_video(talking, track, tmp_path) -> None:
    tiny = SyncExpert(SyncExpertConfig(widths=(8, 8, 8, 8), audio=16, embedding=16))
    save_pretrained(tmp_path, tiny.config_dict(), tiny.state_dict())
    clip, expert = talking / "two" / "a.mp4", EvaluationExpert(str(tmp_path))
    verdict = judge(expert, clip, track, clip)
    assert verdict is not None
    assert len(verdict.score.curve) == 31
    assert verdict.figures("lse")["lse_d"] > 0
    # Windows are the same wherever the video is cut into pieces.
    pictures = np.random.default_rng(0).integers(0, 256, (20, 96, 96, 3), np.uint8)
    assert np.allclose(expert.visual(pictures)[10:], expert.visual(pictures[10:]), atol=1e-5)
    with pytest.raises(ModelUnavailable):
        EvaluationExpert(str(tmp_path / "missing"))


@pytest.fixture(scope="module")
def syncnet(tmp_path_factory):
    """SyncNet with random weights in both kinds of file."""
    torch.manual_seed(0)
    state, folder = SyncNet().state_dict(), tmp_path_factory.mktemp("syncnet")
    torch.save(state, folder / "syncnet_v2.model")
    save_file(state, folder / "syncnet.safetensors")
    return folder


def test_syncnet_has_the_released_layers() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in SyncNet().state_dict().items()}
    expected = {
        "netcnnaud.0.weight": (64, 1, 3, 3),
        "netcnnaud.4.weight": (192, 64, 3, 3),
        "netcnnaud.8.weight": (384, 192, 3, 3),
        "netcnnaud.11.weight": (256, 384, 3, 3),
        "netcnnaud.14.weight": (256, 256, 3, 3),
        "netcnnaud.18.weight": (512, 256, 5, 4),
        "netcnnaud.19.running_mean": (512,),
        "netcnnlip.0.weight": (96, 3, 5, 7, 7),
        "netcnnlip.4.weight": (256, 96, 1, 5, 5),
        "netcnnlip.8.weight": (256, 256, 1, 3, 3),
        "netcnnlip.11.weight": (256, 256, 1, 3, 3),
        "netcnnlip.14.weight": (256, 256, 1, 3, 3),
        "netcnnlip.18.weight": (512, 256, 1, 6, 6),
        "netfcaud.0.weight": (512, 512),
        "netfcaud.3.weight": (1024, 512),
        "netfclip.3.bias": (1024,),
    }
    assert expected.items() <= shapes.items()
    assert len(shapes) == 102


def test_syncnet_is_read_from_both_kinds_of_file(syncnet) -> None:
    released, safe = (OriginalSyncNet(syncnet / name) for name in ("syncnet_v2.model", "syncnet.safetensors"))
    assert released.identity == safe.identity
    pictures = np.random.default_rng(0).integers(0, 256, (23, 224, 224, 3), np.uint8)
    embedded = released.visual(pictures)
    assert embedded.shape == (19, 1024)
    assert np.allclose(embedded[17:], released.visual(pictures[17:])[:2], atol=1e-4)


def test_syncnet_scores_stand_beside_ours(itself) -> None:
    folder, figures = itself
    assert figures["syncnet_lse_d"]["mean"] == figures["real_syncnet_lse_d"]["mean"] > 0
    assert figures["ratio_to_real"]["syncnet_lse_d"] == 1
    assert len(figures["syncnet_lse_curve"]) == 31
    assert "<polyline" in (folder / "report.html").read_text()


def test_cepstra_are_those_of_python_speech_features() -> None:
    time = np.arange(4000) / RATE
    tones = 8000 * np.sin(2 * np.pi * 440 * time) + 2000 * np.sin(2 * np.pi * 3100 * time) * time * 4
    cepstra = mfcc(np.round(tones))
    assert cepstra.shape == (24, 13)
    # What version 0.6 of that package gives.
    expected = [19.6246, 17.3386, -1.9223, 35.3949, -47.8235, -37.5844, 4.1212, -39.3593, -2.1887]
    assert cepstra[12] == pytest.approx([*expected, 38.8483, -4.655, 22.6941, 27.8387], abs=1e-3)
    assert mfcc(np.zeros(100)).shape == (1, 13)
    louder = mfcc(2 * np.round(tones))
    assert np.allclose(louder[:, 1:], cepstra[:, 1:])
    assert np.allclose(louder[:, 0] - cepstra[:, 0], np.log(4))
