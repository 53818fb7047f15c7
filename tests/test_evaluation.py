"""Figures that are known beforehand, and the verb on tiny inputs."""

import csv
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import talkface
from talkface.cli import main
from talkface.evaluation import evaluate_pairs
from talkface.evaluation.motion import blink_depths, frechet, jitter
from talkface.evaluation.report import protocol_hash, summarise
from talkface.evaluation.sync import best_correlation, correlation_curve, mouth_distance


@pytest.fixture(scope="module")
def talking(tmp_path_factory):
    """A folder with one short video of our own making."""
    folder = tmp_path_factory.mktemp("real")
    import cv2

    portrait = cv2.imread(str(talkface.example_portrait()))
    small = cv2.resize(
        portrait, (256, round(256 * portrait.shape[0] / portrait.shape[1])), interpolation=cv2.INTER_AREA
    )
    cv2.imwrite(str(folder / "portrait.png"), small)
    from talkface.media.audio import read_audio

    samples = read_audio(talkface.example_speech())[: 16_000 * 2]
    import wave

    with wave.open(str(folder / "speech.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    (folder / "clips").mkdir()
    talkface.animate(folder / "portrait.png", folder / "speech.wav").save(folder / "clips" / "a.mp4")
    return folder


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


def test_jitter_is_zero_for_even_motion_and_grows_with_noise() -> None:
    from talkface.face.model import FaceModel

    mean = FaceModel.from_pretrained().mean * 100
    still = np.repeat(mean[None], 20, 0) + np.arange(20)[:, None, None]
    noisy = still + np.random.default_rng(0).standard_normal(still.shape)
    assert jitter(still.astype(np.float64)) == pytest.approx(0, abs=1e-3)
    assert jitter(noisy) > 1.0


@given(scale=st.floats(0.5, 2), angle=st.floats(-1, 1), shift=st.floats(-50, 50))
def test_mouth_distance_ignores_where_the_head_is(scale: float, angle: float, shift: float) -> None:
    from talkface.face.model import FaceModel

    points = np.repeat(FaceModel.from_pretrained().mean[None] * 100, 3, 0)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = points.copy()
    moved[..., :2] = scale * points[..., :2] @ turn.T + shift
    assert mouth_distance(moved, points) == pytest.approx(0, abs=1e-2)


def test_frechet_of_a_shift_is_its_square() -> None:
    sample = np.random.default_rng(0).standard_normal((500, 3))
    assert frechet(sample, sample) == pytest.approx(0, abs=1e-6)
    assert frechet(sample + np.array([2.0, 0, 0]), sample) == pytest.approx(4, abs=1e-6)


def test_summary_leaves_out_what_is_unknown() -> None:
    figures = summarise([{"a": 1.0}, {"a": 3.0}, {"a": float("nan")}, {"name": "x"}])["a"]
    assert figures["mean"] == 2.0
    assert figures["count"] == 2
    assert figures["low"] <= 2.0 <= figures["high"]


def test_protocols_differ_when_anything_does() -> None:
    assert protocol_hash({"clips": ["a"]}) == protocol_hash({"clips": ["a"]})
    assert protocol_hash({"clips": ["a"]}) != protocol_hash({"clips": ["b"]})


def test_a_video_beside_itself_is_perfect(talking, tmp_path) -> None:
    figures = evaluate_pairs(talking / "clips", talking / "clips", tmp_path / "report")["groups"]["all"]
    assert figures["aperture_r"]["mean"] == pytest.approx(1, abs=1e-4)
    assert figures["mouth_lmd"]["mean"] == pytest.approx(0, abs=1e-4)
    assert figures["offset_frames"] == 0
    assert figures["ratio_to_real"]["jitter"] == 1.0
    rows = list(csv.DictReader((tmp_path / "report" / "clips.csv").open()))
    assert [row["name"] for row in rows] == ["a"]
    assert list((tmp_path / "report" / "sheets").glob("*.png"))


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
    "arguments", [["--data", "missing"], ["--real", "a"], [], ["--data", ".", "--system", "levitate"]]
)
def test_evaluate_says_what_is_wrong(arguments: list[str], tmp_path, capsys) -> None:
    assert main(["evaluate", *arguments, "-o", str(tmp_path / "out")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_no_lips_can_follow_a_silent_soundtrack(talking, tmp_path) -> None:
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
    heard = evaluate_pairs(clip, clip, tmp_path / "heard")["groups"]["all"]
    silent = evaluate_pairs(clip, mute, tmp_path / "silent")["groups"]["all"]
    assert heard["aperture_r"]["mean"] > 0.99
    assert "aperture_r" not in silent
    assert "silent_opening" in silent
