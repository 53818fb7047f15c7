"""Training steps on another device than the processor, without one: torch's "meta", which holds no values."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from talkface.diffusion.autoencoder import FaceAutoencoder
from talkface.diffusion.captions import CAPTION_LENGTH
from talkface.diffusion.model import FaceDiffusion
from talkface.face.draw import MAP_CHANNELS
from talkface.nn.adversarial import PatchDiscriminator
from talkface.performance.model import DiffusionPrior
from talkface.rendering.refiner import Refiner
from talkface.systems.g4g.experts import SYNC_CROP_PIXELS, SyncExpert
from talkface.systems.imagineid.ccf import MaskBlendingAdapter, SpatialConditionalAdapter
from talkface.systems.tccp.model import MVControlNet
from talkface.training import Task
from talkface.training.batches import to_device
from talkface.training.datasets.talking import TalkingClip
from talkface.training.tasks.diffusion_ldm import DiffusionTask, DiffusionTrainConfig
from talkface.training.tasks.g4g_experts import ExpertTask, ExpertTrainConfig, MouthStore
from talkface.training.tasks.imagineid_ccf import CcfTrainConfig
from talkface.training.tasks.imagineid_mba import MbaTask
from talkface.training.tasks.imagineid_sca import ScaTask
from talkface.training.tasks.tccp_video import VideoTask, VideoTrainConfig
from talkface.training.tasks.thpad_prior import PriorTask, PriorTrainConfig
from talkface.training.tasks.thpad_refiner import RefinerTask, RefinerTrainConfig

ELSEWHERE = torch.device("meta")
SIDE = 16  # of latents
_COPIES = {torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default}


class OneDevice(TorchDispatchMode):
    """Refuses what a GPU refuses: an operation on tensors of two devices, single numbers of the CPU apart."""

    def __torch_dispatch__(
        self,
        operation: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        given = [t for t in tree_leaves((args, kwargs or {})) if isinstance(t, Tensor)]
        devices = {t.device.type for t in given if t.ndim or t.device.type != "cpu"}
        if operation not in _COPIES and len(devices) > 1:
            raise RuntimeError(f"{operation} of {[(t.device.type, *t.shape) for t in given]}")
        return operation(*args, **(kwargs or {}))


def bare(kind: type[Task], config: object, modules: dict[str, torch.nn.Module], **others: object) -> Task:
    """A task as its constructor leaves it on another device, without data."""
    task = object.__new__(kind)
    vars(task).update(config=config, device=ELSEWHERE, modules=modules, **others)
    for module in modules.values():
        module.to(ELSEWHERE)
    return task


def arrays(count: int, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {name: np.zeros((count, *shape), np.float32) for name, shape in shapes.items()}


def expert() -> tuple[Task, Any]:
    config, model = ExpertTrainConfig(clips=3, stretch=24), SyncExpert.debug()
    content, level, beta = np.zeros((60, 16), np.float16), np.zeros(60, np.float32), np.zeros((30, 28))
    clip = TalkingClip(crops=None, content=[content], level=[level], beta_mouth=beta, item=None)
    frames = torch.zeros(60, 3, SYNC_CROP_PIXELS, SYNC_CROP_PIXELS, dtype=torch.uint8, device=ELSEWHERE)
    mouths = MouthStore(frames, torch.tensor([0, 30, 60]).to(ELSEWHERE))
    data = {"clips": [clip] * 2, "mouths": mouths, "weights": np.full(2, 0.5)}
    task = bare(ExpertTask, config, {"expert": model}, expert=model, **data)
    return task, task.draw(np.random.default_rng(0))


def prior() -> tuple[Task, Any]:
    model = DiffusionPrior.debug()
    examples = [(torch.zeros(130, model.config.non_lip), torch.zeros(130, model.config.audio))] * 2
    data = {"examples": examples, "lengths": np.full(2, 130), "weights": np.full(2, 0.5)}
    config = PriorTrainConfig(model=model.config, batch=3)
    task = bare(PriorTask, config, {"prior": model}, prior=model, **data)
    return task, task.draw(np.random.default_rng(0))


def diffusion() -> tuple[Task, Any]:
    model = FaceDiffusion.debug()
    batch = arrays(2, latents=(4, SIDE, SIDE), drawing=(6, 4 * SIDE, 4 * SIDE))
    batch["ids"] = np.zeros((2, CAPTION_LENGTH), np.int64)
    return bare(DiffusionTask, DiffusionTrainConfig(), {"diffusion": model}, model=model), batch


def ccf_batch() -> dict[str, np.ndarray]:
    latents, cells, whole = (4, SIDE, SIDE), (1, SIDE, SIDE), (1, 8 * SIDE, 8 * SIDE)
    frames = arrays(2, target=latents, moved=latents, before=latents)
    frames |= arrays(1, moved_before=latents)  # of the row whose frame before is as a video hands it on
    where = arrays(2, hidden=cells, hidden_before=cells, mask=whole, drawing=(6, 4 * SIDE, 4 * SIDE))
    return frames | where


def sca() -> tuple[Task, Any]:
    base = FaceDiffusion.debug()
    adapter = SpatialConditionalAdapter(base.config, base)
    config = CcfTrainConfig(rollout=0.5, rollout_blended=True)
    no_words = torch.zeros(1, CAPTION_LENGTH, dtype=torch.long, device=ELSEWHERE)
    return bare(ScaTask, config, {"sca": adapter}, base=base.to(ELSEWHERE), no_words=no_words), ccf_batch()


def mba() -> tuple[Task, Any]:
    autoencoder = FaceAutoencoder.debug()
    adapter = MaskBlendingAdapter(autoencoder.config.decoder)
    frozen = autoencoder.to(ELSEWHERE)
    return bare(MbaTask, CcfTrainConfig(), {"mba": adapter}, autoencoder=frozen, sca=None), ccf_batch()


def video() -> tuple[Task, Any]:
    net = MVControlNet(VideoTrainConfig().model, FaceDiffusion.debug())
    net.base.to(ELSEWHERE)
    latents = (3, 4, SIDE, SIDE)
    batch = arrays(2, target=latents, context=latents, moved=latents, portrait=latents[1:])
    batch |= arrays(2, hidden=(3, 1, SIDE, SIDE), drawing=(3, 6, 4 * SIDE, 4 * SIDE), lips=(3, 5, 28))
    return bare(VideoTask, VideoTrainConfig(), {"net": net}, net=net), batch


def refiner() -> tuple[Task, Any]:
    refiner, discriminator = Refiner.debug(), PatchDiscriminator(MAP_CHANNELS)
    side = 4 * SIDE
    batch = arrays(2, warped=(3, side, side), reference=(3, side, side), target=(3, side, side))
    batch |= arrays(2, maps=(MAP_CHANNELS, side // 2, side // 2), motion=(refiner.config.motion,))
    batch["part"] = np.zeros(2, np.int64)
    modules = {"refiner": refiner, "discriminator": discriminator}
    parts = {"refiner": refiner, "discriminator": discriminator, "finer": 1}
    return bare(RefinerTask, RefinerTrainConfig(), modules, **parts), [batch, batch]


@pytest.mark.parametrize("made", [expert, prior, diffusion, sca, mba, video, refiner])
def test_training_steps_stay_on_their_device(made: Callable[[], tuple[Task, Any]]) -> None:
    task, batch = made()
    given = to_device(batch, ELSEWHERE)
    with OneDevice():
        for index in range(len(task.optimizers_spec())):
            losses = task.training_step(given, index, 10**6)
            losses["loss"].backward()
    assert losses["loss"].device == ELSEWHERE


def test_tensors_of_two_devices_are_refused() -> None:
    here, there = torch.ones(2), torch.ones(2, device=ELSEWHERE)
    with OneDevice():
        assert (here[0] * there).device == ELSEWHERE
        assert here.to(ELSEWHERE).device == ELSEWHERE
        for operation in (torch.add, torch.dot, lambda a, b: torch.cat([a, b]), lambda a, b: a[b.long()]):
            with pytest.raises(RuntimeError):
                operation(here, there)
