"""The face LDM: autoencoder, U-Net and sampling, on tiny models."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from talkface.diffusion.autoencoder import LATENT_FACTOR, FaceAutoencoder
from talkface.diffusion.captions import tokenize
from talkface.diffusion.model import FaceDiffusion
from talkface.diffusion.sampling import guided, restore_spectrum, sample, spectrum
from talkface.face.draw import MESH_CHANNELS, MESH_PIXELS
from talkface.hub import save_pretrained

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


# -- attributes ------------------------------------------------------------------------------------


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
