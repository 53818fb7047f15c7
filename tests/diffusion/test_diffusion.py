"""The face LDM: autoencoder, meshes, portraits, U-Net and sampling, on tiny models."""

from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

from talkface.data.attributes import HEADS, AttributeHeads
from talkface.data.faces import Portrait, weights
from talkface.diffusion.autoencoder import LATENT_FACTOR, FaceAutoencoder
from talkface.diffusion.captions import tokenize
from talkface.diffusion.model import FaceDiffusion
from talkface.diffusion.sampling import guided, restore_spectrum, sample, spectrum
from talkface.face.crop import face_unit, transform
from talkface.face.draw import MESH_CHANNELS, MESH_PIXELS, draw_mesh
from talkface.face.model import FaceModel
from talkface.face.portrait import PORTRAIT_PIXELS, PORTRAIT_SIDE, portrait_matrix
from talkface.face.tracker import FaceTracker
from talkface.hub import save_pretrained
from talkface.nn.picture import cut_out
from talkface.training.datasets.latents import vary


@pytest.fixture(scope="module")
def face() -> FaceModel:
    return FaceModel.from_pretrained()


@pytest.fixture(scope="module")
def points(picture: Image.Image) -> np.ndarray:
    """The mesh of the good portrait, (478, 3)."""
    return FaceTracker().track_image(np.asarray(picture))[0].points


# -- autoencoder -----------------------------------------------------------------------------------


@given(st.integers(1, 6), st.integers(1, 6))
def test_latents_are_an_eighth_of_the_picture(height: int, width: int) -> None:
    model = FaceAutoencoder.debug()
    image = torch.rand(1, 3, LATENT_FACTOR * height, LATENT_FACTOR * width)
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
    corners = (
        np.array([[-0.5, -0.5], [PORTRAIT_PIXELS - 0.5, PORTRAIT_PIXELS - 0.5]]) @ back[:, :2].T + back[:, 2]
    )
    assert (corners > -0.5 - 1e-3).all()
    assert (corners < np.array([width, height]) - 0.5 + 1e-3).all()
    assert corners[1, 0] - corners[0, 0] == pytest.approx(min(PORTRAIT_SIDE * face_unit(mesh), width, height))


def test_varied_portrait_keeps_mesh_and_picture_together(picture: Image.Image, points: np.ndarray) -> None:
    small = cv2.resize(np.asarray(picture), (PORTRAIT_PIXELS, PORTRAIT_PIXELS), interpolation=cv2.INTER_AREA)
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
        text_embeddings = model.encode_text(ids)
        mesh = model.encode_mesh(torch.rand(2, MESH_CHANNELS, MESH_PIXELS, MESH_PIXELS))
        plain = model(noisy, time, text_embeddings, mesh)
        assert plain.shape == noisy.shape
        assert (model(noisy, time, text_embeddings.flip(0), mesh) != plain).any()
        assert (model(noisy, time, text_embeddings, torch.zeros_like(mesh)) != plain).any()
        save_pretrained(tmp_path, {"model": asdict(model.config)}, model.state_dict(), dtype=torch.float32)
        again = FaceDiffusion.from_pretrained(str(tmp_path))
        torch.testing.assert_close(again(noisy, time, text_embeddings, mesh), plain)


@given(st.integers(1, 12), st.floats(0.05, 1.0), st.floats(1.0, 4.0), st.integers(0, 99))
def test_a_straight_flow_is_followed_exactly(steps: int, level: float, shift: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    clean, noise = torch.randn(2, 2, 4, 8, 8, generator=generator)
    first = shift * level / (1 + (shift - 1) * level)
    asked: list[float] = []

    def velocity(x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        asked.append(float(time[0]))
        return noise - clean

    found = sample(velocity, (1 - first) * clean + first * noise, steps, level, shift)
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
        said, nothing = (
            model.encode_text(torch.from_numpy(tokenize(p).ids)[None]) for p in ("old man, beard", "")
        )
        with_caption, without = (
            guided(model, text_embeddings, mesh, 1.0)(x, time) for text_embeddings in (said, nothing)
        )
        found = guided(model, said, mesh, 3.0)(x, time)
    torch.testing.assert_close(found, without + 3 * (with_caption - without), atol=1e-4, rtol=1e-4)


# -- crops -----------------------------------------------------------------------------------------


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


# -- attributes ------------------------------------------------------------------------------------


def test_heads_find_what_is_linear() -> None:
    generator = np.random.default_rng(0)
    design = generator.normal(size=(200, 20))
    labels = (design[:, : len(HEADS)] > 0).astype(float)
    heads = AttributeHeads.solve(design, labels, penalty=1.0)
    told = np.array([list(heads(row).values()) for row in design]) > 0.5
    assert (told == labels).mean() > 0.95


def test_spectrum_gives_back_what_samples_lack() -> None:
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(64, 4, 16, 16, generator=generator)
    dull = torch.nn.functional.avg_pool2d(real, 3, 1, 1)
    lacks = spectrum(dull) / spectrum(real)
    better = restore_spectrum(dull, lacks.tolist(), most=9.0)
    assert np.abs(spectrum(better) / spectrum(real) - 1).mean() < np.abs(lacks - 1).mean() + 1e-3
    assert spectrum(better)[-1] > 1.5 * spectrum(dull)[-1]
    torch.testing.assert_close(better.mean((2, 3)), dull.mean((2, 3)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(restore_spectrum(dull, ()), dull)
    torch.testing.assert_close(restore_spectrum(dull, [1.0] * 8), dull, atol=1e-5, rtol=1e-4)
