"""Every training task takes a real step in the tests: here, through its recipe, or where a table tells.

TH-PAD's parts are trained one over the other, at toy size, and used together, as docs/animate.md tells.
"""

import ast
import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from talkface.data.attributes import HEADS, AttributeHeads
from talkface.data.manifest import Item, Manifest
from talkface.errors import ModelUnavailable
from talkface.face.model import FaceModel
from talkface.face.people.appearance import AppearanceModel
from talkface.hub import load_pretrained
from talkface.nn.marks import weights_mark
from talkface.performance.marks import check_together, codes_mark
from talkface.performance.model import DiffusionPrior, MotionModel
from talkface.rendering.refiner import Refiner
from talkface.speech.features import ContentEncoder
from talkface.systems.thpad.pipeline import ThpadPipeline
from talkface.training import Task, TrainerConfig, fit
from talkface.training.run import TASKS, load_recipe, task_class, train_recipe

ROOT = Path(__file__).parents[2]

ELSEWHERE = {
    "face_texture": "test_it_is_learnt_from_portraits",
    "occlusion": "test_training_fits_a_batch_and_exports",
    "sync_expert": "test_expert_overfits_one_batch",
    "alignment": "test_alignment_overfits_one_batch",
    "generator": "test_generator_overfits_one_batch_and_is_judged",
    "autoencoder": "test_autoencoder_overfits_one_batch_and_is_judged",
    "diffusion": "test_diffusion_overfits_one_batch",
    "distilled": "test_student_overfits_one_batch_and_draws_as_it_has_learnt",
    "restorer": "test_restorer_overfits_one_batch_of_drafts",
    "critic": "test_restorer_overfits_one_batch_of_drafts",
    "pad_identity": "test_stages_are_trained_one_after_another",
    "pad_content": "test_stages_are_trained_one_after_another",
    "pad_emotion": "test_stages_are_trained_one_after_another",
    "pad_joint": "test_joint_training_reaches_all_stages_and_progress_does_not",
    "tia": "test_adapters_are_trained_over_a_frozen_model",
    "sca": "test_adapters_are_trained_over_a_frozen_model",
    "mba": "test_adapters_are_trained_over_a_frozen_model",
    "tccp_landmarks": "test_poses_are_learned",
    "tccp_reading": "test_drawn_landmarks_are_read",
    "tccp_video": "test_both_stages_train",
}
"""Tests of other tasks, somewhere in tests/: their losses fall over some steps."""

ONE_STEP = ["trainer.max_steps=1", "trainer.warmup_steps=1", "trainer.device=cpu", "trainer.precision=no"]


@pytest.fixture(scope="module")
def folder(prepared_people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder of two clips of each of six people, whose faces are of other widths and heights."""
    folder = tmp_path_factory.mktemp("families")
    source, generator = Manifest.load(prepared_people), np.random.default_rng(0)
    with np.load(source.track_path(source.items[0])) as arrays:
        track = dict(arrays)
    voice = source.speech(source.items[0])
    for kind in ("tracks", "speech"):
        (folder / kind).mkdir()
    for name in ("faces.npz", "looks.npz"):
        shutil.copy(prepared_people / name, folder)
    items = []
    for number, speaker in enumerate(("ann", "bea", "cid", "dan", "eve", "fay")):
        middle, size = track["points"].mean((0, 1)), 1 + 0.04 * generator.normal(size=3)
        for clip in range(2):
            split = "train" if number < 4 else "val"
            key, file = f"{speaker}{clip}", source.items[0].file
            items.append(Item(key=key, file=file, corpus="own", speaker=speaker, split=split))
            points = (middle + (track["points"] - middle) * size).astype(np.float32)
            np.savez(folder / "tracks" / f"{key}.npz", **track | {"points": points})
            np.savez(folder / "speech" / f"{key}.npz", audio=voice.audio, features=voice.features)
    Manifest(folder, source.root, items).save()
    return folder


def train(recipe: str, data: Path, runs: Path, *overrides: str) -> dict[str, float]:
    """Run a recipe for a step: losses are finite, every module changes. Gives the metrics."""

    def watched(task: Task, trainer: TrainerConfig, output: Path) -> dict[str, float]:
        modules = dict(task.modules)
        before = {name: weights_mark(module) for name, module in modules.items()}
        metrics = fit(task, trainer, output)
        with (output / "log.csv").open(newline="") as file:
            logged = {name: float(value) for _, _, name, value in csv.reader(file)}
        assert "loss" in logged
        assert np.isfinite(list(logged.values())).all(), logged
        assert all(weights_mark(modules[name]) != mark for name, mark in before.items())
        return metrics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("talkface.training.run.fit", watched)
        settings = [f"config.{override}" for override in overrides]
        path = ROOT / "recipes" / f"{recipe}.yaml"
        metrics = train_recipe(path, data, runs / recipe, [*ONE_STEP, *settings])
    assert load_recipe(runs / recipe / "recipe.yaml").task == load_recipe(path).task
    return metrics


SPEECH = "{width: 16, layers: 1, heads: 2, feed_forward: 32, features: 16}"
MOTION = "{content: 16, audio: 32, audio_blocks: 2, lip: 16, hidden: 32, members: 2}"
PRIOR = "{audio: 32, width: 32, layers: 1, heads: 2, feed_forward: 32}"
REFINER = "{identity: 8, code: 16, widths: [8, 16, 16], blocks: [1, 1, 1], pixels: 64}"


@pytest.fixture(scope="module")
def own(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of TH-PAD's parts, each trained for a step over those before it."""
    runs = tmp_path_factory.mktemp("runs")
    face, speech = f"face_model={runs}/face/export", f"encoder={runs}/speech-compact/export"
    train("face", folder, runs, "frames_per_clip=40")
    seconds = ("seconds_per_batch=3", "shortest=1", "longest=1.5")
    train("speech-compact", folder, runs, f"model={SPEECH}", *seconds)
    few = ("variants=1", "window=40", "batch=2")
    train("thpad-motion-compact", folder, runs, f"model={MOTION}", face, speech, *few)
    nested = [f"motion.{setting}" for setting in (face, speech, *few)]
    start = f"start={runs}/thpad-motion-compact/export"
    train("thpad-lips-compact", folder, runs, start, *nested)
    over = f"motion_model={runs}/thpad-lips-compact/export"
    train("thpad-prior-compact", folder, runs, over, *nested, f"model={PRIOR}", "batch=2")
    sizes = ("smallest_unit=20", "frames_per_clip=6", "mouths=1", "eyes=1", "adversarial_start=0")
    train("thpad-refiner-compact", folder, runs, face, f"model={REFINER}", *sizes)
    parts = {
        "face": "face",
        "speech": "speech-compact",
        "thpad-motion": "thpad-lips-compact",
        "thpad-prior": "thpad-prior-compact",
        "thpad-refiner": "thpad-refiner-compact",
    }
    directory = tmp_path_factory.mktemp("own")
    for part, run in parts.items():
        shutil.copytree(runs / run / "export", directory / part)
    return directory


LOADERS: dict[str, Callable[[str], object]] = {
    "face": FaceModel.from_pretrained,
    "speech": ContentEncoder.from_pretrained,
    "thpad-motion": MotionModel.from_pretrained,
    "thpad-prior": DiffusionPrior.from_pretrained,
    "thpad-refiner": Refiner.from_pretrained,
}


@pytest.mark.parametrize("part", LOADERS)
def test_parts_are_trained_one_over_the_other_and_load_again(own: Path, part: str) -> None:
    model = LOADERS[part](str(own / part))
    assert load_pretrained(own / part)[0]["class"] == type(model).__name__
    if isinstance(model, torch.nn.Module):
        assert all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values())


def test_parts_that_were_trained_together_animate(own: Path, portrait: Path, speech: Path) -> None:
    video = ThpadPipeline.from_pretrained(own, device="cpu")(portrait, speech, size=128)
    frames = list(video.frames())
    assert len(frames) == 30
    assert all(frame.shape == (128, 128, 3) for frame in frames)


BUILT = ("thpad-motion", "thpad-prior", "thpad-refiner")


def test_a_part_of_another_family_is_refused(own: Path, folder: Path, tmp_path: Path) -> None:
    """Each part passes beside those that it was trained over; with the shipped ones it does not."""

    def bases(place: Callable[[str], str]) -> tuple[FaceModel, ContentEncoder, MotionModel]:
        face, speech = (
            FaceModel.from_pretrained(place("face")),
            ContentEncoder.from_pretrained(place("speech")),
        )
        return face, speech, MotionModel.from_pretrained(place("thpad-motion"))

    mine, shipped = bases(lambda part: str(own / part)), bases(str)
    check_together([str(own / part) for part in BUILT], *mine)
    check_together(BUILT, *shipped)
    for part in BUILT:
        with pytest.raises(ModelUnavailable, match=f"{part} was trained over another"):
            check_together([str(own / part)], *shipped)
        with pytest.raises(ModelUnavailable, match=f"{part} was trained over another"):
            check_together([part], *mine)
    # Nor is anything trained over what does not belong together.
    with pytest.raises(ModelUnavailable, match="trained over another face"):
        train("thpad-prior-compact", folder, tmp_path, f"motion_model={own}/thpad-motion", f"model={PRIOR}")


def test_a_pipeline_of_two_families_is_refused(own: Path, tmp_path: Path) -> None:
    """What a directory lacks is the shipped part, which was not trained over the directory's."""
    shutil.copytree(own / "thpad-prior", tmp_path / "thpad-prior")
    with pytest.raises(ModelUnavailable, match="thpad-prior was trained over another motion model"):
        ThpadPipeline.from_pretrained(tmp_path)
    shutil.copytree(own / "face", tmp_path / "face")
    with pytest.raises(ModelUnavailable, match="thpad-motion was trained over another face model"):
        ThpadPipeline.from_pretrained(tmp_path)


def test_new_lips_leave_the_codes_as_they_are(own: Path) -> None:
    """A prior stays of use when lips are trained again; it does not when the codes' decoder is."""
    motion = MotionModel.from_pretrained(str(own / "thpad-motion"))
    mark = codes_mark(motion)
    with torch.no_grad():
        for part in (motion.audio_encoder[1], motion.mlp_a2l, motion.lip_decoder):
            for parameter in part.parameters():
                parameter.add_(1.0)
        motion.lip_gain.mul_(2)
        assert codes_mark(motion) == mark
        motion.non_lip_decoder.skip.bias.add_(1.0)
    assert codes_mark(motion) != mark


def test_sync_is_measured_with_a_first_model(own: Path, folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(folder, data)
    given = [f"motion_model={own}/thpad-motion", f"motion.face_model={own}/face"]
    with pytest.raises(ModelUnavailable, match="trained over another speech"):  # not over the teacher's
        train("thpad-sync", data, tmp_path, *given)
    given += [f"motion.encoder={own}/speech", "motion.features=student"]
    metrics = train("thpad-sync", data, tmp_path, *given)
    assert metrics["clips"] == 8
    assert (data / "sync.json").is_file()


def test_appearance_is_solved(folder: Path, tmp_path: Path) -> None:
    metrics = train("appearance", folder, tmp_path, "dimensions=8", "views_per_clip=4")
    assert np.isfinite(list(metrics.values())).all()
    assert AppearanceModel.from_pretrained(str(tmp_path / "appearance" / "export")).projection.shape[0] == 8


def test_attributes_are_solved(folder: Path, tmp_path: Path) -> None:
    rows = [f"face{k}\t{HEADS[k % len(HEADS)]}" for k in range(8)]
    (tmp_path / "labels.tsv").write_text("\n".join(["key\tattributes", *rows]) + "\n")
    metrics = train("attributes", folder, tmp_path, f"labels={tmp_path}/labels.tsv")
    assert metrics.keys() == {f"val_auc_{name}" for name in HEADS}
    assert len(AttributeHeads.from_pretrained(str(tmp_path / "attributes" / "export")).weight) == len(HEADS)


HERE = {"face", "speech", "motion", "lips", "prior", "refiner", "sync", "appearance", "attributes"}


STEPS = {"overfit_one_batch", "solve", "training_step"}


def names_in_test(text: str, test: str) -> set[str]:
    """Names in a test of a file, and in the fixtures, functions and classes of the file that it uses."""
    kinds = ast.FunctionDef | ast.ClassDef
    parts = {node.name: node for node in ast.parse(text).body if isinstance(node, kinds)}
    found: set[str] = set()
    waiting = [test]
    while waiting:
        if part := parts.pop(waiting.pop(), None):
            nodes = list(ast.walk(part))
            names = {node.id for node in nodes if isinstance(node, ast.Name)}
            names |= {node.arg for node in nodes if isinstance(node, ast.arg)}
            waiting += names
            found |= names | {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return found


def test_every_task_takes_a_step_in_a_test() -> None:
    assert ELSEWHERE.keys() | HERE == TASKS.keys()
    assert not ELSEWHERE.keys() & HERE
    files = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    for name, test in ELSEWHERE.items():
        found = [names_in_test(text, test) for text in files if f"\ndef {test}(" in text]
        assert found, f"there is no {test} any more"
        used = set().union(*found)
        assert task_class(name).__name__ in used, f"{test} does not use the task {name}"
        assert used & STEPS, f"{test} takes no step"
