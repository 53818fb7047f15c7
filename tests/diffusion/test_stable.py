"""Stable Diffusion as a base: a tiny random one in diffusers' layout."""

import json
import shutil
import string
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from talkface.diffusion.base import Base
from talkface.diffusion.captions import PSEUDO_WORDS
from talkface.diffusion.model import build_unet
from talkface.diffusion.sampling import guided, sample
from talkface.diffusion.stable import STABLE_DIFFUSION_15
from talkface.errors import ModelUnavailable
from talkface.systems.imagineid.ccf import (
    SpatialConditionalAdapter,
    TextualInversionAdapter,
)
from talkface.systems.imagineid.config import CcfConfig
from talkface.training import TrainerConfig, overfit_one_batch
from talkface.training.tasks.imagineid_ccf import CcfTrainConfig
from talkface.training.tasks.imagineid_sca import ScaTask


@pytest.fixture(scope="module")
def stable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Stable Diffusion in diffusers' layout."""
    pytest.importorskip("transformers")
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("stable")
    letters = string.ascii_lowercase + ","
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = CLIPTokenizer(vocabulary, [], model_max_length=20)
    tokenizer.save_pretrained(folder / "tokenizer")
    CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=20, bos_token_id=0, eos_token_id=1,
        )
    ).save_pretrained(folder / "text_encoder")  # fmt: skip
    UNet2DConditionModel(
        sample_size=32, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16, attention_head_dim=2, norm_num_groups=8,
    ).save_pretrained(folder / "unet")  # fmt: skip
    AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, norm_num_groups=4, layers_per_block=1,
    ).save_pretrained(folder / "vae")  # fmt: skip
    DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").save_pretrained(
        folder / "scheduler"
    )
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    return folder


def test_stable_diffusion_loads_through_the_same_interface(stable: Path) -> None:
    base = Base.from_pretrained(str(stable))
    assert not base.compact
    assert base.pixels == 256
    text_embeddings, ignored = base.embed_prompt("a b " * 20)
    assert text_embeddings.shape == (1, 20, 16)
    assert len(ignored) == 40 - 18
    picture = torch.rand(1, 3, 64, 64)
    latents = base.autoencoder.encode(picture)
    assert latents.shape == (1, 4, 8, 8)
    torch.testing.assert_close(
        base.autoencoder.decode(latents),
        (base.autoencoder.vae.decode(base.autoencoder.unscale(latents)).sample * 0.5 + 0.5).clamp(0, 1),
    )
    noise = torch.randn(1, 4, 8, 8)
    assert sample(guided(base.model, text_embeddings, None, 3.0), noise, 2).shape == noise.shape
    other, _ = base.embed_prompt("woman")
    assert (sample(guided(base.model, other, None, 3.0), noise, 2) != noise).any()


class Oracle(torch.nn.Module):
    """A U-Net that tells the noise it was told, and what it was shown."""

    def forward(
        self, given: torch.Tensor, step: torch.Tensor, text_embeddings: torch.Tensor, **_: object
    ) -> tuple[torch.Tensor]:
        self.given, self.step = given, step
        return (self.noise,)


@pytest.fixture(scope="module")
def foretold(stable: Path) -> Base:
    """The tiny Stable Diffusion with an oracle in its U-Net's place."""
    base = Base.from_pretrained(str(stable))
    base.model.unet = Oracle()
    return base


@given(st.floats(0.05, 0.92), st.integers(0, 99))
def test_velocity_of_stable_diffusion_is_that_of_its_noise(foretold: Base, time: float, seed: int) -> None:
    """Where the U-Net tells the true noise, the velocity is the true one."""
    generator = torch.Generator().manual_seed(seed)
    clean, noise = torch.randn(2, 1, 4, 8, 8, generator=generator)
    base, oracle = foretold, foretold.model.unet
    oracle.noise = noise
    now = torch.full((1,), time)
    noisy = (1 - now) * clean + now * noise
    velocity = base.model(noisy, now, base.embed_prompt("")[0])
    torch.testing.assert_close(velocity, noise - clean, atol=1e-4, rtol=1e-4)
    # What the U-Net is shown is what it was trained on at that step of its schedule.
    step = int(oracle.step.round())
    sigma = base.model.sigmas[step]
    expected = (clean + sigma * noise) / np.sqrt(1 + sigma**2)
    torch.testing.assert_close(oracle.given, expected.float(), atol=0.02, rtol=0.02)


def test_pseudo_words_reach_stable_diffusion(stable: Path) -> None:
    model = Base.from_pretrained(str(stable)).model
    tokens = model.tokenize("woman", voice=True)
    ids = torch.from_numpy(tokens.ids)[None]
    assert list(tokens.ids[1 : 1 + len(PSEUDO_WORDS)]) == list(model.pseudo_words)
    words = model.text.embed(ids)
    changed = words.clone()
    changed[:, 1] += 1
    assert (model.text(changed) != model.text(words)).any()


def test_stable_diffusion_is_built_at_full_width_with_the_right_count() -> None:
    with torch.device("meta"):
        unet = build_unet(STABLE_DIFFUSION_15)
        control = SpatialConditionalAdapter(STABLE_DIFFUSION_15)
        tia = TextualInversionAdapter(CcfConfig(), STABLE_DIFFUSION_15.text)
    assert sum(p.numel() for p in unet.parameters()) == 859_520_964
    # diffusers' ControlNet has 361,279,120 with its own reader of conditions, which ours replaces.
    own = sum(p.numel() for p in control.control.parameters())
    assert own == 361_279_120 - 1_086_480
    assert tia.body[-1].out_features == len(PSEUDO_WORDS) * 768


def test_an_adapter_trains_over_stable_diffusion(stable: Path, prepared_clips: Path, tmp_path: Path) -> None:
    config = CcfTrainConfig(base=str(stable), batch=2, frames=3, held_out=2)
    task = ScaTask(config, prepared_clips)
    before = task.validate()["val_loss"]
    first, last = overfit_one_batch(task, TrainerConfig(lr=1e-2, warmup_steps=2, device="cpu"), 20)
    assert last < 0.9 * first
    assert task.validate()["val_loss"] < 0.9 * before


@pytest.mark.parametrize("spoil", ["unet", "tokenizer", "weights", "nothing_there", "empty"])
def test_incomplete_base_is_refused(stable: Path, tmp_path: Path, spoil: str) -> None:
    copy = Path(shutil.copytree(stable, tmp_path / "copy"))
    if spoil == "weights":
        (copy / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    elif spoil == "nothing_there":
        copy = tmp_path / "none"
    elif spoil == "empty":
        copy = tmp_path / "empty"
        copy.mkdir()
    else:
        shutil.rmtree(copy / spoil)
    with pytest.raises(ModelUnavailable) as refused:
        Base.from_pretrained(str(copy))
    assert len(str(refused.value).splitlines()) == 1
