"""ImagineID: what is heard, the stages of PAD, the adapters of CCF, and their trainings, on tiny models."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import RATE, read_samples, write_looks, write_wav
from talkface.data.manifest import Manifest
from talkface.data.prepare import list_items
from talkface.diffusion.autoencoder import FaceAutoencoder
from talkface.diffusion.captions import PSEUDO_WORDS, tokenize
from talkface.diffusion.model import FaceDiffusion
from talkface.face.draw import MESH_CHANNELS, MESH_PIXELS
from talkface.face.model import FaceModel
from talkface.face.tracker import FaceTracker
from talkface.media.video import VideoReader
from talkface.nn.marks import weights_mark
from talkface.speech.features import SAMPLES_PER_FEATURE, ContentEncoder, FeatureStream
from talkface.speech.pitch import HIGHEST, LOWEST, pitch
from talkface.systems.imagineid.ccf import (
    MaskBlendingAdapter,
    SpatialCondition,
    SpatialConditionalAdapter,
    TextualInversionAdapter,
    decode_blended,
    with_pseudo_words,
)
from talkface.systems.imagineid.config import EMOTIONS, CcfConfig, PadConfig
from talkface.systems.imagineid.losses import gaussian, voice_to_face
from talkface.systems.imagineid.pad import Pad, Speech
from talkface.systems.imagineid.pad_input import PROSODY, pad_input
from talkface.systems.imagineid.reference_warp import hidden_cells, move_portrait
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


# -- hearing ---------------------------------------------------------------------------------------


@given(st.floats(LOWEST * 1.1, HIGHEST * 0.9), st.floats(0.01, 0.9), st.integers(0, 99))
def test_pitch_of_a_buzz_is_found(frequency: float, loudness: float, seed: int) -> None:
    time = np.arange(RATE) / RATE
    buzz = sum(np.sin(2 * np.pi * frequency * k * time) / k for k in range(1, 9))
    noise = np.random.default_rng(seed).normal(0, 0.02, RATE)
    octaves, periodicity = pitch(torch.from_numpy(loudness * (buzz + noise)).float())
    assert octaves.shape == periodicity.shape == (RATE // SAMPLES_PER_FEATURE,)
    inner = slice(3, -3)
    found = 160 * 2 ** octaves[inner].median()
    assert abs(np.log2(float(found) / frequency)) < 0.05
    assert periodicity[inner].min() > 0.8


def test_noise_is_not_periodic() -> None:
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 0.3, RATE)).float()
    assert pitch(noise)[1].median() < 0.4


@given(st.integers(1, 3 * RATE))
def test_as_much_is_heard_as_there_is(count: int) -> None:
    stream = FeatureStream(ContentEncoder.debug())
    found = pad_input(np.random.default_rng(0).normal(0, 0.1, count).astype(np.float32), stream)
    frames = -(-count // SAMPLES_PER_FEATURE)
    assert len(found) == frames
    assert found.content.shape == (frames, 16)
    assert found.prosody.shape == (frames, PROSODY)
    assert np.isfinite(found.prosody).all()


# -- PAD -------------------------------------------------------------------------------------------


def speech_of(batch: int, count: int, content: int = 16) -> Speech:
    return Speech(
        torch.randn(batch, count, content), -20 * torch.rand(batch, count), torch.randn(batch, count, PROSODY)
    )


@settings(max_examples=30)
@given(st.integers(4, 60))
def test_stages_fit_together(pairs: int) -> None:
    pad, count = Pad.debug(), 2 * pairs
    speech = speech_of(2, count)
    with torch.no_grad():
        told = pad.identity(speech)
        mouth = pad.content.mean(speech, told.code())
        logits = pad.emotion.logits(speech, told.code(), mouth)
        upper, more = pad.emotion.express(logits.softmax(-1))
    torch.testing.assert_close(told.semantic.norm(dim=1), torch.ones(2))
    assert (told.shape_spread > 0).all()
    assert (told.age_spread > 0).all()
    assert mouth.shape == (2, pairs, 28)
    assert logits.shape == (2, logits.shape[1], len(EMOTIONS))
    assert abs(logits.shape[1] - count / 4) < 1
    assert upper.shape == (*logits.shape[:2], 16)
    assert more.shape == (*logits.shape[:2], 28)


def test_a_neutral_voice_has_no_expression() -> None:
    pad = Pad.debug()
    upper, mouth = pad.emotion.express(torch.eye(len(EMOTIONS))[:1])
    assert not upper.any()
    assert not mouth.any()


def test_likelihood_is_best_at_the_truth() -> None:
    value = torch.tensor([1.0, -2.0])
    spread = torch.full((2,), 0.5)
    at, beside = gaussian(value, value, spread), gaussian(value, value + 0.3, spread)
    assert at < beside
    assert gaussian(value, value + 0.5, spread) < gaussian(value, value + 0.5, spread / 4)


def test_contrast_leaves_pictures_of_the_same_person_alone() -> None:
    voices = torch.nn.functional.normalize(torch.randn(3, 4), dim=1)
    faces = voices.clone()
    faces[2] = faces[1]
    apart, together = torch.eye(3, dtype=torch.bool), torch.eye(3, dtype=torch.bool)
    together[1, 2] = together[2, 1] = True
    factor = torch.tensor(10.0)
    voices[2] = voices[1]
    assert voice_to_face(voices, faces, factor, together) < voice_to_face(voices, faces, factor, apart)


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


# -- CCF -------------------------------------------------------------------------------------------


def test_pseudo_words_stand_where_their_tokens_are() -> None:
    model = FaceDiffusion.debug()
    adapter = TextualInversionAdapter(CcfConfig(semantic=8, emotion=4, hidden=16), model.config.text)
    ids = torch.from_numpy(tokenize("man, beard", PSEUDO_WORDS).ids)[None]
    with torch.no_grad():
        pseudo = adapter(torch.randn(1, 8), torch.randn(1, 4))
        words = model.text.embed(ids)
        found = with_pseudo_words(words, ids, pseudo, model.pseudo_words)
    assert pseudo.shape == (1, len(PSEUDO_WORDS), model.config.text)
    torch.testing.assert_close(found[:, 1 : 1 + len(PSEUDO_WORDS)], pseudo)
    torch.testing.assert_close(found[:, 0], words[:, 0])
    torch.testing.assert_close(found[:, 1 + len(PSEUDO_WORDS) :], words[:, 1 + len(PSEUDO_WORDS) :])


def a_condition(batch: int = 1) -> SpatialCondition:
    return SpatialCondition(
        torch.rand(batch, MESH_CHANNELS, MESH_PIXELS, MESH_PIXELS),
        torch.randn(batch, 4, 32, 32),
        torch.randn(batch, 4, 32, 32),
        torch.ones(batch, 1, 32, 32),
        torch.ones(batch, 2),
    )


def test_spatial_adapter_begins_without_effect_and_sees_only_what_is_known() -> None:
    torch.manual_seed(0)
    model = FaceDiffusion.debug()
    adapter, condition = SpatialConditionalAdapter(model.config, model), a_condition()
    noisy, time = torch.randn(1, 4, 32, 32), torch.tensor([0.5])
    with torch.no_grad():
        text_embeddings = model.encode_text(torch.from_numpy(tokenize("").ids)[None])
        mesh = model.encode_mesh(condition.drawing)
        plain = model(noisy, time, text_embeddings, mesh)
        control = adapter(*model.inputs(noisy, time, mesh), text_embeddings, condition)
        torch.testing.assert_close(model(noisy, time, text_embeddings, mesh, **control), plain)
        for parameter in adapter.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))

        def shown(condition: SpatialCondition) -> torch.Tensor:
            control = adapter(*model.inputs(noisy, time, mesh), text_embeddings, condition)
            return model(noisy, time, text_embeddings, mesh, **control)

        assert (shown(condition) != plain).any()
        hidden = replace(condition, known=torch.zeros(1, 2))
        other = replace(hidden, reference=torch.randn(1, 4, 32, 32), before=torch.randn(1, 4, 32, 32))
        torch.testing.assert_close(shown(hidden), shown(other))
        assert (shown(condition) != shown(replace(condition, reference=-condition.reference))).any()


def test_blending_adapter_keeps_the_background() -> None:
    torch.manual_seed(0)
    autoencoder = FaceAutoencoder.debug()
    adapter = MaskBlendingAdapter([8, 8, 8])
    face, background = torch.randn(2, 1, 4, 8, 8)
    mask = torch.zeros(1, 1, 64, 64)
    with torch.no_grad():
        mask[..., 24:40, 24:40] = 1
        found = decode_blended(autoencoder, adapter, face, background, mask)
        own, beside = autoencoder.decode(face), autoencoder.decode(background)
        torch.testing.assert_close(found[..., :6, :], beside[..., :6, :])
        assert (found[..., 30:34, 30:34] - own[..., 30:34, 30:34]).abs().mean() < (
            found[..., 30:34, 30:34] - beside[..., 30:34, 30:34]
        ).abs().mean()
        torch.testing.assert_close(
            decode_blended(autoencoder, adapter, face, background, torch.ones_like(mask)), own
        )


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


def test_moved_portrait_has_the_other_face(talking_frames: list[np.ndarray]) -> None:
    face, tracker = FaceModel.from_pretrained(), FaceTracker()
    one, other = (tracker.track_image(talking_frames[k])[0].points for k in (0, 40))
    neutral = face.fit(one[None]).neutral
    moved = move_portrait(talking_frames[0], one, other, neutral, face.mesh_warp())
    found = tracker.track_image(moved)[0].points
    apart = [np.linalg.norm((found - mesh)[:, :2], axis=1).mean() for mesh in (one, other)]
    assert apart[1] < 0.5 * apart[0]
    corner = np.s_[:20, :20]
    np.testing.assert_array_equal(moved[corner], talking_frames[0][corner])
    same = move_portrait(talking_frames[0], one, one, neutral, face.mesh_warp())
    assert np.abs(same.astype(int) - talking_frames[0]).mean() < 1
    cells = hidden_cells(other)
    assert cells.shape == (1, 32, 32)
    assert 0.05 < cells.mean() < 0.6


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
