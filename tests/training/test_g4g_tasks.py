"""G4G's trainings on tiny models."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from generator_samples import TINY_GENERATOR, random_inputs
from talkface.face import topology as tp
from talkface.face.model import FaceModel
from talkface.face.occlusion import OcclusionNet
from talkface.face.people import scan
from talkface.face.tracker import FaceTracker
from talkface.hub import save_pretrained
from talkface.media.video import Frame
from talkface.performance.lip_track import LipTrack
from talkface.performance.lips import SpokenLips
from talkface.systems.g4g.bank import FaceCrops, gather
from talkface.systems.g4g.config import PAPER, GeneratorConfig
from talkface.systems.g4g.experts import SyncExpert, SyncExpertConfig
from talkface.systems.g4g.model import Generator
from talkface.systems.g4g.renderer import FaceEdit, MouthRenderer
from talkface.training import TrainerConfig, overfit_one_batch
from talkface.training.run import load_recipe
from talkface.training.tasks.g4g_alignment import AlignmentTask, GeneratorTrainConfig
from talkface.training.tasks.g4g_experts import ExpertTask, ExpertTrainConfig, offset_accuracy, too_near
from talkface.training.tasks.g4g_generator import GeneratorTask


def test_offset_is_found_among_others() -> None:
    sound = np.random.default_rng(0).standard_normal((60, 8))
    assert offset_accuracy(sound, sound) == (1.0, 1.0)
    assert offset_accuracy(np.roll(sound, 5, 0), sound)[1] == 0.0
    assert offset_accuracy(np.random.default_rng(1).standard_normal((60, 8)), sound)[0] < 0.4


def test_paper_recipe_is_the_paper_preset() -> None:
    recipe = Path(__file__).parents[2] / "recipes" / "g4g-paper.yaml"
    assert load_recipe(recipe).config.model == PAPER


@pytest.fixture(scope="module")
def expert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random expert of real content features, as the hub reads it."""
    torch.manual_seed(0)
    model = SyncExpert(SyncExpertConfig(widths=(8, 8, 8, 8), audio=16, embedding=16))
    folder = tmp_path_factory.mktemp("expert")
    save_pretrained(folder, model.config_dict(), model.state_dict())
    return folder


SMALL = replace(TINY_GENERATOR, content=512)


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
    given = random_inputs(SMALL, 1)
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
