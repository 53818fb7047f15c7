"""G4G: networks, losses, references, geometry, masks, the lips' clock and its trainings, on tiny models."""

import json
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from talkface.face import topology as tp
from talkface.face.masks import lower_face_mask, lower_face_outline
from talkface.face.model import FaceModel
from talkface.face.occlusion import OcclusionNet
from talkface.face.people import scan
from talkface.face.tracker import FaceTracker
from talkface.hub import save_pretrained
from talkface.media.video import Frame
from talkface.nn.threads import shared_cores
from talkface.performance.config import SPEECH_WINDOW
from talkface.performance.lip_track import LipTrack
from talkface.performance.lips import SpokenLips
from talkface.systems.g4g.bank import FaceCrops, gather
from talkface.systems.g4g.config import PAPER, GeneratorConfig
from talkface.systems.g4g.drawing import MOUTH_CROP_PIXELS, hidden_region
from talkface.systems.g4g.experts import SYNC_CROP_PIXELS, SyncExpert, SyncExpertConfig
from talkface.systems.g4g.geometry import MouthRange, Retargeter, mesh_code, mouth_shape
from talkface.systems.g4g.losses import diagonal_alignment, multi_scale, pairwise_alignment, retrieval
from talkface.systems.g4g.model import Generator, GeneratorInputs, GeneratorOutput
from talkface.systems.g4g.references import Chooser, spread
from talkface.systems.g4g.renderer import FaceEdit, MouthRenderer
from talkface.training import TrainerConfig, overfit_one_batch
from talkface.training.datasets.augmentation import augment_mouths, draw_augmentation, sampling_matrices
from talkface.training.run import load_recipe
from talkface.training.tasks.g4g_alignment import AlignmentTask, GeneratorTrainConfig
from talkface.training.tasks.g4g_experts import ExpertTask, ExpertTrainConfig, offset_accuracy, too_near
from talkface.training.tasks.g4g_generator import GeneratorTask

TINY = GeneratorConfig(content=16, code=16, embedding=16, widths=(8, 16, 16))


@pytest.fixture(scope="module")
def face() -> FaceModel:
    return FaceModel.from_pretrained()


def inputs(config: GeneratorConfig, batch: int = 2, seed: int = 0) -> GeneratorInputs:
    """Random inputs; the middle of the crop is hidden."""
    random = torch.Generator().manual_seed(seed)
    side, half, count = config.pixels, config.pixels // 2, config.references

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random)

    hidden = torch.zeros(batch, 1, side, side)
    hidden[..., side // 3 : -side // 3, side // 4 : -side // 4] = 1.0
    return GeneratorInputs(
        context=rand(batch, 3, side, side),
        hidden=hidden,
        maps=rand(batch, config.maps, half, half),
        mesh=rand(batch, config.mesh),
        references=rand(batch, count, 3, side, side),
        grids=2 * rand(batch, count, half, half, 2) - 1,
        seeds=rand(batch, count, 3, side, side),
        content=rand(batch, 2 * SPEECH_WINDOW, config.content),
        level=-20 * rand(batch, 2 * SPEECH_WINDOW),
    )


def total(drawn: GeneratorOutput, given: GeneratorInputs) -> Tensor:
    """A loss of everything that is drawn."""
    parts = [drawn.picture(given.seeds, given.context), *drawn.scales, drawn.visual, drawn.audio]
    return sum((part.square().mean() for part in parts), torch.zeros(()))


# -- networks --------------------------------------------------------------------------------------


def test_what_is_drawn_has_its_shapes_and_ranges() -> None:
    torch.manual_seed(0)
    generator = Generator.debug()
    given = inputs(generator.config, 3)
    with torch.no_grad():
        drawn = generator(given)
    assert drawn.weights.shape == (3, 2, MOUTH_CROP_PIXELS, MOUTH_CROP_PIXELS)
    assert drawn.residual.shape == drawn.color.shape == (3, 3, MOUTH_CROP_PIXELS, MOUTH_CROP_PIXELS)
    assert drawn.mask.shape == drawn.alpha.shape == (3, 1, MOUTH_CROP_PIXELS, MOUTH_CROP_PIXELS)
    assert [tuple(scale.shape) for scale in drawn.scales] == [(3, 3, 16, 16), (3, 3, 32, 32)]
    torch.testing.assert_close(drawn.weights.sum(1), torch.ones(3, MOUTH_CROP_PIXELS, MOUTH_CROP_PIXELS))
    for part in (drawn.weights, drawn.mask, drawn.alpha, *drawn.scales):
        assert 0 <= part.min() <= part.max() <= 1
    assert (drawn.alpha[given.hidden == 0] == 0).all()
    assert (drawn.alpha[given.hidden == 1] > 0.5).all()
    for embedding in (drawn.visual, drawn.audio):
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3))
    picture = drawn.picture(given.seeds, given.context)
    outside = (given.hidden == 0).expand_as(picture)
    assert torch.equal(picture[outside], given.context[outside])
    assert not torch.allclose(picture[~outside], given.context[~outside])


def test_remembered_references_give_the_same_as_fresh_ones() -> None:
    torch.manual_seed(0)
    generator = Generator.debug()
    given = inputs(generator.config, 2)
    bank = given.references.flatten(0, 1)
    order = torch.tensor([[3, 1], [0, 2]])
    with torch.no_grad():
        remembered = [features[order] for features in generator.remember(bank)]
        fresh = generator(replace(given, references=bank[order]))
        kept = generator(given, remembered)
    for name in ("weights", "residual", "color", "mask", "alpha", "visual"):
        torch.testing.assert_close(getattr(kept, name), getattr(fresh, name))


@pytest.mark.parametrize("switch", ["intra_modal", "fusion", "seeded"])
def test_ablations_build_run_and_differ(switch: str) -> None:
    torch.manual_seed(0)
    config = replace(TINY, **{switch: False})
    generator = Generator(config).train()
    given = inputs(config, 1)
    drawn = generator(given)
    total(drawn, given).backward()
    if switch == "fusion":
        assert generator.fusion is None
        assert torch.equal(drawn.alpha, given.hidden)
    if switch == "intra_modal":  # the face is not seen in the mesh's terms
        other = replace(given, mesh=given.mesh + 1)
        with torch.no_grad():
            faces = [Generator.see(generator, i.context, i.hidden, i.maps, i.mesh) for i in (given, other)]
        assert torch.equal(faces[0][0][-1], faces[1][0][-1])
        assert not torch.equal(faces[0][1], faces[1][1]), "but the decoder is told"


def test_one_scale_builds_and_runs() -> None:
    config = replace(TINY, scales=1)
    generator = Generator(config)
    assert len(generator.transforms) == 1
    assert torch.isfinite(generator(inputs(config, 1)).color).all()


def test_gradients_reach_every_part() -> None:
    torch.manual_seed(0)
    generator = Generator.debug().train()
    for parameter in generator.parameters():  # parts that begin as zeros let nothing through at first
        torch.nn.init.normal_(parameter, std=0.1)
    given = inputs(generator.config)
    drawn = generator(given)
    clip, frame = torch.zeros(2, dtype=torch.long), torch.tensor([0, 40])
    aligned = diagonal_alignment(drawn.visual, drawn.audio, generator.temperature, clip, frame)
    (total(drawn, given) + aligned).backward()
    without = [n for n, p in generator.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("visual", ["stacked", "recurrent"])
def test_expert_embeds_windows_of_five_frames(visual: str) -> None:
    torch.manual_seed(0)
    config = SyncExpertConfig(visual=visual, content=16, widths=(8, 8, 8, 8), audio=16, embedding=16)
    expert = SyncExpert(config).eval()
    mouths = torch.rand(2, 9, 3, SYNC_CROP_PIXELS, SYNC_CROP_PIXELS)
    with torch.no_grad():
        video = expert.embed_video(mouths)
        audio = expert.embed_audio(torch.randn(2, 18, 16), -torch.rand(2, 18))
        looked, seen = expert.embed_with_features(mouths[:, 2:7])
        apart = expert.embed_video(mouths, 2)
    assert video.shape == audio.shape == (2, 5, 16)
    torch.testing.assert_close(looked, video[:, 2])
    torch.testing.assert_close(apart, video[:, ::2])
    assert len(seen) >= 4
    logits = expert.logits(video[0], audio[0])
    assert logits.shape == (5, 5)
    assert (logits <= 0).all()
    assert (expert.logits(video[0], video[0]).argmax(1) == torch.arange(5)).all()


def test_offset_is_found_among_others() -> None:
    sound = np.random.default_rng(0).standard_normal((60, 8))
    assert offset_accuracy(sound, sound) == (1.0, 1.0)
    assert offset_accuracy(np.roll(sound, 5, 0), sound)[1] == 0.0
    assert offset_accuracy(np.random.default_rng(1).standard_normal((60, 8)), sound)[0] < 0.4


def test_paper_recipe_is_the_paper_preset() -> None:
    recipe = Path(__file__).parents[3] / "recipes" / "g4g-paper.yaml"
    assert load_recipe(recipe).config.model == PAPER


def test_paper_preset_has_its_size() -> None:
    with torch.device("meta"):
        generator = Generator(PAPER)
    count = sum(parameter.numel() for parameter in generator.parameters())
    assert count == pytest.approx(60.3e6, rel=0.01)
    narrow = replace(PAPER, content=16, code=16, embedding=16, widths=(8, 12, 16, 16))
    torch.manual_seed(0)
    generator = Generator(narrow)
    given = inputs(narrow, 1)
    assert given.context.shape[-1] == 256
    drawn = generator(given)
    assert [scale.shape[-1] for scale in drawn.scales] == [16, 32, 64]
    before = total(drawn, given)
    before.backward()
    optimizer = torch.optim.Adam(generator.parameters(), 1e-3)
    optimizer.step()
    with torch.no_grad():
        assert total(generator(given), given) < 0.99 * before


# -- losses ----------------------------------------------------------------------------------------


def embeddings(count: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, 32, generator=random), dim=1)


@pytest.mark.parametrize("align", [diagonal_alignment, pairwise_alignment])
def test_alignment_prefers_what_belongs_together(align: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    x, temperature = embeddings(24), torch.tensor(2.3)
    clip, frame = torch.arange(24) // 6, torch.arange(24) % 6 * 5
    matched = align(x, x, temperature, clip, frame)
    assert matched < 0.5 * align(x, x.roll(1, 0), temperature, clip, frame)


def test_near_frames_are_no_negatives() -> None:
    x, temperature = embeddings(8), torch.tensor(4.0)
    x = x[[0, 0, 2, 3, 4, 5, 6, 7]]  # two frames that look and sound alike
    clip = torch.zeros(8, dtype=torch.long)
    apart = torch.tensor([0, 10, 20, 30, 40, 50, 60, 70])
    near = torch.tensor([0, 2, 20, 30, 40, 50, 60, 70])
    far = diagonal_alignment(x, x, temperature, clip, apart)
    assert diagonal_alignment(x, x, temperature, clip, near) < 0.1 * far
    other_clip = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7])
    torch.testing.assert_close(diagonal_alignment(x, x, temperature, other_clip, near), far)
    # With two frames of which each is near the other, the ordinary contrast has nothing else to take.
    torch.manual_seed(0)
    far = pairwise_alignment(x, x, temperature, clip, apart)
    assert pairwise_alignment(x, x, temperature, clip, near) <= far


def test_retrieval_counts_faces_that_find_their_sound() -> None:
    x = embeddings(10)
    assert retrieval(x, x).mean() == 1
    assert retrieval(x, x.roll(1, 0)).mean() == 0
    swapped = x[[1, 0, *range(2, 10)]]
    assert retrieval(x, swapped).tolist() == [0, 0, *[1] * 8]


def test_multi_scale_supervision_looks_under_the_mask_only() -> None:
    target = torch.rand(2, 3, 64, 64)
    weight = torch.zeros(2, 1, 64, 64)
    weight[..., :32] = 1
    small = torch.nn.functional.adaptive_avg_pool2d(target, 16)
    assert multi_scale([small], target, weight) < 1e-6
    spoilt = small.clone()
    spoilt[..., 8:] += 1
    assert multi_scale([spoilt], target, weight) < 1e-6
    spoilt[..., :8] += 1
    assert multi_scale([small, spoilt], target, weight) > 0.1


# -- references ------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    times=st.lists(st.floats(0, 20), min_size=6, max_size=12, unique=True),
    moments=st.lists(st.floats(0, 20), min_size=1, max_size=20),
)
def test_references_are_not_of_the_moment(times: list[float], moments: list[float]) -> None:
    seen = np.array(times)
    choose = Chooser(np.random.default_rng(0).standard_normal((len(seen), 6)), seen, 2)
    for moment in sorted(moments):
        chosen = choose(np.zeros(6), moment)
        assert len(chosen) == len(set(chosen)) == 2
        free = np.abs(seen - moment) >= choose.apart
        assert free[chosen].all() or free.sum() < 2


def test_references_stay_unless_another_is_clearly_nearer() -> None:
    choose = Chooser(np.array([[0.0], [1.0], [10.0]]), np.array([50.0, 60.0, 70.0]), 1)
    assert choose(np.array([0.4]), 0.0) == [0]
    assert choose(np.array([0.55]), 0.04) == [0]
    assert choose(np.array([0.9]), 0.08) == [1]
    assert choose(np.array([0.45]), 0.12) == [1]


def test_too_few_references_are_repeated() -> None:
    assert Chooser(np.zeros((1, 6)), np.array([3.0]), 3)(np.zeros(6), 3.0) == [0, 0, 0]


@settings(deadline=None)
@given(count=st.integers(1, 12), total=st.integers(1, 40), seed=st.integers(0, 99))
def test_spread_takes_the_closed_mouth_and_what_is_far_from_it(count: int, total: int, seed: int) -> None:
    candidates = np.random.default_rng(seed).standard_normal((total, 6)).astype(np.float32)
    chosen = spread(candidates, count)
    assert len(chosen) == min(count, total)
    assert candidates[:, 0].argmin() in chosen
    assert (np.diff(chosen) > 0).all()


def test_spread_does_not_repeat_what_is_alike() -> None:
    assert spread(np.zeros((5, 6), np.float32), 3).tolist() == [0]
    corners = np.array([[0, 0], [0.1, 0], [5, 0], [5, 0.1], [5, 9]], np.float32)
    assert spread(corners, 3).tolist() == [0, 2, 4] or spread(corners, 3).tolist() == [0, 3, 4]


# -- geometry --------------------------------------------------------------------------------------


def tracked(face: FaceModel, beta_mouth: np.ndarray, turn: float = 0.0) -> np.ndarray:
    """Faces (T, 478, 3) in pixels with these mouths (T, M), turned by radians."""
    cosine, sine = np.cos(turn), np.sin(turn)
    rotation = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
    shapes = face.mean + np.tensordot(beta_mouth, face.mouth, 1)
    return (60 * shapes @ rotation.T + [128, 128, 0]).astype(np.float32)


def opening(points: np.ndarray) -> np.ndarray:
    """Signed gap of the inner lips (T,)."""
    upper, lower = tp.INNER_LIPS
    return points[:, lower, 1] - points[:, upper, 1]


def mouths(face: FaceModel, openings: list[float]) -> np.ndarray:
    """Coefficients (T, M) that open the mouth by so much, canonical units."""
    upper, lower = tp.INNER_LIPS
    direction = face.mouth[:, lower, 1] - face.mouth[:, upper, 1]
    return np.outer(openings, direction / (direction @ direction)).astype(np.float32)


def test_a_share_of_zero_leaves_a_face_as_it_is(face: FaceModel) -> None:
    points = tracked(face, mouths(face, [0.1, 0.3, 0.0]), 0.2)
    retarget = Retargeter(face, face.mean, 25)
    moved = retarget(points, mouths(face, [0.5, 0.0, 0.2]), np.zeros(3, np.float32))
    np.testing.assert_allclose(moved.points, points, atol=0.02)


def test_lips_do_what_is_wanted_and_the_rest_of_the_face_stays(face: FaceModel) -> None:
    points = tracked(face, mouths(face, [0.25, 0.1, 0.0]))
    wanted = mouths(face, [0.0, 0.1, 0.3])
    moved = Retargeter(face, face.mean, 25)(points, wanted, np.ones(3, np.float32))
    expected = mouth_shape(face, wanted)[:, 0] - (face.mean[13, 1] - face.mean[14, 1])
    np.testing.assert_allclose(opening(moved.points) / 60, expected, atol=0.03)
    np.testing.assert_allclose(moved.points[:, tp.FOREHEAD], points[:, tp.FOREHEAD], atol=0.5)
    was = mouth_shape(face, moved.original)[:, 0]
    np.testing.assert_allclose(was, mouth_shape(face, mouths(face, [0.25, 0.1, 0.0]))[:, 0], atol=0.03)


def test_closed_lips_meet_and_never_cross(face: FaceModel) -> None:
    points = tracked(face, mouths(face, [0.3, 0.3, 0.3]))
    moved = Retargeter(face, face.mean, 25)(points, mouths(face, [0.0, -0.1, -0.5]), np.ones(3, np.float32))
    upper, lower = np.array(tp.LIPS_INNER_UPPER), np.array(tp.LIPS_INNER_LOWER)
    upright = moved.pose.invert(moved.points)
    gap = upright[:, lower, 1] - upright[:, upper, 1]
    assert gap.min() > -1e-4
    np.testing.assert_allclose(gap[2], 0, atol=1e-4)
    assert np.abs(opening(moved.points)[1:]).max() < 0.5  # pixels


def test_a_retargeter_forgets_at_a_cut(face: FaceModel) -> None:
    rest = np.zeros((10, len(face.mouth)), np.float32)
    one, two = tracked(face, rest), tracked(face, rest)
    two[:, tp.CHIN, 1] += 4.0  # another face shape below the lips
    share = np.ones(10, np.float32)
    fresh = Retargeter(face, face.mean, 25)(two, rest, share)
    retarget = Retargeter(face, face.mean, 25)
    retarget(one, rest, share)
    carried = retarget(two, rest, share)
    assert np.abs(carried.points - fresh.points).max() > 0.5
    retarget.forget()
    np.testing.assert_array_equal(retarget(two, rest, share).points, fresh.points)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_mouth_range_has_limits(openings: list[float]) -> None:
    seen = MouthRange.seen(np.array(openings))
    assert 0.65 <= seen.gain <= 1.35
    assert seen.limit >= max(0.12, *openings)


def test_mouth_range_of_the_still_is_usual_and_grows_with_liveliness() -> None:
    assert MouthRange.seen(np.full(20, 0.1)).gain == 1.0
    quiet, usual, lively = (MouthRange.seen(np.linspace(0, width, 50)).gain for width in (0.06, 0.139, 0.3))
    assert quiet < 0.8 < usual < 1.1 < lively


@given(scale=st.floats(0, 20), widest=st.floats(0.02, 0.3))
def test_mouths_stay_within_their_range(scale: float, widest: float) -> None:
    face = FaceModel.from_pretrained()
    opening = lambda beta: float(mouth_shape(face, beta[None])[0, 0])  # noqa: E731
    unit = np.zeros(len(face.mouth), np.float32)
    unit[0] = 1.0 if opening(np.eye(len(face.mouth), dtype=np.float32)[0]) > 0 else -1.0
    wanted, mouth = scale * unit, MouthRange.seen(np.linspace(0, widest, 50))
    fitted = mouth.fit(face, wanted)
    assert opening(fitted) <= mouth.limit + 1e-5
    if mouth.gain * opening(wanted) <= 0.7 * mouth.limit:
        np.testing.assert_allclose(fitted, mouth.gain * wanted, rtol=1e-6)


def test_mesh_code_is_bounded() -> None:
    code = mesh_code(np.full((2, 28), 99.0), np.full((2, 3), -9.0))
    assert code.shape == (2, 31)
    assert np.abs(code).max() == 5


# -- masks -----------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(turn=st.floats(-0.6, 0.6), x=st.floats(-40, 300), y=st.floats(-40, 300), size=st.floats(15, 120))
def test_lower_face_mask_is_zero_outside_its_outline(turn: float, x: float, y: float, size: float) -> None:
    import cv2

    face = FaceModel.from_pretrained()
    points = tracked(face, np.zeros((1, len(face.mouth)), np.float32), turn)[0]
    points = (points - [128, 128, 0]) * (size / 60) + [x, y, 0]
    mask = lower_face_mask(points, (256, 240))
    assert mask.shape == (240, 256)
    assert 0 <= mask.min() <= mask.max() <= 1
    outline = lower_face_outline(points).astype(np.float32)
    rows, columns = np.nonzero(mask)
    for row, column in list(zip(rows, columns, strict=True))[:: max(1, len(rows) // 50)]:
        assert cv2.pointPolygonTest(outline, (float(column), float(row)), True) > -1.5
    eyes = points[[33, 263], :2].round().astype(int)
    inside = ((eyes >= 0) & (eyes < [256, 240])).all(1)
    assert not mask[eyes[inside, 1], eyes[inside, 0]].any()


def test_threads_come_back_from_where_cores_are_shared() -> None:
    before = torch.get_num_threads()
    with shared_cores(stages=1000):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with suppress(ValueError), shared_cores():
        raise ValueError("broken")
    assert torch.get_num_threads() == before


def test_what_is_hidden_lies_around_the_lips(face: FaceModel) -> None:
    from talkface.face.crop import MOUTH_REGION, region_matrix, transform
    from talkface.face.warp import with_ring

    points = tracked(face, mouths(face, [0.2]))[0]
    goal = transform(with_ring(points), region_matrix(points, MOUTH_REGION))
    hidden = hidden_region(goal)
    lips = goal[tp.LIPS_OUTER, :2].round().astype(int)
    assert hidden[lips[:, 1], lips[:, 0]].min() > 0.95
    border = np.ones((MOUTH_CROP_PIXELS, MOUTH_CROP_PIXELS), bool)
    border[2:-2, 2:-2] = False
    assert not hidden[border].any()


# -- the lips' clock -------------------------------------------------------------------------------

LENGTH = 330
BETA = np.random.default_rng(0).standard_normal((LENGTH, 4)).astype(np.float32)
GATE = np.random.default_rng(1).random(LENGTH).astype(np.float32)
CONTENT = torch.randn(2 * LENGTH, 8, generator=torch.Generator().manual_seed(2))
LEVEL = -30 * torch.rand(2 * LENGTH, generator=torch.Generator().manual_seed(3))


def stretches(step: int = 100) -> Iterator[SpokenLips]:
    for start in range(0, LENGTH, step):
        own, double = slice(start, start + step), slice(2 * start, 2 * (start + step))
        yield SpokenLips(BETA[own], GATE[own], torch.zeros(0), CONTENT[double], LEVEL[double])


@settings(max_examples=40, deadline=None)
@given(
    times=st.lists(st.floats(0, LENGTH / 25 - 0.5), min_size=1, max_size=40),
    step=st.sampled_from([7, 40, 100, 400]),
)
def test_lips_of_any_time_are_those_of_the_whole(times: list[float], step: int) -> None:
    track = LipTrack(stretches(step))
    for time in sorted(times):
        found, place = track.at(time), 25 * time
        low, share = int(place), place - int(place)
        beta = (1 - share) * BETA[low] + share * BETA[low + 1]
        np.testing.assert_allclose(found.beta_mouth, beta, atol=1e-4)
        assert found.gate == pytest.approx((1 - share) * GATE[low] + share * GATE[low + 1], abs=1e-5)
        around = 2 * int(place + 0.5) + np.arange(-SPEECH_WINDOW + 1, SPEECH_WINDOW + 1)
        np.testing.assert_array_equal(found.content, CONTENT.numpy()[around.clip(0)])
        np.testing.assert_array_equal(found.level, LEVEL.numpy()[around.clip(0)])


def test_steps_back_by_a_few_frames_are_allowed() -> None:
    track, again = LipTrack(stretches()), LipTrack(stretches())
    track.at(9.0)
    np.testing.assert_array_equal(track.at(8.8).beta_mouth, again.at(8.8).beta_mouth)


def test_the_mouth_is_closed_when_the_speech_is_over() -> None:
    track = LipTrack(stretches())
    for time in (LENGTH / 25, LENGTH / 25 + 0.3, 60.0, 3600.0):
        found = track.at(time)
        assert not found.beta_mouth.any()
        assert found.gate == 0
        assert np.isfinite(found.content).all()
        assert time < 14 or (found.level == -60).all()


def test_little_is_held_however_far_one_goes() -> None:
    def endless() -> Iterator[SpokenLips]:
        while True:
            yield from stretches()

    track = LipTrack(endless())
    tracemalloc.start()
    track.at(3000.0)
    for time in np.arange(3000, 3060, 0.2):
        track.at(time)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < peak < 60 * 25 * (2 * 8 + 2 + 4 + 1) * 4, "not as much as a minute"


# -- trainings -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def expert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random expert of real content features, as the hub reads it."""
    torch.manual_seed(0)
    model = SyncExpert(SyncExpertConfig(widths=(8, 8, 8, 8), audio=16, embedding=16))
    folder = tmp_path_factory.mktemp("expert")
    save_pretrained(folder, model.config_dict(), model.state_dict())
    return folder


SMALL = replace(TINY, content=512)
QUICK = TrainerConfig(max_steps=60, lr=3e-3, warmup_steps=2, device="cpu")


def generator_config(expert: Path, model: GeneratorConfig = SMALL, **others: float) -> GeneratorTrainConfig:
    return GeneratorTrainConfig(
        model=model, smallest_unit=0.0, aligned_clips=2, expert=str(expert), stretches=1, bank=4, **others
    )


def test_alignment_overfits_one_batch(prepared_clips: Path, expert: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = AlignmentTask(generator_config(expert, feature_noise=0.0), prepared_clips)
    first, last = overfit_one_batch(task, QUICK, 25)
    assert last < 0.6 * first
    found = task.validate()
    assert 0 <= found["val_retrieval"] <= 1
    task.export(tmp_path, found)
    again = Generator.from_pretrained(str(tmp_path))
    assert again.config == SMALL
    for name, value in task.generator.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, atol=2e-3, rtol=2e-3)
    assert json.loads((tmp_path / "config.json").read_text())["metrics"] == found


def test_generator_overfits_one_batch_and_is_judged(
    prepared_clips: Path, expert: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    start = 1000
    task = GeneratorTask(generator_config(expert, adversarial_start=start, feature_noise=0.0), prepared_clips)
    first, last = overfit_one_batch(task, QUICK, 20)
    assert last < 0.9 * first
    batch = next(task.batches(np.random.default_rng(0)))
    early, late = (task.training_step(batch, 0, step) for step in (0, start))
    assert "adversarial" not in early
    assert {"l1", "gradient", "scales", "align", "sync", "perceptual", "adversarial", "matching"} <= set(late)
    assert all(torch.isfinite(value).all() for value in late.values())
    assert task.training_step(batch, 1, 0)["loss"].item() == 0
    judged = task.training_step(batch, 1, start)["loss"]
    judged.backward()
    assert judged > 0
    found = task.validate()
    assert found["val_psnr"] > 10
    assert found["val_sharpness"] > 0
    assert task.samples().dtype == np.uint8
    task.export(tmp_path, found)
    given = inputs(SMALL, 1)
    with torch.no_grad():
        mine, read = task.generator.eval()(given), Generator.from_pretrained(str(tmp_path))(given)
    torch.testing.assert_close(read.color, mine.color, atol=0.02, rtol=0)


@pytest.mark.parametrize("visual", ["stacked", "recurrent"])
def test_expert_overfits_one_batch(visual: str, prepared_clips: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = SyncExpertConfig(visual=visual, widths=(8, 8, 8, 8), audio=32, embedding=32)
    config = ExpertTrainConfig(model=model, half="all", clips=1, stretch=48, feature_noise=0.0)
    task = ExpertTask(config, prepared_clips)
    first, last = overfit_one_batch(task, replace(QUICK, lr=1e-2), 45)
    assert last < 0.8 * first
    task.export(tmp_path, {"val_accuracy": 0.5})
    assert asdict(SyncExpert.from_pretrained(str(tmp_path)).config) == asdict(model)
    assert 0 <= task.validate()["val_accuracy"] <= 1


def augmented_by_opencv(
    mouth: np.ndarray, scale: float, turn: float, shift: np.ndarray, mirror: bool
) -> np.ndarray:
    """A mouth (H, W, 3) uint8 scaled, turned, moved and then mirrored, by OpenCV."""
    import cv2

    side, middle = len(mouth), np.full(2, (len(mouth) - 1) / 2)
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = np.concatenate([linear, (middle - linear @ middle + shift)[:, None]], 1)
    moved = cv2.warpAffine(mouth, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE)
    return moved[:, ::-1] if mirror else moved


@pytest.mark.parametrize("half", [False, True])
def test_augmented_mouths_are_what_opencv_makes(half: bool, picture: Image.Image) -> None:
    """To within a grey level on average, of mouths with edges and skin; half precision misplaces nothing."""
    generator = np.random.default_rng(0)
    count, length = 6, 2
    whole = np.asarray(picture.resize((256, 256)))
    mouths = np.array([[whole[k : k + 96, 80:176] for k in (120, 110)]] * count)
    scale, turn = np.linspace(0.9, 1.1, count), np.linspace(-0.15, 0.15, count)
    shift, mirror = generator.uniform(-5, 5, (count, 2)), np.arange(count) % 2 == 0
    drawn = draw_augmentation(count, generator) | {"place": sampling_matrices(scale, turn, shift, mirror)}
    drawn |= {"noise": np.zeros_like(drawn["noise"])}
    given = {name: torch.from_numpy(value) for name, value in drawn.items()}
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        made = augment_mouths(torch.from_numpy(mouths).movedim(-1, 2), given)
    assert made.shape == (count, length, 3, SYNC_CROP_PIXELS, SYNC_CROP_PIXELS)
    for k in range(count):
        for frame in range(length):
            moved = augmented_by_opencv(mouths[k, frame], scale[k], turn[k], shift[k], bool(mirror[k]))
            wanted = np.clip(moved * drawn["gain"][k] + drawn["lift"][k], 0, 255)
            apart = np.abs(255 * made[k, frame].movedim(0, -1).numpy() - wanted)
            assert apart.mean() < 0.7
            assert np.quantile(apart, 0.99) < 3


def test_only_noisy_mouths_are_noisy() -> None:
    drawn = {"place": sampling_matrices(np.ones(3), np.zeros(3), np.zeros((3, 2)), np.zeros(3, bool))}
    drawn |= {"gain": np.ones((3, 3), np.float32), "lift": np.zeros(3, np.float32)}
    drawn |= {"noisy": np.array([0, 2]), "noise": np.array([2, 5], np.float32)}
    grey = torch.full((3, 2, 3, SYNC_CROP_PIXELS, SYNC_CROP_PIXELS), 128, dtype=torch.uint8)
    made = 255 * augment_mouths(grey, {name: torch.from_numpy(value) for name, value in drawn.items()})
    np.testing.assert_allclose(made.std((1, 2, 3, 4)), [2, 0, 5], atol=0.05)
    np.testing.assert_allclose(made.mean((1, 2, 3, 4)), 128, atol=0.1)


@given(
    stretches=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12)), min_size=1, max_size=5),
    count=st.integers(1, 4),
    every=st.integers(1, 4),
)
def test_windows_of_a_clip_are_negatives_from_three_frames_on(
    stretches: list[tuple[int, int]], count: int, every: int
) -> None:
    """One that is drawn twice is neither itself nor a negative."""
    clip, start = torch.tensor(stretches).T
    near = too_near(clip, start, count, every)
    windows = [(c, s + k * every) for c, s in stretches for k in range(count)]
    for row, (one, here) in enumerate(windows):
        for column, (other, there) in enumerate(windows):
            assert near[row, column] == (row != column and one == other and abs(here - there) < 3)


def test_paper_preset_trains_and_draws_by_the_same_code(
    prepared_clips: Path, expert: Path, talking_frames: list[np.ndarray], face: FaceModel
) -> None:
    """Narrow, at the paper's crop, scales and number of references."""
    torch.manual_seed(0)
    narrow = replace(PAPER, code=8, embedding=8, widths=(4, 6, 8, 8))
    task = GeneratorTask(generator_config(expert, narrow), prepared_clips)
    batch = next(task.batches(np.random.default_rng(0)))
    assert batch["context"].shape[-2:] == (256, 256)
    assert batch["references"].shape[1] == 5
    loss = task.training_step(batch, 0, 10**6)["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    crops, seen = FaceCrops(), [Frame(image, k / 25) for k, image in enumerate(talking_frames[:10])]
    person = scan(seen, FaceTracker(), face, crops.keep)[0]
    renderer = MouthRenderer(
        face, task.generator, gather(crops, person, face, OcclusionNet.from_pretrained(), narrow.pixels)
    )
    before, image = talking_frames[20], talking_frames[20].copy()
    points = FaceTracker().track_image(image)[0].points
    target = LipTrack(iter([SpokenLips(np.zeros((9, 28), "f4"), np.ones(9, "f4"), *speech(9))])).at(0.1)
    edit = FaceEdit(image, points, points, np.zeros(3, np.float32), target, 0.8)
    renderer.draw([renderer.prepare(edit)])
    assert (image != before).any()
    low = int(points[tp.FOREHEAD, 1])
    np.testing.assert_array_equal(image[:low], before[:low])


def speech(frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """f_a, content and level of silence."""
    return torch.zeros(0), torch.zeros(2 * frames, 512), torch.full((2 * frames,), -60.0)
