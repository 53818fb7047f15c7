"""The face LDM: autoencoder, captions, meshes, portraits, sampling and trainings, on tiny models."""

import base64
import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch.nn import functional as F

from conftest import write_looks
from talkface.data.attributes import HEADS, AttributeHeads
from talkface.data.faces import Portrait, held_out, portraits, weights
from talkface.data.manifest import Item, Manifest
from talkface.diffusion import captions
from talkface.diffusion.autoencoder import FACTOR, FaceAutoencoder
from talkface.diffusion.base import Base, exposed
from talkface.diffusion.captions import LENGTH, VOCABULARY, Attributes, caption, phrases, tokenize
from talkface.diffusion.config import AutoencoderConfig, DiffusionConfig
from talkface.diffusion.critic import PortraitCritic, Views
from talkface.diffusion.model import FaceDiffusion
from talkface.diffusion.restorer import FaceRestorer, without_grid
from talkface.diffusion.sampling import guided, restored, sample, spectrum
from talkface.errors import InvalidOption, ModelUnavailable
from talkface.face.crop import LEFT_EYE, MOUTH, RIGHT_EYE, face_unit, transform
from talkface.face.draw import MESH_CHANNELS, MESH_PIXELS, draw_mesh
from talkface.face.model import FaceModel
from talkface.face.portrait import PIXELS, SIDE, portrait_matrix
from talkface.face.tfjs import TfjsGraph
from talkface.face.tracker import FaceTracker
from talkface.hub import save_pretrained
from talkface.media.video import VideoReader
from talkface.nn.marks import latents_mark, weights_mark
from talkface.nn.picture import cut_out
from talkface.training import TrainerConfig, overfit_one_batch
from talkface.training.datasets.latents import LatentAlbum, vary
from talkface.training.perceptual import Judges
from talkface.training.tasks.diffusion_autoencoder import AutoencoderTask, AutoencoderTrainConfig
from talkface.training.tasks.diffusion_critic import CriticTask, CriticTrainConfig
from talkface.training.tasks.diffusion_ldm import DiffusionTask, DiffusionTrainConfig
from talkface.training.tasks.diffusion_restorer import RestorerTask, RestorerTrainConfig

SMALL_AUTOENCODER = AutoencoderConfig(encoder=(8, 16), decoder=(16, 8, 8), blocks=(1, 1, 1))
SMALL = DiffusionConfig(widths=(16, 32), attention=(False, True), heads=2, text=16, text_layers=1, mesh=4)
QUICK = TrainerConfig(max_steps=60, lr=3e-3, warmup_steps=2, device="cpu")


@pytest.fixture(scope="module")
def face() -> FaceModel:
    return FaceModel.from_pretrained()


@pytest.fixture(scope="module")
def points(picture) -> np.ndarray:
    """The mesh of the good portrait, (478, 3)."""
    return FaceTracker().track_image(np.asarray(picture))[0].points


# -- autoencoder -----------------------------------------------------------------------------------


@given(st.integers(1, 6), st.integers(1, 6))
def test_latents_are_an_eighth_of_the_picture(height: int, width: int) -> None:
    model = FaceAutoencoder.debug()
    image = torch.rand(1, 3, FACTOR * height, FACTOR * width)
    with torch.no_grad():
        latents = model.encode(image)
        again = model.decode(latents)
    assert latents.shape == (1, 4, height, width)
    assert again.shape == image.shape
    assert again.min() >= 0
    assert again.max() <= 1


def test_decoding_undoes_the_scale_of_latents() -> None:
    model = FaceAutoencoder.debug()
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        plain = model.decode(model.encode(image))
        model.mean.fill_(0.3)
        model.scale.fill_(2.5)
        torch.testing.assert_close(model.decode(model.encode(image)), plain)


# -- captions --------------------------------------------------------------------------------------


def optional(strategy):
    return st.none() | strategy


ATTRIBUTES = st.builds(
    Attributes,
    male=optional(st.floats(0, 1)),
    age=optional(st.floats(0, 99)),
    hair=optional(st.sampled_from(("bald", *captions.HAIR))),
    glasses=optional(st.booleans()),
    beard=optional(st.booleans()),
    hat=optional(st.booleans()),
    expression=optional(st.sampled_from(captions.EXPRESSIONS)),
    light=optional(st.sampled_from(captions.LIGHTS)),
    background=optional(st.sampled_from(captions.COLOURS)),
    plain=optional(st.booleans()),
)


@given(ATTRIBUTES, st.integers(0, 9))
def test_every_word_of_a_caption_is_known(attributes: Attributes, seed: int) -> None:
    assert all(word in VOCABULARY for phrase in phrases(attributes) for word in phrase.split())
    for said in (caption(attributes), caption(attributes, np.random.default_rng(seed))):
        found = tokenize(said)
        assert found.ids.shape == (LENGTH,)
        assert set(said.replace(",", "").split()) <= {VOCABULARY[k] for k in found.ids} | set(found.ignored)


@given(st.text(max_size=300))
def test_any_prompt_can_be_read(prompt: str) -> None:
    found = tokenize(prompt)
    assert found.ids.shape == (LENGTH,)
    assert 0 <= found.ids.min() <= found.ids.max() < len(VOCABULARY)


def test_unknown_words_are_told_and_synonyms_understood() -> None:
    found = tokenize("A bearded gentleman with a monocle and ginger hair")
    words = [VOCABULARY[k] for k in found.ids if VOCABULARY[k] != captions.PADDING]
    assert words == [captions.START, "beard", "man", "red", "hair"]
    assert found.ignored == ["monocle"]
    assert tokenize("man " * 40).ignored == ["man"] * (41 - LENGTH)
    assert captions.PSEUDO_WORDS[0] in [VOCABULARY[k] for k in tokenize("man", captions.PSEUDO_WORDS).ids]
    assert tokenize("<voice0>").ignored == ["voice0"]


# -- meshes and portraits --------------------------------------------------------------------------


def test_mesh_drawing_shows_the_face_and_nothing_beside_it(face: FaceModel, points: np.ndarray) -> None:
    drawn = draw_mesh(face.mesh_warp(), points, 512)
    assert drawn.shape == (MESH_CHANNELS, MESH_PIXELS, MESH_PIXELS)
    low, high = (points[:, :2].min(0) / 4).astype(int) - 1, (points[:, :2].max(0) / 4).astype(int) + 2
    beside = np.ones(drawn.shape[1:], bool)
    beside[low[1] : high[1], low[0] : high[0]] = False
    assert not drawn[:, beside].any()
    length = np.linalg.norm(drawn[:3], axis=0)
    np.testing.assert_allclose(length[length > 0], 1, atol=1e-5)
    iris = drawn[5] > 0
    assert iris.any()
    assert (drawn[4][iris] > 0).all(), "irises are seen between the lids only"


@pytest.mark.parametrize("yaw", [0.0, 0.9])
def test_mirrored_mesh_is_drawn_mirrored(face: FaceModel, yaw: float) -> None:
    """From behind, a turned head's far cheek would cover its near one."""
    turned = face.mean @ Rotation.from_rotvec([0, yaw, 0]).as_matrix().T
    points = (turned * 150 + [256, 256, 0]).astype(np.float32)
    warp, mirrored = face.mesh_warp(), points.copy()
    mirrored[:, 0] = 511 - mirrored[:, 0]
    one, other = draw_mesh(warp, points, 512), draw_mesh(warp, mirrored, 512)[:, :, ::-1]
    other = other * np.array([-1, 1, 1, 1, 1, 1])[:, None, None]
    inside = np.abs(one[:3]).sum(0) > 0
    assert np.abs(one - other)[:, inside].mean() < 0.03


@given(
    st.floats(30, 400),
    st.tuples(st.floats(-50, 690), st.floats(-50, 530)),
    st.integers(64, 640),
    st.integers(64, 480),
)
def test_portraits_lie_in_their_picture(
    unit: float, place: tuple[float, float], width: int, height: int
) -> None:
    mesh = np.zeros((478, 3))
    mesh[33], mesh[263] = [place[0] - unit / 2, place[1], 0], [place[0] + unit / 2, place[1], 0]
    mesh[1] = [*place, 0]
    mesh[[10, 2], 0] = place[0]
    matrix = portrait_matrix(mesh, (width, height))
    back = cv2.invertAffineTransform(matrix)
    corners = np.array([[-0.5, -0.5], [PIXELS - 0.5, PIXELS - 0.5]]) @ back[:, :2].T + back[:, 2]
    assert (corners > -0.5 - 1e-3).all()
    assert (corners < np.array([width, height]) - 0.5 + 1e-3).all()
    assert corners[1, 0] - corners[0, 0] == pytest.approx(min(SIDE * face_unit(mesh), width, height))


def test_varied_portrait_keeps_mesh_and_picture_together(picture, points: np.ndarray) -> None:
    small = cv2.resize(np.asarray(picture), (PIXELS, PIXELS), interpolation=cv2.INTER_AREA)
    mesh = transform(points, np.array([[0.5, 0, -0.25], [0, 0.5, -0.25]]))
    tracker = FaceTracker()
    for seed in range(4):
        image, moved = vary(small, mesh, np.random.default_rng(seed))
        found = tracker.track_image(image)[0].points
        mirrored = np.linalg.norm(found[33, :2] - moved[263, :2]) < np.linalg.norm(
            found[33, :2] - moved[33, :2]
        )
        order = [263, 33, 1, 152] if mirrored else [33, 263, 1, 152]
        off = np.linalg.norm(found[[33, 263, 1, 152], :2] - moved[order, :2], axis=1) / face_unit(moved)
        assert off.max() < 0.12, seed


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
        assert portrait.image().shape == (PIXELS, PIXELS, 3)
        found = tracker.track_image(portrait.image())[0].points
        off = np.linalg.norm((found - portrait.points)[:, :2], axis=1).mean() / face_unit(found)
        assert off < 0.05
        assert portrait.sharpness > 0
    assert {p.person for p in held_out(album, 8)} == {"ownval"}
    assert {p.person for p in held_out(album, 8, "dev")} == {"sharp1"}


def test_people_count_more_alike_than_pictures() -> None:
    one = Portrait("a", "once", "train", np.zeros(0, np.uint8), np.zeros((478, 3)), 5.0)
    often = [replace(one, key=str(k), person="often") for k in range(50)]
    chance = weights([one, *often])
    assert chance.sum() == pytest.approx(1)
    assert 10 * chance[1] < chance[0] < chance[1:].sum()
    real, generated = weights([one, replace(one, person="nobody", generated=True)])
    assert 0 < generated < real


# -- U-Net and sampling ----------------------------------------------------------------------------


def test_velocity_depends_on_caption_and_mesh(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = FaceDiffusion.debug()
    noisy, time = torch.randn(2, 4, 32, 32), torch.tensor([0.2, 0.9])
    ids = torch.from_numpy(np.stack([tokenize("man").ids, tokenize("woman, glasses").ids]))
    with torch.no_grad():
        meaning, mesh = model.read(ids), model.see(torch.rand(2, MESH_CHANNELS, MESH_PIXELS, MESH_PIXELS))
        plain = model(noisy, time, meaning, mesh)
        assert plain.shape == noisy.shape
        assert (model(noisy, time, meaning.flip(0), mesh) != plain).any()
        assert (model(noisy, time, meaning, torch.zeros_like(mesh)) != plain).any()
        save_pretrained(tmp_path, {"model": asdict(model.config)}, model.state_dict(), dtype=torch.float32)
        again = FaceDiffusion.from_pretrained(str(tmp_path))
        torch.testing.assert_close(again(noisy, time, meaning, mesh), plain)


@given(st.integers(1, 12), st.floats(0.05, 1.0), st.floats(1.0, 4.0), st.integers(0, 99))
def test_a_straight_flow_is_followed_exactly(steps: int, begin: float, shift: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    clean, noise = torch.randn(2, 2, 4, 8, 8, generator=generator)
    first = shift * begin / (1 + (shift - 1) * begin)
    asked: list[float] = []

    def velocity(x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        asked.append(float(time[0]))
        return noise - clean

    found = sample(velocity, (1 - first) * clean + first * noise, steps, begin, shift)
    torch.testing.assert_close(found, clean, atol=1e-4, rtol=1e-4)
    assert len(asked) == steps
    assert asked == sorted(asked, reverse=True)
    assert asked[0] == pytest.approx(first, abs=1e-3)


def test_guidance_goes_on_where_the_caption_leads() -> None:
    torch.manual_seed(0)
    model = FaceDiffusion.debug()
    x, time = torch.randn(1, 4, 32, 32), torch.tensor([0.5])
    mesh = torch.zeros(1, 4, 32, 32)
    with torch.no_grad():
        said, nothing = (model.read(torch.from_numpy(tokenize(p).ids)[None]) for p in ("old man, beard", ""))
        with_caption, without = (guided(model, meaning, mesh, 1.0)(x, time) for meaning in (said, nothing))
        found = guided(model, said, mesh, 3.0)(x, time)
    torch.testing.assert_close(found, without + 3 * (with_caption - without), atol=1e-4, rtol=1e-4)


# -- trainings -------------------------------------------------------------------------------------


def test_autoencoder_overfits_one_batch_and_is_judged(prepared: Path, tmp_path: Path) -> None:
    config = AutoencoderTrainConfig(
        model=SMALL_AUTOENCODER,
        patch=PIXELS,
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
    assert batch.shape == (1, 3, PIXELS, PIXELS)
    assert "adversarial" not in task.training_step(batch, 0, 0)
    late = task.training_step(batch, 0, 100)
    assert all(torch.isfinite(value) for value in late.values())
    assert task.training_step(batch, 1, 0)["loss"] == 0
    assert task.training_step(batch, 1, 100)["loss"] > 0
    found = task.validate()
    assert found["val_psnr"] > before["val_psnr"]
    assert task.samples().shape == (2 * PIXELS, 2 * PIXELS, 3)
    task.export(tmp_path, found)
    latents = LatentAlbum.of(task.album, FaceAutoencoder.from_pretrained(str(tmp_path)), 2, tmp_path)
    assert latents.latents.shape == (len(task.album), 2, 4, 32, 32)
    assert latents.latents[:, 0].astype(float).std() == pytest.approx(1, abs=0.2)
    again = LatentAlbum.of(task.album, FaceAutoencoder.from_pretrained(str(tmp_path)), 2, tmp_path)
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
    assert task.samples().shape[1:] == (PIXELS, 3)  # of the one person whom split "dev" alone holds
    task.spectrum = partial(task.spectrum, 8)  # of fewer samples
    task.export(tmp_path / "export", found)
    written = FaceDiffusion.from_pretrained(str(tmp_path / "export")).config
    assert replace(written, spectrum=()) == SMALL
    assert len(written.spectrum) == 16
    assert min(written.spectrum) > 0
    assert json.loads((tmp_path / "export" / "config.json").read_text())["metrics"] == found


# -- restorer --------------------------------------------------------------------------------------


@given(st.floats(20, 200), st.floats(20, 200), st.floats(-40, 40), st.floats(0.3, 3))
def test_crops_with_gradients_are_those_without(x: float, y: float, angle: float, zoom: float) -> None:
    picture = cv2.GaussianBlur(np.random.default_rng(0).random((256, 256, 3), np.float32), (0, 0), 3)
    matrix = cv2.getRotationMatrix2D((x, y), angle, zoom)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    wanted = cv2.warpAffine(picture, matrix, (32, 32), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    given = torch.from_numpy(picture).permute(2, 0, 1)[None]
    with torch.autocast("cpu", torch.bfloat16):
        found = cut_out(given, torch.from_numpy(matrix)[None], 32)[0].permute(1, 2, 0)
    np.testing.assert_allclose(found.numpy(), wanted, atol=0.01)


@given(st.integers(0, 2**16), st.integers(1, 255))
def test_dark_pictures_are_exposed_and_light_ones_stay(seed: int, most: int) -> None:
    picture = np.random.default_rng(seed).integers(0, most + 1, (32, 32, 3)).astype(np.uint8)
    found = exposed(picture)
    assert (found >= picture).all()
    assert found.max() <= np.ceil(1.5 * picture.max())
    if np.percentile(picture.max(2), 99) >= 235:
        np.testing.assert_array_equal(found, picture)
    else:
        assert np.percentile(found.max(2), 99) <= 236


@given(st.integers(1, 8), st.integers(1, 8))
def test_restorer_begins_as_the_identity(height: int, width: int) -> None:
    draft = torch.rand(1, 3, 16 * height, 16 * width)
    with torch.inference_mode():
        made = FaceRestorer.debug()(draft, torch.zeros(1, MESH_CHANNELS, 8 * height, 8 * width))
    torch.testing.assert_close(made, draft, atol=0.05, rtol=0)


@given(st.integers(0, 2**16), st.integers(16, 40))
def test_patterns_of_the_grid_are_taken_off_and_nothing_else(seed: int, cells: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    side = 4 * cells
    slope, spot = torch.linspace(0, 1, side).expand(1, 1, side, side), torch.zeros(1, 1, side, side)
    spot[..., side // 2, side // 2] = 1.0
    pattern = 0.1 * torch.randn(4, 4, generator=generator).repeat(cells, cells)[None, None]
    pattern = pattern - pattern.mean()
    inner = np.s_[..., 24:-24, 24:-24]  # at the edge a neighbourhood is cut off
    for picture in (slope, spot):
        torch.testing.assert_close(without_grid(picture)[inner], picture[inner], atol=0.02, rtol=0)
    assert without_grid(pattern)[inner].std() < 0.3 * pattern.std()


@given(st.integers(0, 2**16))
def test_alike_eyes_are_shown_alike_to_their_judge(seed: int) -> None:
    half = torch.rand(1, 3, 128, 64, generator=torch.Generator().manual_seed(seed))
    picture = torch.cat([half, half.flip(-1)], 3)
    right = torch.tensor([[[0.5, 0.0, 20.0], [0.0, 0.5, 40.0]]])
    left = right * torch.tensor([[-1.0], [1.0]]) + torch.tensor([[0.0, 0.0, 127.0], [0.0, 0.0, 0.0]])
    parts = {RIGHT_EYE.name: right, LEFT_EYE.name: left, MOUTH.name: right}
    eyes, mouth = Judges(PortraitCritic.debug(), 4, layers=()).cut(picture, parts)
    torch.testing.assert_close(eyes[:, :3], eyes[:, 3:], atol=1e-4, rtol=0)
    assert mouth.shape == (1, 3, MOUTH.pixels, MOUTH.pixels)


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
    assert len(task.book.drafts) == 6
    np.testing.assert_array_equal(task.book.drafts.image(5), again.book.drafts.image(5))
    assert config.times[0] <= task.book.drafts.time.min() <= task.book.drafts.time.max() <= config.times[1]
    first, last = overfit_one_batch(task, QUICK, 40)
    assert last < 0.8 * first
    batch = next(task.batches(np.random.default_rng(0)))
    assert all(torch.isfinite(value) for value in task.training_step(batch, 0, 0).values())
    assert task.training_step(batch, 1, 0)["loss"] > 0
    assert task.samples().shape == (4 * PIXELS, 2 * PIXELS, 3)
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


@given(st.integers(0, 2**16), st.sampled_from([0.3, 0.5, 1.0]))
def test_coarser_views_keep_their_size_and_mean(seed: int, size: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    views = Views(*(torch.rand(2, c, 64, 64, generator=generator) for c in (6, 3)))
    for before, after in zip(views, views.coarser(size), strict=True):
        assert after.shape == before.shape
        torch.testing.assert_close(after.mean((2, 3)), before.mean((2, 3)), atol=0.03, rtol=0)
        assert after.std() <= before.std() + 1e-6


# -- attributes ------------------------------------------------------------------------------------


def test_heads_find_what_is_linear() -> None:
    generator = np.random.default_rng(0)
    design = generator.normal(size=(200, 20))
    labels = (design[:, : len(HEADS)] > 0).astype(float)
    heads = AttributeHeads.solve(design, labels, penalty=1.0)
    told = np.array([list(heads(row).values()) for row in design]) > 0.5
    assert (told == labels).mean() > 0.95


def test_graphs_of_tensorflow_js_run(tmp_path: Path) -> None:
    """A strided convolution with TensorFlow's padding, a bias, an activation and a mean."""
    generator = np.random.default_rng(0)
    kernel, bias = (
        generator.normal(size=(3, 3, 2, 5)).astype(np.float16),
        generator.normal(size=5).astype(np.float32),
    )

    def word(text: str) -> dict:
        return {"s": base64.b64encode(text.encode()).decode()}

    fused = {"list": {"s": [base64.b64encode(name).decode() for name in (b"BiasAdd", b"Relu")]}}
    nodes = [
        {"name": "x", "op": "Placeholder"},
        {"name": "kernel", "op": "Const"},
        {"name": "bias", "op": "Const"},
        {"name": "axes", "op": "Const"},
        {
            "name": "conv",
            "op": "_FusedConv2D",
            "input": ["x", "kernel", "bias"],
            "attr": {
                "strides": {"list": {"i": ["1", "2", "2", "1"]}},
                "padding": word("SAME"),
                "fused_ops": fused,
            },
        },
        {"name": "mean", "op": "Mean", "input": ["conv", "axes"]},
    ]
    manifest = [
        {"name": "kernel", "shape": [3, 3, 2, 5], "dtype": "float32", "quantization": {"dtype": "float16"}},
        {"name": "bias", "shape": [5], "dtype": "float32"},
        {"name": "axes", "shape": [2], "dtype": "int32"},
    ]
    model = {"modelTopology": {"node": nodes}, "weightsManifest": [{"weights": manifest}]}
    (tmp_path / "m.json").write_text(json.dumps(model))
    (tmp_path / "m.bin").write_bytes(kernel.tobytes() + bias.tobytes() + np.array([1, 2], np.int32).tobytes())
    graph = TfjsGraph(tmp_path / "m.json", tmp_path / "m.bin", ["conv", "mean"])
    x = torch.randn(1, 8, 7, 2)
    found, mean = graph(x)
    weight = torch.from_numpy(kernel.astype(np.float32)).permute(3, 2, 0, 1)
    # TensorFlow pads even sides at the end only.
    padded = F.pad(x.permute(0, 3, 1, 2), (1, 1, 0, 1))
    expected = F.conv2d(padded, weight, torch.from_numpy(bias), stride=2).relu().permute(0, 2, 3, 1)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(mean, expected.mean((1, 2)))
    nodes[5]["op"] = "Strange"
    (tmp_path / "m.json").write_text(json.dumps(model))
    with pytest.raises(ValueError, match="Strange"):
        TfjsGraph(tmp_path / "m.json", tmp_path / "m.bin", ["mean"])


def test_graphs_of_tensorflow_js_end_in_a_dense_layer(tmp_path: Path) -> None:
    """What MobileFace needs beside: edges, a difference, another shape, and a product."""
    generator = np.random.default_rng(0)
    constants = {
        "edges": np.array([[0, 0], [1, 2], [0, 1], [0, 0]], np.int32),
        "middle": generator.normal(size=3).astype(np.float32),
        "shape": np.array([-1, 24], np.int32),
        "dense": generator.normal(size=(24, 4)).astype(np.float32),
    }
    nodes = [{"name": "x", "op": "Placeholder"}, *({"name": name, "op": "Const"} for name in constants)]
    nodes += [
        {"name": "less", "op": "Sub", "input": ["x", "middle"]},
        {"name": "pad", "op": "Pad", "input": ["less", "edges"]},
        {"name": "flat", "op": "Reshape", "input": ["pad", "shape"]},
        {"name": "out", "op": "MatMul", "input": ["flat", "dense"]},
    ]
    manifest = [
        {"name": name, "shape": list(value.shape), "dtype": str(value.dtype)}
        for name, value in constants.items()
    ]
    model = {"modelTopology": {"node": nodes}, "weightsManifest": [{"weights": manifest}]}
    (tmp_path / "m.json").write_text(json.dumps(model))
    (tmp_path / "m.bin").write_bytes(b"".join(value.tobytes() for value in constants.values()))
    x = torch.randn(2, 1, 1, 3)
    padded = np.pad(x.numpy() - constants["middle"], constants["edges"])
    (found,) = TfjsGraph(tmp_path / "m.json", tmp_path / "m.bin", ["out"])(x)
    np.testing.assert_allclose(found, padded.reshape(2, 24) @ constants["dense"], rtol=1e-5)


def test_graphs_of_tensorflow_js_pool_and_grow(tmp_path: Path) -> None:
    """What selfie segmentation needs beside."""
    kernel = np.random.default_rng(0).normal(size=(2, 2, 1, 3)).astype(np.float32)
    constants = {"size": np.array([8, 6], np.int32), "kernel": kernel, "any": np.array([0], np.int32)}
    window = {"list": {"i": ["1", "2", "2", "1"]}}
    nodes = [{"name": "x", "op": "Placeholder"}, *({"name": name, "op": "Const"} for name in constants)]
    nodes += [
        {"name": "pool", "op": "AvgPool", "input": ["x"], "attr": {"ksize": window, "strides": window}},
        {"name": "large", "op": "ResizeBilinear", "input": ["pool", "size"]},
        {"name": "sum", "op": "AddN", "input": ["large", "large"]},
        {"name": "out", "op": "Conv2DBackpropInput", "input": ["any", "kernel", "sum"],
         "attr": {"strides": window}},
    ]  # fmt: skip
    manifest = [
        {"name": name, "shape": list(value.shape), "dtype": str(value.dtype)}
        for name, value in constants.items()
    ]
    model = {"modelTopology": {"node": nodes}, "weightsManifest": [{"weights": manifest}]}
    (tmp_path / "m.json").write_text(json.dumps(model))
    (tmp_path / "m.bin").write_bytes(b"".join(value.tobytes() for value in constants.values()))
    x = torch.randn(2, 8, 6, 3)
    total, found = TfjsGraph(tmp_path / "m.json", tmp_path / "m.bin", ["sum", "out"])(x)
    pooled = x.unflatten(1, (4, 2)).unflatten(3, (3, 2)).mean((2, 4))
    torch.testing.assert_close(total.mean((1, 2)), 2 * pooled.mean((1, 2)), atol=0.2, rtol=0)
    # Strides as wide as the kernel: each value of what is given becomes a square of its own.
    squares = torch.einsum("bhwc,uvoc->bhuwvo", total, torch.from_numpy(kernel))
    torch.testing.assert_close(found, squares.flatten(3, 4).flatten(1, 2))


def test_restored_gives_back_what_samples_lack() -> None:
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(64, 4, 16, 16, generator=generator)
    dull = torch.nn.functional.avg_pool2d(real, 3, 1, 1)
    lacks = spectrum(dull) / spectrum(real)
    better = restored(dull, lacks.tolist(), most=9.0)
    assert np.abs(spectrum(better) / spectrum(real) - 1).mean() < np.abs(lacks - 1).mean() + 1e-3
    assert spectrum(better)[-1] > 1.5 * spectrum(dull)[-1]
    torch.testing.assert_close(better.mean((2, 3)), dull.mean((2, 3)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(restored(dull, ()), dull)
    torch.testing.assert_close(restored(dull, [1.0] * 8), dull, atol=1e-5, rtol=1e-4)
