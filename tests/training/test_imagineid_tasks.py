"""ImagineID's trainings on tiny models."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from conftest import RATE, read_samples, write_looks, write_wav
from talkface.data.manifest import Manifest
from talkface.data.prepare import list_items
from talkface.face.tracker import FaceTracker
from talkface.media.video import VideoReader
from talkface.nn.marks import weights_mark
from talkface.systems.imagineid.config import CcfConfig, PadConfig
from talkface.systems.imagineid.pad import Pad
from talkface.training import TrainerConfig, overfit_one_batch
from talkface.training.tasks.imagineid_ccf import CcfTask, CcfTrainConfig
from talkface.training.tasks.imagineid_content import ContentTask
from talkface.training.tasks.imagineid_emotion import EmotionTask
from talkface.training.tasks.imagineid_identity import IdentityTask
from talkface.training.tasks.imagineid_joint import JointTask
from talkface.training.tasks.imagineid_mba import MbaTask
from talkface.training.tasks.imagineid_pad import PadTrainConfig
from talkface.training.tasks.imagineid_sca import ScaTask
from talkface.training.tasks.imagineid_tia import TiaTask

TINY = PadConfig(width=16, layers=1, heads=2, semantic=8)


QUICK = TrainerConfig(max_steps=60, lr=3e-3, warmup_steps=2, device="cpu")


@pytest.fixture(scope="module")
def prepared(talking: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``talkface prepare`` and a first look write, of two clips, four voices with faces, acted moods."""
    root, folder = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("prepared")
    samples = read_samples(talking.with_name("own.wav"))[: 3 * RATE]
    with VideoReader(talking) as video:
        frames = [frame.image for frame in video]
        track = FaceTracker().track_video((frame.time, frame.image) for frame in VideoReader(talking))[0]
    for name in ("clips", "pairs/voices", "pairs/faces", "emotion"):
        (root / name).mkdir(parents=True)
    rows = []
    for number, (split, mood) in enumerate(
        [
            ("train", ""),
            ("val", ""),
            ("train", "neutral"),
            ("train", "happy"),
            ("val", "neutral"),
            ("val", "happy"),
        ]
    ):
        (root / "clips" / f"{number}.mp4").write_bytes(talking.read_bytes())
        kind, speaker = ("mute", f"actor-{split}") if mood else ("speech", split)
        rows.append(f"{number}\town\t{speaker}\tclips/{number}.mp4\t{kind}\tfree\t{mood}\t{split}\t1")
    header = "id\tcorpus\tspeaker\tfile\tkind\tlicence\temotion\tsplit\tusable\n"
    (root / "clips.tsv").write_text(header + "\n".join(rows) + "\n")
    rows = []
    for number in range(4):
        write_wav(root / f"pairs/voices/{number}.wav", np.roll(samples, 9000 * number))
        cv2.imwrite(str(root / f"pairs/faces/{number}.png"), frames[15 * number][:, :, ::-1])
        split = "train" if number < 2 else "val"
        rows.append(
            f"{number}\town\tperson{number}\tpairs/voices/{number}.wav\tpairs/faces/{number}.png\t{split}"
        )
    (root / "pairs.tsv").write_text("id\tcorpus\tperson\tvoice\tface\tsplit\n" + "\n".join(rows) + "\n")
    rows = []
    for number, (mood, split) in enumerate([("happy", "train"), ("sad", "train"), ("happy", "val")]):
        write_wav(root / f"emotion/{number}.wav", np.roll(samples, 7000 * number))
        rows.append(f"{number}\tactor{number}\t{mood}\temotion/{number}.wav\t{split}")
    (root / "emotion.tsv").write_text("id\tactor\temotion\tfile\tsplit\n" + "\n".join(rows) + "\n")
    items = list_items(root)
    for name in ("tracks", "speech"):
        (folder / name).mkdir()
    for item in items:
        if item.has_video:
            arrays = {name: getattr(track, name) for name in ("points", "times", "found", "frames")}
            np.savez(folder / "tracks" / f"{item.key}.npz", **arrays)
        if item.has_speech:
            audio = np.roll(samples, 100 * len(item.key))
            np.savez(
                folder / "speech" / f"{item.key}.npz", audio=audio, features=np.zeros((150, 512), np.float16)
            )
    Manifest(folder, root, items).save()
    write_looks(folder)
    return folder


def test_stages_are_trained_one_after_another(prepared: Path, tmp_path: Path) -> None:
    """Each overfits a batch, leaves what was trained before as it was, and is exported with the others."""
    start = ""
    known: dict[str, torch.Tensor] = {}
    for task_class, done in (
        (IdentityTask, ()),
        (ContentTask, ("identity", "faces")),
        (EmotionTask, ("identity", "faces", "content")),
    ):
        config = PadTrainConfig(model=TINY, start=start, batch=2, seconds=(1.0, 2.0), variants=1, noise=0.0)
        torch.manual_seed(0)
        task = task_class(config, prepared)
        first, last = overfit_one_batch(task, QUICK, 30)
        assert last < 0.9 * first, task.stage
        state = task.pad.state_dict()
        for name, value in known.items():
            if name.split(".")[0] in done:
                torch.testing.assert_close(state[name], value, atol=2e-3, rtol=2e-3, msg=name)
        found = task.validate()
        assert np.isfinite(list(found.values())).all()
        folder = tmp_path / task.stage
        task.export(folder, found)
        assert found.items() <= json.loads((folder / "config.json").read_text())["metrics"].items()
        start = str(folder)
        known = Pad.from_pretrained(start).state_dict()


@pytest.mark.parametrize(("task_class", "bound"), [(TiaTask, 0.95), (ScaTask, 0.8), (MbaTask, 0.6)])
def test_adapters_are_trained_over_a_frozen_model(
    task_class: type[CcfTask], bound: float, prepared: Path, frozen: dict[str, str], tmp_path: Path
) -> None:
    """Each has much to learn: the LDM is far off and hears words well, MBA begins spoilt."""
    config = CcfTrainConfig(
        model=CcfConfig(semantic=8, hidden=16), **frozen, batch=2, variants=1, frames=3, held_out=2
    )
    task = task_class(config, prepared)
    before = {name: weights_mark(getattr(task, name)) for name in ("autoencoder", "base")}
    found = task.validate()
    if isinstance(task, MbaTask):
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in task.modules["mba"].parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    first, last = overfit_one_batch(task, replace(QUICK, lr=1e-2), 30)
    assert last < bound * first
    assert {name: weights_mark(getattr(task, name)) for name in before} == before
    assert task.validate() != found
    assert np.isfinite(list(task.validate().values())).all()
    task.export(tmp_path, found)
    assert (tmp_path / "model.safetensors").is_file()


def test_joint_training_reaches_all_stages_and_progress_does_not(prepared: Path) -> None:
    config = PadTrainConfig(model=TINY, batch=2, seconds=(1.0, 2.0), variants=1, noise=0.0)
    for task_class, reached in ((JointTask, True), (ContentTask, False)):
        task = task_class(config, prepared)
        content = task.parts[1] if isinstance(task, JointTask) else task
        batch = next(content.batches(np.random.default_rng(0)))
        content.training_step(batch, 0, 0)["loss"].backward()
        assert any(p.grad is not None for p in task.pad.content.parameters())
        assert any(p.grad is not None for p in task.pad.identity.parameters()) == reached
    joint = JointTask(config, prepared)
    first, last = overfit_one_batch(joint, QUICK, 30)
    assert last < 0.6 * first
    assert np.isfinite(list(joint.validate().values())).all()


def test_gain_is_measured_on_speakers_who_were_left_out(prepared: Path, tmp_path: Path) -> None:
    config = PadTrainConfig(model=TINY, batch=2, seconds=(1.0, 2.0), variants=1, gain=1.5)
    given = ContentTask(config, prepared)
    given.export(tmp_path / "given", {})
    assert float(Pad.from_pretrained(str(tmp_path / "given")).content.gain) == pytest.approx(1.5, abs=1e-3)
    measured = ContentTask(replace(config, left_out=2), prepared)
    assert measured.left_out
    assert not {c.item.speaker for c in measured.left_out} & {c.item.speaker for c in measured.clips}
    measured.export(tmp_path / "measured", {})
    assert float(Pad.from_pretrained(str(tmp_path / "measured")).content.gain) != pytest.approx(1.5, abs=0.01)
