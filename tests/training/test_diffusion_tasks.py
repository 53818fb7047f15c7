"""The trainings of the face LDM, its autoencoder, restorer and critic, on tiny models."""

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from conftest import write_looks
from talkface.data.faces import held_out, portraits
from talkface.data.manifest import Item, Manifest
from talkface.diffusion.autoencoder import FaceAutoencoder
from talkface.diffusion.base import Base
from talkface.diffusion.config import AutoencoderConfig, DiffusionConfig
from talkface.diffusion.critic import PortraitCritic
from talkface.diffusion.model import FaceDiffusion
from talkface.diffusion.restorer import FaceRestorer
from talkface.errors import InvalidOption, ModelUnavailable
from talkface.face.crop import face_unit
from talkface.face.portrait import PORTRAIT_PIXELS
from talkface.face.tracker import FaceTracker
from talkface.hub import save_pretrained
from talkface.media.video import VideoReader
from talkface.nn.marks import latents_mark, weights_mark
from talkface.training import TrainerConfig, overfit_one_batch
from talkface.training.datasets.latents import PortraitLatents
from talkface.training.tasks.diffusion_autoencoder import AutoencoderTask, AutoencoderTrainConfig
from talkface.training.tasks.diffusion_critic import CriticTask, CriticTrainConfig
from talkface.training.tasks.diffusion_ldm import DiffusionTask, DiffusionTrainConfig
from talkface.training.tasks.diffusion_restorer import RestorerTask, RestorerTrainConfig

SMALL_AUTOENCODER = AutoencoderConfig(encoder=(8, 16), decoder=(16, 8, 8), blocks=(1, 1, 1))


SMALL = DiffusionConfig(widths=(16, 32), attention=(False, True), heads=2, text=16, text_layers=1, mesh=4)


QUICK = TrainerConfig(max_steps=60, lr=3e-3, warmup_steps=2, device="cpu")


@pytest.fixture(scope="module")
def prepared(talking: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``talkface prepare`` and a first look write: two clips and two lists of stills."""
    folder, root = tmp_path_factory.mktemp("prepared"), tmp_path_factory.mktemp("root")
    with VideoReader(talking) as video:
        frames = [frame.image for frame in video]
        track = FaceTracker().track_video((frame.time, frame.image) for frame in VideoReader(talking))[0]
    (folder / "tracks").mkdir()
    items = []
    for split in ("train", "val"):
        (root / f"{split}.mp4").write_bytes(talking.read_bytes())
        items.append(Item(key=split, file=f"{split}.mp4", corpus="own", speaker=split, split=split))
        arrays = {name: getattr(track, name) for name in ("points", "times", "found", "frames")}
        np.savez(folder / "tracks" / f"{split}.npz", **arrays)
    for number in range(3):
        cv2.imwrite(str(root / f"still{number}.png"), frames[10 * number][:, :, ::-1])
    cv2.imwrite(str(root / "wall.png"), np.full((64, 64, 3), 90, np.uint8))
    names = [
        *(f"still{number}.png\tperson{number}" for number in range(3)),
        "wall.png\tnobody",
        "gone.png\tnobody",
    ]
    (root / "faces.tsv").write_text("file\tperson\n" + "\n".join(names) + "\n")
    sharper = [
        "sharp0.png\tours\tsharp0\tgenerated\t-0.01\ttrain",
        "sharp1.png\tours\tsharp1\treal\t0.2\tdev",
        "sharp2.png\tours\tsharp0\treal\t0.2\tdev",
        "sharp3.png\tours\tcut off\treal\t-0.05\tdev",
        "sharp4.png\tmasks\tmasked\tgenerated\t0.2\ttrain",
    ]
    for number in range(5):
        cv2.imwrite(str(root / f"sharp{number}.png"), frames[10 * number + 5][:, :, ::-1])
    columns = "file\tsource\tperson\tkind\troom\tsplit\n"
    (root / "faces2.tsv").write_text(columns + "\n".join(sharper) + "\n")
    (root / "sources.tsv").write_text("source\tusable\nours\t1\nmasks\t0\n")
    Manifest(folder, root, items).save()
    write_looks(folder)
    return folder


def test_portraits_of_stills_and_clips(prepared: Path) -> None:
    album = portraits(Manifest.load(prepared))
    stills = [p.key for p in album if "@" not in p.key]
    assert stills == ["still0", "still1", "still2", "sharp0", "sharp1", "sharp2"]
    assert [p.key for p in album if p.generated] == ["sharp0"]
    assert len([p for p in album if p.split == "val"]) == 6
    tracker = FaceTracker()
    for portrait in album[::4]:
        assert portrait.image().shape == (PORTRAIT_PIXELS, PORTRAIT_PIXELS, 3)
        found = tracker.track_image(portrait.image())[0].points
        off = np.linalg.norm((found - portrait.points)[:, :2], axis=1).mean() / face_unit(found)
        assert off < 0.05
        assert portrait.sharpness > 0
    assert {p.person for p in held_out(album, 8)} == {"ownval"}
    assert {p.person for p in held_out(album, 8, "dev")} == {"sharp1"}


def test_autoencoder_overfits_one_batch_and_is_judged(prepared: Path, tmp_path: Path) -> None:
    config = AutoencoderTrainConfig(
        model=SMALL_AUTOENCODER,
        patch=PORTRAIT_PIXELS,
        batch=1,
        held_out=2,
        adversarial_start=100,
        discriminator_width=4,
    )
    task = AutoencoderTask(config, prepared)
    before = task.validate()
    first, last = overfit_one_batch(task, replace(QUICK, lr=2e-3), 40)
    assert last < 0.7 * first
    batch = next(task.batches(np.random.default_rng(0)))
    assert batch.shape == (1, 3, PORTRAIT_PIXELS, PORTRAIT_PIXELS)
    assert "adversarial" not in task.training_step(batch, 0, 0)
    late = task.training_step(batch, 0, 100)
    assert all(torch.isfinite(value) for value in late.values())
    assert task.training_step(batch, 1, 0)["loss"] == 0
    assert task.training_step(batch, 1, 100)["loss"] > 0
    found = task.validate()
    assert found["val_psnr"] > before["val_psnr"]
    assert task.samples().shape == (2 * PORTRAIT_PIXELS, 2 * PORTRAIT_PIXELS, 3)
    task.export(tmp_path, found)
    latents = PortraitLatents.of(task.album, FaceAutoencoder.from_pretrained(str(tmp_path)), 2, tmp_path)
    assert latents.latents.shape == (len(task.album), 2, 4, 32, 32)
    assert latents.latents[:, 0].astype(float).std() == pytest.approx(1, abs=0.2)
    again = PortraitLatents.of(task.album, FaceAutoencoder.from_pretrained(str(tmp_path)), 2, tmp_path)
    np.testing.assert_array_equal(again.latents, latents.latents)
    check_decoder_is_trained_alone(config, prepared, tmp_path)


def check_decoder_is_trained_alone(config: AutoencoderTrainConfig, prepared: Path, exported: Path) -> None:
    further = AutoencoderTask(replace(config, start=str(exported), noise=0.2), prepared)
    before = further.autoencoder.state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    overfit_one_batch(further, replace(QUICK, lr=1e-3), 10)
    after = further.autoencoder.state_dict()
    changed = {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert changed == {"decoder"}
    further.export(exported / "further", {})
    again = FaceAutoencoder.from_pretrained(str(exported / "further"))
    assert latents_mark(again) == latents_mark(FaceAutoencoder.from_pretrained(str(exported)))
    assert weights_mark(again) != weights_mark(FaceAutoencoder.from_pretrained(str(exported)))


def test_diffusion_overfits_one_batch(prepared: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    folder = tmp_path / "autoencoder"
    autoencoder = FaceAutoencoder(SMALL_AUTOENCODER)
    save_pretrained(folder, {"model": asdict(SMALL_AUTOENCODER)}, autoencoder.state_dict())
    config = DiffusionTrainConfig(
        model=SMALL, autoencoder=str(folder), variants=2, batch=2, sharpness=0.0, held_out=2
    )
    task = DiffusionTask(config, prepared)
    first, last = overfit_one_batch(task, QUICK, 15)
    assert last < 0.6 * first
    found = task.validate()
    assert found["val_loss"] == task.validate()["val_loss"] > 0
    assert task.samples().shape[1:] == (PORTRAIT_PIXELS, 3)  # of the one person whom split "dev" alone holds
    task.spectrum = partial(task.spectrum, 8)  # of fewer samples
    task.export(tmp_path / "export", found)
    written = FaceDiffusion.from_pretrained(str(tmp_path / "export")).config
    assert replace(written, spectrum=()) == SMALL
    assert len(written.spectrum) == 16
    assert min(written.spectrum) > 0
    assert json.loads((tmp_path / "export" / "config.json").read_text())["metrics"] == found


@pytest.mark.slow
def test_restorer_overfits_one_batch_of_drafts(prepared: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = tmp_path / "base"
    for name, module, sizes in (
        ("face-autoencoder", FaceAutoencoder(SMALL_AUTOENCODER), SMALL_AUTOENCODER),
        ("face-diffusion", FaceDiffusion(SMALL), SMALL),
    ):
        save_pretrained(base / name, {"model": asdict(sizes)}, module.state_dict())
    assert Base.from_pretrained(str(base)).restorer is None
    config = RestorerTrainConfig(
        model=FaceRestorer.debug().config,
        base=str(base),
        drafts=6,
        batch=2,
        crop=128,
        sharpness=0.0,
        sharp=0.0,
        held_out=2,
        layers=(),
        stranger=1.0,  # a tiny LDM's drafts look like nobody
        tone=0.0,
        adversarial=0.0,  # what is judged gets no smaller: its judges learn, too
        critic="",
        discriminator_width=4,
    )
    task, again = RestorerTask(config, prepared), RestorerTask(config, prepared)
    assert len(task.data.drafts) == 6
    np.testing.assert_array_equal(task.data.drafts.image(5), again.data.drafts.image(5))
    assert config.times[0] <= task.data.drafts.time.min() <= task.data.drafts.time.max() <= config.times[1]
    first, last = overfit_one_batch(task, QUICK, 40)
    assert last < 0.8 * first
    batch = next(task.batches(np.random.default_rng(0)))
    assert all(torch.isfinite(value) for value in task.training_step(batch, 0, 0).values())
    assert task.training_step(batch, 1, 0)["loss"] > 0
    assert task.samples().shape == (4 * PORTRAIT_PIXELS, 2 * PORTRAIT_PIXELS, 3)
    task.export(base / "face-restorer", {})
    restorer = Base.from_pretrained(str(base)).restorer
    assert restorer is not None
    with torch.inference_mode():  # saved in half precision
        made = [one(batch["draft"], batch["drawing"]) for one in (restorer, task.restorer)]
    torch.testing.assert_close(made[0], made[1], atol=0.02, rtol=0)
    check_critic_tells_what_it_has_seen(str(base), prepared, tmp_path)


def check_critic_tells_what_it_has_seen(base: str, prepared: Path, exported: Path) -> None:
    config = CriticTrainConfig(
        model=PortraitCritic.debug().config, base=base, drafts=8, times=(0.4, 1.0), batch=4, sharpness=0.0,
        sharp=0.0, sound=0.7, spoilt=0.7, mixed=0.0, held_out=2,
    )  # fmt: skip
    for none in ({"sound": 0.1}, {"spoilt": 1.5}):
        with pytest.raises(InvalidOption, match="drafts"):
            CriticTask(replace(config, **none), prepared)
    task = CriticTask(config, prepared)
    first, last = overfit_one_batch(task, replace(QUICK, lr=1e-2), 20)
    assert last < 0.5 * first
    real, made, mixed = next(task.batches(np.random.default_rng(0)))
    assert [view.shape for view in real] == [view.shape for view in made]
    assert mixed.shape == real.eyes.shape == (4, 6, 64, 64)
    found = task.validate()
    assert all(0 <= value <= 1 for value in found.values())
    task.export(exported / "critic", found)
    again = PortraitCritic.from_pretrained(str(exported / "critic"))
    with torch.inference_mode():  # saved in half precision
        torch.testing.assert_close(again.eval()(real), task.critic.eval()(real), atol=0.1, rtol=0.05)


def test_critic_says_what_it_lacks(prepared: Path) -> None:
    config = CriticTrainConfig(base="nowhere", drafts=2, sharpness=0.0)
    with pytest.raises(ModelUnavailable, match="nowhere"):
        CriticTask(config, prepared)
