"""TCCP with tiny random networks: what is hidden stays hidden, and everything fits together."""

import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from talkface.diffusion.autoencoder import FaceAutoencoder
from talkface.diffusion.base import Base
from talkface.diffusion.model import FaceDiffusion
from talkface.diffusion.sampling import in_dtype
from talkface.errors import InvalidOption, ModelUnavailable, NoFaceFound
from talkface.face.model import FaceModel, Pose
from talkface.face.motion import FaceMotion
from talkface.hub import save_pretrained
from talkface.media.source import SourceVideo
from talkface.nn.marks import weights_mark
from talkface.options import has_bf16_units, resolve_dtype
from talkface.systems.tccp.config import FACE, LANDMARKS, WINDOW_FRAMES, MVControlNetConfig
from talkface.systems.tccp.holes import Hole, face_hole
from talkface.systems.tccp.landmarks import LandmarkConfig, LandmarkTransformer, posed, rotations, view_matrix
from talkface.systems.tccp.model import MVControlNet, VideoSignal
from talkface.systems.tccp.neighbours import content_neighbours, neighbours
from talkface.systems.tccp.pipeline import TccpPipeline
from talkface.systems.tccp.placing import Landmarks, Outlines, fitted
from talkface.systems.tccp.views import pose_in_frame, pose_in_view

SIDE = 16


def tiny_base() -> Base:
    torch.manual_seed(0)
    return Base("tiny", FaceDiffusion.debug(), FaceAutoencoder.debug(), 256)


def a_signal(frames: int, drawing: bool = True, seed: int = 0) -> VideoSignal:
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(1, frames, 4, SIDE, SIDE, generator=generator)
    drawn = torch.randn(1, frames, 6, 4 * SIDE, 4 * SIDE, generator=generator) if drawing else None
    return VideoSignal.of(context, torch.ones(1, frames, 1, SIDE, SIDE), drawn, context)


def told(net: MVControlNet, frames: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    config = net.config
    audio = torch.randn(1, frames, config.words, config.audio, generator=generator) if config.audio else None
    lips = torch.randn(1, frames, config.words, config.lips, generator=generator) if config.lips else None
    return net.condition_tokens(torch.randn(1, 2, 4, SIDE, SIDE, generator=generator), audio, lips)


# -- MVControlNet ----------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [FACE, LANDMARKS, MVControlNetConfig(control=False)], ids=str)
def test_both_stages_begin_as_the_base_and_learn(config: MVControlNetConfig) -> None:
    """Zero convolutions and silent attention over time change nothing until they are trained."""
    net = MVControlNet(config, tiny_base().model)
    signal = a_signal(3, config.drawing)
    noisy, time = torch.randn(1, 3, 4, SIDE, SIDE), torch.tensor([0.5])
    tokens = told(net, 3)
    whole = net(noisy, time, tokens, signal)
    alone = [net(noisy[:, k : k + 1], time, tokens[:, k : k + 1], _part(signal, k)) for k in range(3)]
    torch.testing.assert_close(whole, torch.cat(alone, 1))
    net.train()
    other = MVControlNet(config, tiny_base().model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        goal = other(noisy, time, told(other, 3), signal)  # so that it can be learnt
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    losses = []
    for _ in range(20):
        loss = (net(noisy, time, told(net, 3), signal) - goal).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    moved = net(noisy, time, tokens, signal)
    alone = [net(noisy[:, k : k + 1], time, tokens[:, k : k + 1], _part(signal, k)) for k in range(3)]
    assert (moved - torch.cat(alone, 1)).abs().max() > 1e-4, "frames see each other now"


def _part(signal: VideoSignal, k: int) -> VideoSignal:
    drawing = None if signal.drawing is None else signal.drawing[:, k : k + 1]
    return VideoSignal(drawing, signal.maps[:, k : k + 1])


def test_the_base_is_not_changed_and_only_what_was_trained_is_saved(tmp_path: Path) -> None:
    base = tiny_base()
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    net = MVControlNet(FACE, base.model)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    for name, value in base.model.state_dict().items():
        torch.testing.assert_close(value, before[name])
    assert not any("resnets" in name and "branch" not in name for name in net.state_dict())
    config = {"class": "MVControlNet", "model": {}, "built_on": {"base": weights_mark(base.model)}}
    save_pretrained(tmp_path / "net", config, net.state_dict(), card=None)
    again = MVControlNet.from_pretrained(base.model, str(tmp_path / "net"))
    given = torch.randn(1, 2, 4, SIDE, SIDE), torch.tensor([0.3]), told(net, 2), a_signal(2)
    torch.testing.assert_close(again(*given), net.eval()(*given), rtol=2e-2, atol=2e-2)
    with torch.no_grad():
        next(base.model.parameters()).add_(1)
    with pytest.raises(ModelUnavailable, match="trained over another base"):
        MVControlNet.from_pretrained(base.model, str(tmp_path / "net"))


# -- stage 1 ---------------------------------------------------------------------------------------


@given(st.integers(0, 2**31))
def test_poses_go_to_a_view_and_back(seed: int) -> None:
    generator = np.random.default_rng(seed)
    pose = Pose(
        rotations(torch.from_numpy(generator.uniform(-0.8, 0.8, (1, 3)))).numpy(),
        generator.uniform(20, 300, 1).astype(np.float32),
        generator.uniform(0, 500, (1, 3)).astype(np.float32),
    )
    low = generator.uniform(0, 300, 2)
    matrix = view_matrix(np.concatenate([low, low + generator.uniform(40, 300, 2)]))
    told_pose = pose_in_view(pose, matrix)
    back = pose_in_frame(told_pose, matrix)
    np.testing.assert_allclose(back.rotation, pose.rotation, atol=1e-4)
    np.testing.assert_allclose(back.scale, pose.scale, rtol=1e-4)
    np.testing.assert_allclose(back.translation[:, :2], pose.translation[:, :2], atol=0.05)
    points = FaceModel.from_pretrained().mean[::40]
    seen = posed(torch.from_numpy(points), torch.from_numpy(told_pose)[None, None])[0, 0].numpy()
    expected = pose.apply(points)[0, :, :2] @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose((seen + 0.5) * 64 - 0.5, expected, atol=0.1)


def test_stage_1_does_not_see_what_is_hidden() -> None:
    torch.manual_seed(0)
    net = LandmarkTransformer(LandmarkConfig()).eval()
    views = torch.randn(1, 5, 4, 64, 64)
    views[:, :, 3] = 0
    views[:, :, :, 16:48, 16:48] = 0
    views[:, :, 3, 16:48, 16:48] = 1
    poses = net(views, torch.randn(1, 5, 4, 512), torch.randn(1, 40), torch.tensor([0.3]))
    assert poses.shape == (1, 5, 6)


@given(st.floats(0.8, 1.25), st.floats(-20, 20), st.floats(-20, 20), st.floats(-0.5, 0.5))
@settings(max_examples=20, deadline=None)
def test_a_face_is_as_large_as_its_hole(scale: float, across: float, down: float, turn: float) -> None:
    """Also where the frame's edge cuts the hole; without a hole, landmarks stay as they were."""
    face = FaceModel.from_pretrained()
    true = still_landmarks(3, size=60.0, place=(150.0, 140.0), rotation=(0.0, turn, 0.0))
    wrong = replace(true, size=true.size * scale, place=true.place + np.array([across, down]))
    for size in ((320, 300), (170, 300)):
        meshes = true.meshes(face, face.mean)
        holes = [Hole.of(face_hole(mesh, size, 0.25)) for mesh in meshes]
        boxes = [one.box if one else None for one in holes[:2]]
        found = fitted(wrong, Outlines([*boxes, None], size, 0.25), face, face.mean)
        np.testing.assert_allclose(found.size[:2], 60, rtol=0.04)
        np.testing.assert_allclose(found.place[:2], true.place[:2], atol=3)
        np.testing.assert_array_equal(found.place[2], wrong.place[2])


def still_landmarks(
    count: int, size: float, place: tuple[float, float], rotation: tuple[float, float, float]
) -> Landmarks:
    widths = {"beta_mouth": 28, "beta_upper": 16, "rotation": 3, "translation": 2, "scale": 1, "gaze": 4}
    still = {name: np.zeros((count, width), np.float32) for name, width in widths.items()}
    still["rotation"] = np.tile(np.array(rotation, np.float32), (count, 1))
    motion = FaceMotion(**still, reference="camera")
    return Landmarks(
        np.arange(count) / 25, np.ones(count, bool), np.tile(np.array(place), (count, 1)),
        np.full(count, size), motion,
    )  # fmt: skip


def test_landmarks_are_written_and_read(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rows = {"beta_mouth": 28, "beta_upper": 16, "rotation": 3, "translation": 2, "scale": 1, "gaze": 4}
    drawn = {k: generator.normal(0, 0.1, (6, n)).astype(np.float32) for k, n in rows.items()}
    motion = FaceMotion(**drawn, reference="camera")
    landmarks = Landmarks(
        np.arange(6) / 25, np.ones(6, bool), generator.uniform(0, 99, (6, 2)), np.full(6, 80.0), motion
    )
    landmarks.to_json(tmp_path / "lm.json")
    again = Landmarks.from_json(tmp_path / "lm.json")
    face = FaceModel.from_pretrained()
    np.testing.assert_allclose(again.meshes(face, face.mean), landmarks.meshes(face, face.mean), atol=0.02)


DAMAGED: dict[str, tuple[dict[str, object], str]] = {
    "other": ({"format": "another"}, "format is another"),
    "fps_text": ({"fps": "fast"}, "could not convert"),
    "fps_zero": ({"fps": 0}, "fps is 0"),
    "fps_list": ({"fps": [25]}, "must be a string or a real number"),
    "times_none": ({"times": []}, "times"),
    "times_number": ({"times": 3}, "times"),
    "there_short": ({"there": [True]}, "there has the shape"),
    "there_long": ({"there": [True] * 9}, "there has the shape"),
    "there_words": ({"there": ["yes"] * 6}, "there holds other values"),
    "size_short": ({"size": [80.0]}, "size has the shape"),
    "place_flat": ({"place": [1.0] * 6}, "place has the shape"),
    "gaze_ragged": ({"gaze": [[1.0]] * 5 + [[1.0, 2.0]]}, "array element"),
    "size_infinite": ({"size": [float("inf")] * 6}, "not finite"),
    "size_huge": ({"size": [10**400] * 6}, "too large"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_landmarks_are_refused(name: str, tmp_path: Path) -> None:
    changes, message = DAMAGED[name]
    path = tmp_path / "lm.json"
    still_landmarks(6, 80.0, (99.0, 99.0), (0.0, 0.0, 0.0)).to_json(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InvalidOption, match=f"holds no landmarks .*{message}") as refused:
        Landmarks.from_json(path)
    assert "\n" not in str(refused.value)


KEYS = ("format", "fps", "times", "there", "place", "size", "rotation", "beta_mouth", "beta_upper", "gaze")


@pytest.mark.parametrize("key", KEYS)
def test_landmarks_without_a_list_are_refused(key: str, tmp_path: Path) -> None:
    path = tmp_path / "lm.json"
    still_landmarks(6, 80.0, (99.0, 99.0), (0.0, 0.0, 0.0)).to_json(path)
    content = json.loads(path.read_text())
    del content[key]
    path.write_text(json.dumps(content))
    with pytest.raises(InvalidOption, match=f"holds no landmarks: it has no '{key}'"):
        Landmarks.from_json(path)


@pytest.mark.parametrize("text", ["", "[]", "3", "null", "no landmarks", "{", "\x00"])
def test_what_is_no_landmark_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "lm.json").write_text(text)
    with pytest.raises(InvalidOption, match="holds no landmarks"):
        Landmarks.from_json(tmp_path / "lm.json")


def test_landmarks_are_relative_to_the_camera(tmp_path: Path) -> None:
    landmarks = still_landmarks(2, 80.0, (50, 50), (0, 0.1, 0))
    with pytest.raises(ValueError, match="'portrait'; 'camera' is needed"):
        replace(landmarks, motion=replace(landmarks.motion, reference="portrait"))
    path = tmp_path / "lm.json"
    landmarks.to_json(path)
    written = json.loads(path.read_text())
    assert written.pop("reference") == "camera"
    path.write_text(json.dumps(written))
    assert Landmarks.from_json(path).motion.reference == "camera", "files had no reference once"
    path.write_text(json.dumps(written | {"reference": "portrait"}))
    with pytest.raises(InvalidOption, match="reference portrait"):
        Landmarks.from_json(path)


@given(st.integers(1, 30), st.integers(0, 3))
def test_neighbours_keep_the_middle(frames: int, reach: int) -> None:
    values = np.arange(frames)
    np.testing.assert_array_equal(neighbours(values, reach)[:, reach], values)
    assert neighbours(values, reach).shape == (frames, 2 * reach + 1)
    sound = np.arange(2 * frames)
    np.testing.assert_array_equal(content_neighbours(sound)[:, 1], sound[::2])


# -- both ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipeline() -> TccpPipeline:
    """All of fill, with tiny random networks."""
    return TccpPipeline.debug()


def write_lossless(path: Path, frames: list[np.ndarray]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_what_is_under_the_mask_does_not_matter(
    pipeline: TccpPipeline, talking: Path, speech: Path, portrait: Path, tmp_path: Path
) -> None:
    """The same landmarks and pictures come out whatever the hole held, and around it nothing changes."""
    real = [frame.image for frame in SourceVideo(talking).frames()][:10]
    height, width = real[0].shape[:2]
    left, top, across, down = width // 4, height // 5, width // 2, 3 * height // 5
    part = slice(top, top + down), slice(left, left + across)
    spoilt = [frame.copy() for frame in real]
    for frame in spoilt:
        frame[part] = 255 - frame[part]
    videos = write_lossless(tmp_path / "real.mkv", real), write_lossless(tmp_path / "spoilt.mkv", spoilt)
    one, other = (
        pipeline(video, speech, identity=portrait, mask=f"{left},{top},{across},{down}", steps=1)[0]
        for video in videos
    )
    np.testing.assert_array_equal(one.landmarks.place, other.landmarks.place)
    outside = np.ones((height, width), bool)
    outside[part] = False
    for a, b, c in zip(one, other, real, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a[outside], c[outside])
        assert (a[~outside] != c[~outside]).any()


def test_context_that_is_left_out_does_not_matter(
    pipeline: TccpPipeline, talking: Path, speech: Path, portrait: Path, tmp_path: Path
) -> None:
    real = [frame.image for frame in SourceVideo(talking).frames()][:6]
    other = [255 - frame for frame in real]
    videos = write_lossless(tmp_path / "real.mkv", real), write_lossless(tmp_path / "other.mkv", other)
    height, width = real[0].shape[:2]
    box = f"{width // 4},{height // 5},{width // 2},{3 * height // 5}"
    for without, same in (((), False), (("context",), True)):
        one, two = (
            pipeline(video, speech, identity=portrait, mask=box, without=without)[0].landmarks
            for video in videos
        )
        assert bool(np.allclose(one.place, two.place)) is same


@pytest.mark.slow
def test_takes_differ_and_repeat(pipeline: TccpPipeline, talking: Path, speech: Path, portrait: Path) -> None:
    given = {"identity": portrait, "mask": "auto", "steps": 1, "stop": 0.4, "seed": 4}
    one, two = (list(take) for take in pipeline(talking, speech, takes=2, **given))
    again = list(pipeline(talking, speech, **given)[0])
    assert len(one) == len(again)
    for a, b in zip(one, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(one, two, strict=True))


def test_chained_windows_go_on_from_what_was_drawn(
    pipeline: TccpPipeline, talking: Path, speech: Path, portrait: Path
) -> None:
    """The first frame of a shot is drawn alone, so that only from the second on does it matter."""
    given = {"identity": portrait, "steps": 1, "stop": 0.4}
    free, chained = (list(pipeline(talking, speech, **given, chained=one)[0]) for one in (False, True))
    assert len(free) == len(chained)
    assert any((a != b).any() for a, b in zip(free, chained, strict=True))


def test_larger_faces_are_finer(pipeline: TccpPipeline, talking: Path, speech: Path, portrait: Path) -> None:
    """The networks see the same; the face of the portrait is moved at the size that is asked for."""
    small, large = (
        pipeline(talking, speech, identity=portrait, steps=1, resolution=side, stop=0.1)[0]
        for side in (256, 512)
    )
    assert [one.identity.images[0].shape[0] for one in (small, large)] == [256, 512]
    np.testing.assert_allclose(small.identity.neutral, large.identity.neutral, atol=0.05)
    for a, b in zip(small, large, strict=True):
        assert 0 < np.abs(a.astype(np.float32) - b).mean() < 4
    with pytest.raises(InvalidOption, match="choose 256 or 512"):
        pipeline(talking, speech, identity=portrait, resolution=300)


def test_edited_landmarks_are_drawn(
    pipeline: TccpPipeline, talking: Path, speech: Path, portrait: Path, tmp_path: Path
) -> None:
    given = {"identity": portrait, "steps": 1, "stop": 0.6}
    first = pipeline(talking, speech, **given)[0]
    first.landmarks.to_json(tmp_path / "lm.json")
    again = pipeline(talking, speech, landmarks=tmp_path / "lm.json", **given)[0]
    np.testing.assert_allclose(again.landmarks.place, first.landmarks.place, atol=0.01)
    assert len(list(again)) == len(first)


def test_wrong_identities_are_refused(
    pipeline: TccpPipeline, talking: Path, speech: Path, tmp_path: Path, portrait: Path
) -> None:
    Image.fromarray(np.full((200, 200, 3), 90, np.uint8)).save(tmp_path / "nobody.png")
    with pytest.raises(NoFaceFound, match=r"nobody\.png"):
        pipeline(talking, speech, identity=tmp_path / "nobody.png")
    one = Image.open(portrait).convert("RGB").resize((400, 400))
    both = Image.new("RGB", (800, 400))
    both.paste(one, (0, 0))
    both.paste(one, (400, 0))
    both.save(tmp_path / "two.png")
    with pytest.raises(InvalidOption, match="faces"):
        pipeline(talking, speech, identity=tmp_path / "two.png")
    with pytest.raises(InvalidOption, match="1 to 8"):
        pipeline(talking, speech, identity=[])


def test_dtypes() -> None:
    cpu = torch.device("cpu")
    assert resolve_dtype("float32", cpu) == torch.float32
    assert resolve_dtype("auto", cpu) == (torch.bfloat16 if has_bf16_units() else torch.float32)
    with pytest.raises(InvalidOption, match="int8"):
        resolve_dtype("int8", cpu)
    double = in_dtype(lambda noisy, time: noisy @ noisy, torch.bfloat16)
    square = torch.full((1, 4, 8, 8), 0.3)
    assert double(square, torch.zeros(1)).dtype == torch.float32
    torch.testing.assert_close(double(square, torch.zeros(1)), square @ square, atol=0.01, rtol=0)


def test_a_window_holds_what_the_networks_were_trained_on() -> None:
    assert FACE.frames >= WINDOW_FRAMES
