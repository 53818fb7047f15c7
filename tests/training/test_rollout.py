"""SCA and MBA trained with rollouts are shown what the renderer shows them, and nothing else changes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from talkface.diffusion.autoencoder import FaceAutoencoder
from talkface.diffusion.base import Base
from talkface.face.model import FaceModel
from talkface.face.tracker import FaceTracker
from talkface.nn.picture import gradient_loss, weighted_l1
from talkface.systems.imagineid.adapters import Adapters
from talkface.systems.imagineid.ccf import (
    MaskBlendingAdapter,
    SpatialCondition,
    SpatialConditionalAdapter,
    decode_blended,
)
from talkface.systems.imagineid.portrait import Imagined
from talkface.systems.imagineid.renderer import DiffusionRenderer
from talkface.training import TrainerConfig, overfit_one_batch
from talkface.training.batches import to_device
from talkface.training.datasets.encoding import ClipSource
from talkface.training.datasets.triplets import FrameTriplets
from talkface.training.tasks.imagineid_ccf import CcfTrainConfig, FrameTask
from talkface.training.tasks.imagineid_mba import MbaTask
from talkface.training.tasks.imagineid_sca import ScaTask

QUICK = TrainerConfig(max_steps=60, lr=1e-2, warmup_steps=2, device="cpu")

Make = Callable[..., Any]


def spoil(module: torch.nn.Module) -> None:
    """Change all weights a little, so that an adapter has an effect."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


@pytest.fixture(scope="module")
def sca(prepared_clips: Path, frozen: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """An SCA that has an effect, where MBA's training looks for it."""
    task = ScaTask(CcfTrainConfig(**frozen, batch=2, frames=4, held_out=2), prepared_clips)
    spoil(task.modules["sca"])
    folder = tmp_path_factory.mktemp("sca")
    task.export(folder, {})
    return str(folder)


@pytest.fixture(scope="module")
def make(prepared_clips: Path, frozen: dict[str, str], sca: str) -> Make:
    """Makes tiny trainings whose adapters have an effect."""

    def build(task_class: type[FrameTask], **settings: object) -> FrameTask:
        config = CcfTrainConfig(**(frozen | {"batch": 2, "frames": 4, "held_out": 2, "sca": sca} | settings))
        task = task_class(config, prepared_clips)
        spoil(task.modules[task.adapter])
        return task

    return build


def a_batch(task: FrameTask) -> dict[str, torch.Tensor]:
    return to_device(task.draw(np.random.default_rng(0)), torch.device("cpu"))


def step(task: FrameTask, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    torch.manual_seed(5)
    return task.training_step(batch, 0, 0)["loss"]


# -- frames ----------------------------------------------------------------------------------------


def test_frames_have_the_reference_at_the_mesh_of_the_frame_before(make: Make, prepared_clips: Path) -> None:
    task = make(ScaTask)
    frames = task.frames
    assert frames.moved_before.shape == frames.target.shape
    assert (frames.moved_before != frames.moved).any()
    assert (frames.moved_before != frames.before).any()
    kept = sorted(path.name for path in prepared_clips.glob("footage-train-4-*.npz"))
    assert make(ScaTask).frames.moved_before.tobytes() == frames.moved_before.tobytes()
    assert sorted(path.name for path in prepared_clips.glob("footage-train-4-*.npz")) == kept, "kept once"


def test_frames_that_an_older_version_kept_are_not_read(prepared_clips: Path, make: Make) -> None:
    task = make(ScaTask)
    old = prepared_clips / "footage-train-4-0-256-older.npz"
    np.savez(old, target=np.zeros(1))
    source = ClipSource(
        manifest=task.manifest, split="train", face=task.face, autoencoder=task.autoencoder, mark="older"
    )
    found = FrameTriplets.of(source, 4)
    assert found.target.shape == task.frames.target.shape
    assert old.is_file()
    assert len(list(prepared_clips.glob("footage-train-4-0-256-older-*.npz"))) == 1


# -- without rollouts ------------------------------------------------------------------------------


def test_without_rollouts_sca_s_loss_is_as_ever(make: Make) -> None:
    task = make(ScaTask)
    batch = a_batch(task)
    assert not {"moved_before", "drawing_before"} & batch.keys()
    seen: list[SpatialCondition] = []
    task.modules["sca"].register_forward_hook(lambda _, given, out: seen.append(given[3]))
    torch.manual_seed(5)
    known = (torch.rand(2, 2) > torch.tensor([0.15, 0.2])).float()
    time, noise = torch.randn(2).sigmoid(), torch.randn_like(batch["target"])
    part = time[:, None, None, None]
    noisy = (1 - part) * batch["target"] + part * noise
    before = batch["before"] * (1 - batch["hidden_before"])
    condition = SpatialCondition(batch["drawing"], batch["moved"], before, batch["hidden"], known)
    base = task.base
    text_embeddings = base.encode_text(torch.from_numpy(base.tokenize("").ids)[None].expand(2, -1))
    mesh = base.encode_mesh(batch["drawing"])
    control = task.modules["sca"](*base.inputs(noisy, time, mesh), text_embeddings, condition)
    error = F.mse_loss(
        base(noisy, time, text_embeddings, mesh, **control), noise - batch["target"], reduction="none"
    )
    weight = (1 + 2 * batch["hidden"]).expand_as(error)
    by_hand = (error * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3))
    torch.testing.assert_close(step(task, batch), by_hand.mean())
    assert len(seen) == 2, "by hand, and once in the step"
    torch.testing.assert_close(vars(seen[1]), vars(seen[0]))
    assert task.metric == "val_loss"


def test_without_rollouts_mba_s_loss_is_as_ever_and_needs_no_sca(make: Make) -> None:
    task = make(MbaTask, sca="no such folder")
    batch = a_batch(task)
    assert "moved_before" not in batch
    drawn = decode_blended(
        task.autoencoder, task.modules["mba"], batch["target"], batch["moved"], batch["mask"]
    )
    goal, mask = task.autoencoder.decode(batch["target"]), batch["mask"]
    border = 1 + 4 * ((mask > 0.01) & (mask < 0.99)).float()
    by_hand = weighted_l1(drawn, goal, border) + gradient_loss(drawn, goal, border)
    torch.testing.assert_close(step(task, batch), by_hand)
    assert task.validate().keys() == {"val_psnr", "val_psnr_border"}
    assert task.metric == "val_psnr"


# -- what the renderer shows -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def somebody(picture: Image.Image) -> Imagined:
    image = np.asarray(picture.crop((104, 8, 344, 248)).resize((256, 256)))
    return Imagined(image, FaceTracker().track_image(image)[0].points, 0.0, 0.0, "")


@pytest.fixture
def renderer(frozen: dict[str, str], somebody: Imagined) -> Callable[..., DiffusionRenderer]:
    """Makes renderers of the tiny LDM with some SCA."""

    def build(adapter: SpatialConditionalAdapter, **options: object) -> DiffusionRenderer:
        base = Base.from_pretrained(frozen["base"])
        adapters = Adapters(sca=adapter, mba=MaskBlendingAdapter(base.autoencoder.config.decoder))
        return DiffusionRenderer(base, adapters, somebody, FaceModel.from_pretrained(), None, **options)

    return build


def drawn_by(
    renderer: DiffusionRenderer,
    reference: torch.Tensor,
    noise: torch.Tensor,
    mesh: np.ndarray,
    before: torch.Tensor | None = None,
) -> tuple[torch.Tensor, np.ndarray]:
    """What a renderer hands on and draws of a reference (4, h, w) that is encoded already."""
    renderer.base.autoencoder.encode = lambda _: reference[None]  # type: ignore[method-assign]
    renderer.noise = noise[None]
    return renderer._frame(np.zeros((256, 256, 3), np.uint8), mesh, before)


@pytest.mark.parametrize(("blended", "steps"), [(False, 1), (False, 2), (True, 1)])
def test_sca_is_shown_what_the_renderer_hands_on(
    blended: bool, steps: int, make: Make, renderer: Callable[..., DiffusionRenderer]
) -> None:
    task = make(ScaTask, rollout=1.0, rollout_blended=blended, rollout_steps=steps)
    batch = a_batch(task)
    noise = torch.randn_like(batch["target"])
    rolled = task.rolled(batch, noise)
    assert len(rolled) == 2
    chosen = np.random.default_rng(0).choice(len(task.frames), 2, p=task.frames.weight)
    without = frozenset() if blended else frozenset(["mba"])
    made = renderer(task.modules["sca"], without=without, steps=steps)
    for row, index in enumerate(chosen):
        mesh = task.frames.before_points[index]
        shown, _ = drawn_by(made, batch["moved_before"][row], noise[row], mesh)
        torch.testing.assert_close(rolled[row], shown[0], atol=1e-5, rtol=1e-4)
    assert "drawing_before" not in batch or not blended, "what nothing draws costs nothing"


def test_sca_sees_the_rolled_frame_in_its_step(make: Make) -> None:
    """Of as many rows as are asked for, the first; the same noise begins frame and frame before."""
    task = make(ScaTask, rollout=0.5, no_before=0.0, batch=4)
    batch = a_batch(task)
    assert len(batch["moved_before"]) == 2
    seen: list[torch.Tensor] = []
    task.modules["sca"].register_forward_hook(lambda _, given, out: seen.append(given[3].before))
    step(task, batch)
    assert len(seen) == 2, "one step of the sampler, and the training's"
    torch.manual_seed(5)
    torch.rand(4, 2), torch.randn(4)
    rolled = task.rolled(batch, torch.randn_like(batch["target"]))
    torch.testing.assert_close(seen[1][:2], rolled)
    real = batch["before"] * (1 - batch["hidden_before"])
    torch.testing.assert_close(seen[1][2:], real[2:])
    assert (seen[1][:2] != real[:2]).any()


def test_mba_blends_the_face_that_the_renderer_draws(
    make: Make, renderer: Callable[..., DiffusionRenderer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the midst of a video: the frame before is known, and around its face is the reference."""
    task = make(MbaTask, rollout=1.0)
    batch = a_batch(task)
    noise = torch.randn_like(batch["target"])
    rolled = task.rolled(batch, noise)
    pictures, goal = task._draw(batch, rolled)
    made = renderer(task.sca)
    made.adapters = Adapters(sca=task.sca, mba=task.modules["mba"])
    blended: list[torch.Tensor] = []

    def spied(
        autoencoder: FaceAutoencoder,
        adapter: MaskBlendingAdapter,
        latents: torch.Tensor,
        *given: torch.Tensor,
    ) -> torch.Tensor:
        blended.append(latents)
        return decode_blended(autoencoder, adapter, latents, *given)

    monkeypatch.setattr("talkface.systems.imagineid.renderer.decode_blended", spied)
    chosen = np.random.default_rng(0).choice(len(task.frames), 2, p=task.frames.weight)
    for row, index in enumerate(chosen):
        points = task.frames.before_points[index], task.frames.points[index]
        before, _ = drawn_by(made, batch["moved_before"][row], noise[row], points[0])
        _, image = drawn_by(made, batch["moved"][row], noise[row], points[1], before=before)
        found = (pictures[row].permute(1, 2, 0) * 255).round().byte().numpy()
        torch.testing.assert_close(rolled[row], blended[-1][0], atol=1e-5, rtol=1e-4)
        assert np.abs(found.astype(int) - image).max() <= 1
    inside, beside = (batch["mask"] == 1).expand_as(goal), (batch["mask"] == 0).expand_as(goal)
    real, drawn = task.autoencoder.decode(batch["target"]), task.autoencoder.decode(rolled)
    torch.testing.assert_close(goal[inside], drawn[inside])
    torch.testing.assert_close(goal[beside], real[beside])


# -- training --------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_no_gradient_flows_into_what_is_rolled_and_all_others_flow(
    precision: torch.dtype | None, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adapter that draws is the one that is trained; in bf16, autocast casts its weights for both."""
    task = make(ScaTask, rollout=1.0, no_before=0.0)
    batch = a_batch(task)

    def gradients() -> list[torch.Tensor]:
        task.modules["sca"].zero_grad()
        with torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None):
            loss = step(task, batch)
        loss.backward()
        return [p.grad for p in task.modules["sca"].parameters() if p.grad is not None]

    found = gradients()
    with torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None):
        torch.manual_seed(5)
        torch.rand(2, 2), torch.randn(2)
        rolled = task.rolled(batch, torch.randn_like(batch["target"]))
    assert not rolled.requires_grad
    assert rolled.dtype == torch.float32
    assert not rolled.is_inference()
    # A tensor that is given from without: gradients have nothing to flow into.
    monkeypatch.setattr(task, "rolled", lambda *_: rolled)
    given = gradients()
    assert len(found) == len(given) == len(list(task.modules["sca"].parameters()))
    for one, other in zip(found, given, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("task_class", "bound"), [(ScaTask, 0.8), (MbaTask, 0.6)])
def test_adapters_are_trained_with_rollouts(
    task_class: type[FrameTask], bound: float, make: Make, tmp_path: Path
) -> None:
    task = make(task_class, rollout=0.5)
    drawer = {k: v.clone() for k, v in task.sca.state_dict().items()} if isinstance(task, MbaTask) else {}
    before = task.validate()
    first, last = overfit_one_batch(task, QUICK, 30)
    assert last < bound * first
    found = task.validate()
    assert np.isfinite(list(found.values())).all()
    assert found[task.metric] != before[task.metric]
    single = "val_loss" if task_class is ScaTask else "val_psnr"
    assert task.metric == f"{single}_both"
    assert found[task.metric] == pytest.approx((found[single] + found[f"{single}_rolled"]) / 2)
    assert found[single] != found[f"{single}_rolled"]
    for name, value in drawer.items():
        torch.testing.assert_close(task.sca.state_dict()[name], value, msg=name)
    task.export(tmp_path, found)
    assert (tmp_path / "model.safetensors").is_file()


def test_processes_draw_rolled_rows_as_a_thread_does(make: Make) -> None:
    task = make(ScaTask, rollout=0.5)
    task.workers = 1
    there = next(iter(task.batches(np.random.default_rng(3))))
    here = task.draw(np.random.default_rng(3).spawn(1)[0])
    assert there.keys() == here.keys()
    for name, value in here.items():
        np.testing.assert_array_equal(there[name].numpy(), value, err_msg=name)


def test_rollouts_leave_the_random_draws_of_a_step_alone(make: Make) -> None:
    """So that trainings with and without are compared under the same noise."""
    states = []
    for rollout in (0.0, 0.5):
        task = make(ScaTask, rollout=rollout)
        step(task, a_batch(task))
        states.append(torch.get_rng_state())
    torch.testing.assert_close(*states)
