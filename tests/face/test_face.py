"""FaceModel, FaceMotion, MeshWarp and crops."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from talkface.face import topology as tp
from talkface.face.coefficients import MOUTH_COEFFICIENTS, SHAPE_COEFFICIENTS, UPPER_COEFFICIENTS
from talkface.face.crop import FACE_REGIONS, MOUTH_REGION, FaceRegion, cut, paste, region_matrix, transform
from talkface.face.model import FaceModel, Pose, estimate_pose
from talkface.face.motion import FaceMotion, split_deviations
from talkface.face.warp import WarpField, move_ring, resample, resample_tensor, with_ring


def rotation(x: float, y: float, z: float) -> np.ndarray:
    return cv2.Rodrigues(np.array([x, y, z], np.float64))[0].astype(np.float32)


def still(frames: int, face: FaceModel) -> FaceMotion:
    zeros = lambda width: np.zeros((frames, width), np.float32)  # noqa: E731
    return FaceMotion(
        zeros(len(face.mouth)), zeros(len(face.upper)), zeros(3), zeros(2), zeros(1) + 1, zeros(4)
    )


@settings(max_examples=25, deadline=None)
@given(
    st.floats(-0.4, 0.4),
    st.floats(-0.5, 0.5),
    st.floats(-0.4, 0.4),
    st.floats(30, 800),
    st.floats(-500, 2000),
)
def test_pose_is_recovered(x: float, y: float, z: float, scale: float, shift: float) -> None:
    face = FaceModel.from_pretrained()
    true = Pose(
        rotation(x, y, z)[None], np.array([scale], np.float32), np.array([[shift, 2 * shift, 0]], np.float32)
    )
    found = estimate_pose(true.apply(face.mean), face.mean)
    np.testing.assert_allclose(found.rotation, true.rotation, atol=2e-3)
    np.testing.assert_allclose(found.scale, true.scale, rtol=2e-3)


def test_a_motion_relative_to_a_portrait_turns_its_head(face: FaceModel) -> None:
    turned, turn = rotation(0, 0.3, 0), rotation(0.1, 0, 0.2)
    vector = cv2.Rodrigues(turn.astype(np.float64))[0].T.astype(np.float32)
    motion = replace(still(1, face), rotation=vector, gaze=np.full((1, 4), 0.01, np.float32))
    seen = motion.relative_to_camera(turned, np.full((1, 4), 0.02, np.float32))
    np.testing.assert_allclose(seen.rotation_matrices()[0], turn @ turned, atol=1e-5)
    np.testing.assert_allclose(seen.gaze, 0.03)
    assert seen.reference == "camera"
    with pytest.raises(ValueError, match="'portrait' is needed"):
        seen.relative_to_camera(turned, np.zeros((1, 4)))
    pose = Pose(turned[None], np.ones(1, np.float32), np.zeros((1, 3), np.float32))
    np.testing.assert_allclose(
        still(1, face).relative_to_camera(turned, np.zeros((1, 4))).rotation, pose.rotation_vectors, atol=1e-6
    )


def test_deviations_are_from_the_median_and_fall_into_named_parts(face: FaceModel) -> None:
    generator = np.random.default_rng(0)
    motion = replace(
        still(5, face),
        rotation=generator.normal(size=(5, 3)).astype(np.float32),
        scale=np.array([[0.9], [1.0], [1.2], [1.1], [1.3]], np.float32),
    )
    parts = split_deviations(motion.deviations())
    assert [part.shape[1] for part in parts.values()] == [UPPER_COEFFICIENTS, 3, 2, 1, 4]
    np.testing.assert_allclose(parts["scale"][:, 0], [-0.2, -0.1, 0.1, 0, 0.2], atol=1e-6)
    np.testing.assert_allclose(parts["rotation"], motion.rotation - np.median(motion.rotation, 0), atol=1e-6)


def test_widths_are_those_of_the_shipped_model(face: FaceModel) -> None:
    widths = len(face.identity), len(face.mouth), len(face.upper)
    assert widths == (SHAPE_COEFFICIENTS, MOUTH_COEFFICIENTS, UPPER_COEFFICIENTS)


def test_fit_explains_a_talking_face(face: FaceModel) -> None:
    rng = np.random.default_rng(0)
    motion = still(40, face)
    beta = rng.normal(0, 0.6, motion.beta_mouth.shape).astype(np.float32)
    shape = face.mean + np.tensordot(np.abs(beta[:, :4]), face.mouth[:4], 1)
    points = 120 * shape @ rotation(0, 0.2, 0.1).T + 300
    fit = face.fit(points)
    assert fit.error < 0.02
    assert np.abs(fit.motion.rotation - [0, 0.2, 0.1]).max() < 0.05
    rebuilt = fit.pose.apply(fit.neutral + face.expression(fit.motion) + fit.residual)
    np.testing.assert_allclose(rebuilt, points, atol=0.05)


def test_a_picture_with_open_mouth_has_a_closed_neutral(face: FaceModel) -> None:
    points = 150 * (face.mean + 0.6 * face.opening)[None] + 400
    fit = face.fit(points)
    gap = fit.neutral[tp.INNER_LIPS[1], 1] - fit.neutral[tp.INNER_LIPS[0], 1]
    assert abs(gap) < 1e-3
    opened = fit.neutral + face.expression(fit.motion)[0]
    assert opened[tp.INNER_LIPS[1], 1] - opened[tp.INNER_LIPS[0], 1] > 0.03


def test_lids_close_and_strengths_scale(face: FaceModel) -> None:
    eyes = face.eyelids()
    closed = (-eyes.open_gap * eyes.gap / np.square(eyes.gap).sum())[None].astype(np.float32)
    assert abs(eyes.openness(closed)[0]) < 1e-4
    assert eyes.complete(np.array([0.4]))[0] < 0.05, "half a blink becomes a blink"
    assert eyes.complete(np.array([0.9]))[0] == pytest.approx(0.9), "a lowered lid stays as it is"
    rng = np.random.default_rng(0)
    beta = rng.normal(size=(5, len(face.upper))).astype(np.float32)
    np.testing.assert_allclose(eyes.openness(eyes.with_openness(beta, np.full(5, 0.3))), 0.3, atol=1e-4)
    np.testing.assert_allclose(eyes.with_openness(beta, eyes.openness(beta)), beta, atol=1e-4)


def test_motion_round_trip_and_resampling(tmp_path: Path, face: FaceModel) -> None:
    motion = still(50, face)
    path = tmp_path / "motion.json"
    motion.to_json(path)
    assert json.loads(path.read_text())["fps"] == 25
    again = FaceMotion.from_json(path)
    assert len(again) == 50
    np.testing.assert_allclose(again.scale, motion.scale)
    assert again.reference == "portrait"


def test_a_motion_keeps_its_reference(tmp_path: Path, face: FaceModel) -> None:
    fitted = face.fit(np.stack([60 * face.mean + 100] * 4)).motion
    assert fitted.reference == "camera"
    path = tmp_path / "motion.json"
    fitted.to_json(path)
    for same in (
        fitted[1:],
        fitted.resample(np.arange(3) / 50),
        fitted[:1].resample(np.arange(3) / 50),
        FaceMotion.concatenate([fitted, fitted]),
        FaceMotion.from_json(path),
    ):
        assert same.reference == "camera"
    with pytest.raises(ValueError, match="reference"):
        FaceMotion.concatenate([fitted, still(2, face)])
    with pytest.raises(ValueError, match="not one of portrait, camera"):
        replace(fitted, reference="world")


def test_a_motion_file_without_a_reference_is_relative_to_a_portrait(tmp_path: Path, face: FaceModel) -> None:
    path = tmp_path / "motion.json"
    still(2, face).to_json(path)
    written = json.loads(path.read_text())
    del written["reference"]
    path.write_text(json.dumps(written))
    assert FaceMotion.from_json(path).reference == "portrait"


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 80), st.sampled_from([23.976, 25.0, 29.97, 30.0, 50.0, 60.0]))
def test_resampled_motion_stays_within_its_range(frames: int, fps: float) -> None:
    ramp = np.linspace(0, 1, frames, dtype=np.float32)[:, None]
    motion = FaceMotion(ramp, ramp, 0.3 * np.tile(ramp, 3), np.tile(ramp, 2), ramp, np.tile(ramp, 4))
    count = round(frames / 25 * fps)
    moved = motion.resample(np.arange(count) / fps)
    assert len(moved) == count
    assert moved.beta_mouth.min() >= 0
    assert moved.beta_mouth.max() <= 1
    assert (np.diff(moved.rotation[:, 0]) >= -1e-6).all()


def checker(size: int = 256) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    return np.stack([x % 256, y % 256, (x // 16 + y // 16) % 2 * 255], -1).astype(np.uint8)


def test_warp_to_itself_changes_nothing(face: FaceModel) -> None:
    warp = face.mesh_warp()
    mesh = with_ring((60 * face.mean + [128, 120, 0]).astype(np.float32))
    x, y = warp.field(mesh, mesh, (256, 256)).dense(256, 256)
    moved = cv2.remap(checker(), x, y, cv2.INTER_LINEAR)
    assert np.abs(moved.astype(int) - checker()).max() <= 1


@pytest.mark.parametrize("cell", [1.0, 2.0])
def test_both_ways_to_resample_agree(face: FaceModel, cell: float) -> None:
    warp = face.mesh_warp()
    mesh = with_ring((40 * face.mean + [128, 120, 0]).astype(np.float32))
    target = mesh * [1.02, 0.98, 1] + [1, 3, 0]
    field = warp.field(mesh, target.astype(np.float32), (int(256 / cell), int(256 / cell)), cell)
    smooth = cv2.GaussianBlur(checker(), (0, 0), 3)
    one = np.zeros_like(smooth)
    resample(smooth, field, one)
    picture = torch.from_numpy(smooth).permute(2, 0, 1)[None].float()
    two = resample_tensor(picture, field, 256, 256)[0].permute(1, 2, 0).numpy()
    assert np.abs(one[4:-4, 4:-4] - two[4:-4, 4:-4]).max() < 3


@settings(deadline=None)
@given(cell=st.floats(1.5, 12), width=st.integers(30, 200), height=st.integers(30, 200))
def test_coarse_fields_reach_to_the_border(cell: float, width: int, height: int) -> None:
    cells = int(np.ceil(width / cell)), int(np.ceil(height / cell))
    x, y = ((np.arange(n, dtype=np.float32) + 0.5) * cell - 0.5 for n in cells)
    grid = np.stack(np.broadcast_arrays(x, y[:, None]), -1)
    field = WarpField(grid, np.full(grid.shape[:2], -1, np.int32), cell)
    places, off = field.dense(width, height), cell / 32  # OpenCV's fractions of a cell
    np.testing.assert_allclose(places[0], np.broadcast_to(np.arange(width), (height, width)), atol=off)
    np.testing.assert_allclose(places[1].T, np.broadcast_to(np.arange(height), (width, height)), atol=off)


def test_warp_moves_the_face_and_leaves_the_far_background(face: FaceModel) -> None:
    warp = face.mesh_warp()
    mesh = with_ring((40 * face.mean + [128, 120, 0]).astype(np.float32))
    rigid = mesh + np.array([3, 0, 0], np.float32)
    target = move_ring(mesh, rigid, rigid[: tp.VERTICES])
    field = warp.field(mesh, target, (256, 256))
    x, y = field.dense(256, 256)
    nose = np.round(target[tp.NOSE_TIP, :2]).astype(int)
    assert abs(x[nose[1], nose[0]] - nose[0] + 3) < 0.3
    assert abs(x[5, 5] - 5) < 1e-3
    assert abs(y[250, 250] - 250) < 1e-3
    assert np.abs(np.diff(x, axis=1)).max() < 5, "no tear: neighbours stay neighbours"


@pytest.mark.parametrize("part", FACE_REGIONS, ids=lambda part: part.name)
def test_crops_are_upright_and_centred(part: FaceRegion, face: FaceModel) -> None:
    points = (200 * face.mean @ rotation(0, 0, 0.4).T + [500, 400, 0]).astype(np.float32)
    matrix = region_matrix(points, part)
    local = transform(points, matrix)
    eyes = local[263, :2] - local[33, :2]
    assert abs(eyes[1]) < 1.0, "the line of the eyes is level"
    inside = local[
        tp.LIPS_OUTER if part is MOUTH_REGION else tp.RIGHT_EYE if "right" in part.name else tp.LEFT_EYE, :2
    ]
    assert inside.min() > 0
    assert inside.max() < part.pixels
    assert cut(np.zeros((800, 1000, 3), np.uint8), matrix, part.pixels).shape == (part.pixels, part.pixels, 3)


def test_the_mesh_has_no_holes() -> None:
    warp = FaceModel.from_pretrained().mesh_warp()
    face = warp.triangles[warp.is_face > 0]
    assert len(face) == 2 * tp.VERTICES - 2 - len(tp.FACE_OVAL), (
        "a triangulation of all points within the oval"
    )
    assert warp.is_mouth.sum() == len(tp.LIPS_INNER) - 2
    assert warp.is_eye.sum() == 2 * (len(tp.RIGHT_EYE) - 2 + 2 * 5)
    edges = {frozenset(pair) for a, b, c in face.tolist() for pair in ((a, b), (b, c), (c, a))}
    assert all(frozenset(pair) in edges for pair in pairwise([*tp.FACE_OVAL.tolist(), int(tp.FACE_OVAL[0])]))


def test_a_smile_rests_closed_and_keeps_its_corners() -> None:
    face = FaceModel.from_pretrained()
    opened = (face.mean + 0.5 * face.opening) * 100
    fit = face.fit(opened[None])
    gap = fit.neutral[tp.LIPS_INNER_LOWER, 1] - fit.neutral[tp.LIPS_INNER_UPPER, 1]
    np.testing.assert_allclose(gap, 0, atol=1e-5)
    assert fit.neutral[tp.CHIN, 1] < (opened / 100)[tp.CHIN, 1], "the jaw has closed, not the lips alone"


@pytest.mark.parametrize(("width", "height"), [(40, 20), (20, 40), (30, 30)])
def test_a_pasted_layer_covers_its_whole_footprint(width: int, height: int) -> None:
    image = np.zeros((90, 90, 3), np.uint8)
    layer = np.concatenate([np.full((height, width, 3), 200.0), np.ones((height, width, 1))], 2)
    paste(image, layer.astype(np.float32), np.array([[1.0, 0, -10], [0, 1.0, -15]]))
    assert (image[15 : 15 + height, 10 : 10 + width] == 200).all()
    image[15 : 15 + height, 10 : 10 + width] = 0
    assert not image.any()
