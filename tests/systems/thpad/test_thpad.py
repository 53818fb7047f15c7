"""TH-PAD: networks, losses, sampler and the stream from speech to motion, on tiny random models."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from talkface.face import topology as tp
from talkface.face.model import FaceModel
from talkface.face.motion import FaceMotion
from talkface.nn.picture import gradient_loss
from talkface.performance.blinks import BlinkClock
from talkface.performance.config import PriorConfig
from talkface.performance.lips import speech_gate
from talkface.performance.model import DiffusionPrior, MotionModel
from talkface.performance.motion import SpeechToMotion, Style, resample_stream, smoothed
from talkface.performance.sampler import sample, signal_level
from talkface.rendering.portrait import PortraitRenderer, paste
from talkface.rendering.refiner import Refiner
from talkface.speech.features import ContentEncoder, FeatureStream
from talkface.systems.thpad import losses
from talkface.training import TrainerConfig, overfit_one_batch
from talkface.training.tasks.thpad_lips import LipsTask, LipsTrainConfig
from talkface.training.tasks.thpad_motion import MotionTrainConfig, best_lag_correlation
from talkface.training.tasks.thpad_prior import PriorTask, PriorTrainConfig, editing_mask
from talkface.training.tasks.thpad_sync import fractional_lag


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * 16_000)) / 16_000
    voice = np.sin(2 * np.pi * 140 * time) * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * time))
    return (0.3 * voice + 0.02 * rng.standard_normal(len(time))).astype(np.float32)


@pytest.fixture(scope="module")
def performer() -> SpeechToMotion:
    torch.manual_seed(0)
    features = FeatureStream(ContentEncoder.debug())
    face = FaceModel.from_pretrained()
    return SpeechToMotion(features, MotionModel.debug(), DiffusionPrior.debug(), face, "cpu")


def blocks(samples: np.ndarray, size: int) -> list[np.ndarray]:
    return [samples[k : k + size] for k in range(0, len(samples), size)]


@settings(max_examples=12, deadline=None)
@given(samples=st.integers(700, 160_000), size=st.integers(900, 70_000))
def test_features_come_at_50_hz_whatever_the_blocks(samples: int, size: int) -> None:
    torch.manual_seed(0)
    stream = FeatureStream(ContentEncoder.debug(), window=3.0, context=0.5)
    audio = speech(samples / 16_000)
    pieces = list(stream(blocks(audio, size)))
    assert sum(len(piece.content) for piece in pieces) == -(-samples // 320)
    assert all(len(piece.content) == len(piece.level) for piece in pieces)
    assert max(float(piece.level.max()) for piece in pieces) <= 0.0


def test_blocks_do_not_change_the_features() -> None:
    torch.manual_seed(0)
    stream = FeatureStream(ContentEncoder.debug(), window=3.0, context=0.5)
    audio = speech(7.3)
    one, many = (torch.cat([p.content for p in stream(blocks(audio, size))]) for size in (len(audio), 4321))
    torch.testing.assert_close(one, many)


@pytest.mark.parametrize("seconds", [0.06, 0.5, 4.0, 4.02, 9.7])
def test_motion_has_a_frame_every_40_ms(performer: SpeechToMotion, seconds: float) -> None:
    audio = speech(seconds)
    frames = sum(len(motion) for motion in performer(blocks(audio, 64_000)))
    assert frames == -(-len(audio) // 640)


def test_seeds_change_the_head_and_not_the_lips(performer: SpeechToMotion) -> None:
    audio = speech(6.0)
    takes = [FaceMotion.concatenate(list(performer([audio], seed=seed))) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(takes[0].rotation, takes[1].rotation)
    np.testing.assert_array_equal(takes[0].beta_mouth, takes[2].beta_mouth)
    assert np.abs(takes[0].rotation - takes[2].rotation).max() > 1e-3


def test_strengths_of_zero_hold_still(performer: SpeechToMotion) -> None:
    style = Style(pose=0, blink=0, gaze=0, expression=0, lips=0)
    motion = FaceMotion.concatenate(list(performer([speech(2.0)], style=style)))
    for name in ("rotation", "translation", "gaze", "beta_mouth"):
        assert np.abs(getattr(motion, name)).max() == 0
    assert np.abs(motion.beta_upper).max() < 1e-5
    assert (motion.scale == 1).all()


@pytest.mark.parametrize("pieces", [1, 7, 50])
def test_blinks_come_at_a_human_rate_and_close_the_eyes(pieces: int) -> None:
    minutes = 4
    open_eyes = np.ones(minutes * 60 * 25)

    def blinks(rate: float) -> np.ndarray:
        clock = BlinkClock(torch.Generator().manual_seed(3), rate)
        return np.concatenate([clock(part) for part in np.array_split(open_eyes, pieces)])

    def count(openness: np.ndarray) -> int:
        return int(((openness[1:] < 0.3) & (openness[:-1] >= 0.3)).sum())

    natural = blinks(1.0)
    assert 8 * minutes < count(natural) < 30 * minutes
    assert natural.min() == 0.0
    np.testing.assert_array_equal(natural, BlinkClock(torch.Generator().manual_seed(3))(open_eyes))
    assert count(blinks(2.0)) > 1.4 * count(natural)
    assert count(blinks(0.0)) == 0


def test_a_blink_of_the_prior_is_not_doubled() -> None:
    openness = np.ones(2000)
    openness[::50] = 0.1
    clock = BlinkClock(torch.Generator().manual_seed(0))
    closed = clock(openness) < 0.3
    assert (closed[1:] & ~closed[:-1]).sum() <= 50, "40 are the prior's own; few fall into its pauses of 2 s"


def test_silence_closes_the_mouth(performer: SpeechToMotion) -> None:
    motion = FaceMotion.concatenate(list(performer([np.zeros(48_000, np.float32)])))
    assert np.abs(motion.beta_mouth).max() == 0


def test_gate_opens_before_the_voice_and_closes_after_it() -> None:
    probability = np.zeros(200, np.float32)
    probability[100:140] = 1.0
    gate = speech_gate(probability, np.where(probability > 0, -5.0, -50.0))
    assert gate[50:70].min() == 1.0
    assert gate[:40].max() == 0.0
    assert gate[80:].max() == 0.0
    assert gate[46] > 0


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=5),
    st.sampled_from([23.976, 25.0, 29.97, 30.0, 50.0, 60.0]),
)
def test_any_frame_rate_gets_its_exact_number_of_frames(lengths: list[int], fps: float) -> None:
    total = sum(lengths)
    ramp = np.arange(total, dtype=np.float32)[:, None] / 25
    whole = FaceMotion(ramp, ramp, 0 * np.tile(ramp, 3), np.tile(ramp, 2), ramp, np.tile(ramp, 4))
    edges = np.cumsum([0, *lengths])
    parts = [whole[int(a) : int(b)] for a, b in pairwise(edges)]
    count = max(1, round(total / 25 * fps))
    moved = FaceMotion.concatenate(list(resample_stream(iter(parts), fps, count)))
    assert len(moved) == count
    expected = np.minimum(np.arange(count) / fps, (total - 1) / 25)
    np.testing.assert_allclose(moved.beta_mouth[:, 0], expected, atol=1e-4)


def test_prior_keeps_known_frames_and_follows_its_noise() -> None:
    torch.manual_seed(0)
    prior = DiffusionPrior.debug()
    f_a, codes = torch.randn(2, 40, 32), torch.randn(2, 40, 32)
    known = torch.zeros(2, 40)
    known[:, :10] = 1
    noise = torch.randn(2, 40, 32)
    one = sample(prior, f_a, known, codes, noise, 4)
    two = sample(prior, f_a, known, codes, noise, 4, guidance=1.5)
    torch.testing.assert_close(one[:, :10], codes[:, :10])
    assert torch.isfinite(two).all()
    assert not torch.allclose(one, sample(prior, f_a, known, codes, -noise, 4))


def test_schedule_goes_from_signal_to_noise() -> None:
    level = signal_level(torch.arange(1000), 1000)
    assert level[0] > 0.99
    assert level[-1] < 1e-3
    assert (level.diff() <= 0).all()


def test_losses_know_their_optimum() -> None:
    x = torch.randn(64, 16)
    temperature = torch.tensor(20.0)
    assert losses.contrastive_sync(x, x, temperature) < losses.contrastive_sync(x, x.roll(1, 0), temperature)
    assert losses.orthogonality(torch.randn(500, 64), torch.randn(500, 64)) < 0.05
    assert losses.orthogonality(x, x) > 0.99
    assert losses.velocity(x[None], x[None] + 3.0) < 1e-10
    image = torch.rand(2, 3, 32, 32)
    assert gradient_loss(image, image, torch.ones(2, 1, 32, 32)) == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(30, 128), st.integers(0, 10_000))
def test_editing_masks_leave_something_to_draw(frames: int, seed: int) -> None:
    known = editing_mask(frames, np.random.default_rng(seed))
    assert set(np.unique(known)) <= {0.0, 1.0}
    assert known.shape == (frames,)


@pytest.mark.parametrize("lag", [-3, 0, 2])
def test_lag_of_a_shifted_signal_is_found(lag: int) -> None:
    signal = np.convolve(np.random.default_rng(0).standard_normal(200), np.ones(5) / 5, "same")
    found, score = fractional_lag(np.roll(signal, lag), signal, 5)
    assert abs(found - lag) < 0.2
    assert score > 0.95
    assert best_lag_correlation(np.roll(signal, 1), signal)[1] == 1


def portrait(face: FaceModel) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(60, 200, (32, 32, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    return image, (60 * face.mean + [128, 110, 0]).astype(np.float32)


def test_the_neutral_motion_draws_the_portrait() -> None:
    face = FaceModel.from_pretrained()
    image, points = portrait(face)
    zero = np.zeros((1, 4), np.float32)
    motion = FaceMotion(
        np.zeros((1, len(face.mouth)), np.float32),
        np.zeros((1, len(face.upper)), np.float32),
        zero[:, :3],
        zero[:, :2],
        zero[:, :1] + 1,
        zero,
    )
    renderer = PortraitRenderer(image, points, face, refiner=None)
    frame = next(renderer.frames([motion]))
    assert np.abs(frame.astype(int) - image).mean() < 1.0
    moved = next(renderer.frames([replace(motion, rotation=np.array([[0, 0.1, 0]], np.float32))]))
    assert np.abs(moved.astype(int) - image)[80:140, 100:156].mean() > 2.0
    np.testing.assert_array_equal(moved[:, :4], image[:, :4])


def test_a_portrait_at_its_own_meshes_is_what_it_draws_there() -> None:
    torch.manual_seed(0)
    face = FaceModel.from_pretrained()
    image, points = portrait(face)
    renderer = PortraitRenderer(image, points, face, Refiner.debug())
    own = renderer.fit.motion
    spoken = np.zeros((2, len(face.mouth)), np.float32)
    spoken[1, 0] = 2.0
    turned = np.array([[0, 0, 0], [0, 0.05, 0]], np.float32)
    pair = {name: np.repeat(getattr(own, name), 2, 0) for name in ("beta_upper", "translation", "scale")}
    motion = FaceMotion(spoken, rotation=turned, gaze=np.zeros((2, 4), np.float32), **pair)
    drawn = list(renderer.moved([motion]))
    gaze, rotation = motion.gaze + own.gaze, own.rotation + turned
    said = replace(motion, gaze=gaze, rotation=rotation, reference="camera")
    again = renderer.at(np.stack([mesh for _, mesh in drawn]), said)
    with pytest.raises(ValueError, match="'camera' is needed"):
        renderer.at(np.stack([mesh for _, mesh in drawn]), motion)
    with pytest.raises(ValueError, match="'portrait' is needed"):
        next(renderer.frames([said]))
    with pytest.raises(ValueError, match="'portrait' is needed"):
        renderer.meshes(said)
    for (frame, _), other in zip(drawn, again, strict=True):
        assert np.abs(frame.astype(int) - other).mean() < 1.5
    assert np.abs(drawn[0][0].astype(int) - drawn[1][0]).mean() > 3.0


def test_the_refiner_only_touches_its_parts() -> None:
    torch.manual_seed(0)
    face = FaceModel.from_pretrained()
    image, points = portrait(face)
    motion = face.fit(points[None]).motion
    still = {"rotation": np.zeros((1, 3), np.float32), "gaze": np.zeros((1, 4), np.float32)}
    motion = replace(motion, **still, reference="portrait")
    plain = next(PortraitRenderer(image, points, face, None).frames([motion]))
    refined = next(PortraitRenderer(image, points, face, Refiner.debug()).frames([motion]))
    changed = np.abs(plain.astype(int) - refined).sum(-1) > 0
    assert changed.any()
    forehead = points[tp.FOREHEAD].astype(int)
    assert not changed[: forehead[1]].any()


def test_half_the_digits_draw_the_same_picture() -> None:
    face, refiner = FaceModel.from_pretrained(), Refiner.from_pretrained()
    image, points = portrait(face)
    motion = face.fit(points[None]).motion
    still = {"rotation": np.zeros((1, 3), np.float32), "gaze": np.zeros((1, 4), np.float32)}
    motion = replace(motion, **still, reference="portrait")
    full, half = (
        next(PortraitRenderer(image, points, face, refiner, dtype=dtype).frames([motion])).astype(int)
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert 0 < np.abs(full - half).max() <= 6
    assert np.abs(full - half).mean() < 0.1


def test_paste_blends_inside_its_footprint() -> None:
    image = np.full((40, 60, 3), 100, np.uint8)
    layer = np.zeros((8, 8, 4), np.float32)
    layer[2:6, 2:6] = [50, 50, 50, 0.5]
    paste(image, layer, np.array([[1.0, 0, -20], [0, 1.0, -10]]))
    assert (image[13, 23] == 100).all()
    assert (image[:9] == 100).all()
    assert (image[:, 40:] == 100).all()


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=5))
@settings(deadline=None, max_examples=20)
def test_smoothing_does_not_depend_on_how_the_stream_is_cut(lengths: list[int]) -> None:
    rng, count = np.random.default_rng(0), sum(lengths)
    sizes = {"beta_mouth": 28, "beta_upper": 16, "rotation": 3, "translation": 2, "scale": 1, "gaze": 4}
    drawn = {name: rng.standard_normal((count, size)).astype(np.float32) for name, size in sizes.items()}
    whole = FaceMotion(**drawn, fps=25.0)
    edges = np.cumsum([0, *lengths])
    parts = [whole[int(a) : int(b)] for a, b in pairwise(edges)]
    once, cut = (FaceMotion.concatenate(list(smoothed(stream))) for stream in ([whole], parts))
    assert len(cut) == len(whole)
    np.testing.assert_allclose(cut.rotation, once.rotation, atol=1e-6)
    np.testing.assert_array_equal(cut.beta_mouth, whole.beta_mouth)


def test_a_greyscale_portrait_stays_grey() -> None:
    face = FaceModel.from_pretrained()
    points = face.mean * 60 + np.array([96.0, 96.0, 0.0])
    texture = np.random.default_rng(0).integers(0, 255, (192, 192, 1), np.uint8).repeat(3, 2)
    renderer = PortraitRenderer(texture, points.astype(np.float32), face, Refiner.debug())
    sizes = {"beta_mouth": 28, "beta_upper": 16, "rotation": 3, "translation": 2, "gaze": 4}
    still = {name: np.zeros((2, size), np.float32) for name, size in sizes.items()}
    still["beta_mouth"][:, 0] = 3.0
    motion = FaceMotion(**still, scale=np.ones((2, 1), np.float32), fps=25.0)
    for frame in renderer.frames([motion]):
        assert np.ptp(frame.astype(int), axis=2).max() <= 1


def test_lips_are_trained_anew_beside_what_stays(prepared_clips: Path, tmp_path: Path) -> None:
    """The first member, the heads and their codes are as before; the others overfit a batch."""
    motion = MotionTrainConfig(variants=1, batch=2, window=40, feature_noise=0.0)
    task = LipsTask(LipsTrainConfig(motion=motion, dropout=0.0), prepared_clips)
    before = MotionModel.from_pretrained("thpad-motion").state_dict()
    quick = TrainerConfig(max_steps=60, lr=2e-3, warmup_steps=2, device="cpu")
    first, last = overfit_one_batch(task, quick, 25)
    assert last < 0.7 * first
    found = task.validate()
    task.export(tmp_path, found)
    after = MotionModel.from_pretrained(str(tmp_path)).state_dict()
    lips = ("audio_encoder", "mlp_a2l", "lip_decoder")
    for name, value in before.items():
        part, _, member = name.partition(".")
        if part in lips and not member.startswith("0."):
            assert (after[name] != value).any(), name
        elif name != "lip_gain":
            torch.testing.assert_close(after[name], value, msg=name)
    assert after["lip_gain"] > 0


def test_prior_overfits_one_batch(prepared_clips: Path, tmp_path: Path) -> None:
    model = PriorConfig(width=32, layers=1, heads=2, feed_forward=32, window=60)
    motion = MotionTrainConfig(variants=1)
    config = PriorTrainConfig(model=model, motion=motion, batch=4, condition_dropout=0.0)
    torch.manual_seed(0)
    task = PriorTask(config, prepared_clips)
    quick = TrainerConfig(max_steps=60, lr=1e-2, warmup_steps=2, device="cpu")
    first, last = overfit_one_batch(task, quick, 25)
    assert last < 0.8 * first
    task.prior.eval()
    found = task.validate()
    assert found == task.validate(), "always under the same noise"
    task.export(tmp_path, found)
    assert DiffusionPrior.from_pretrained(str(tmp_path)).config == model
