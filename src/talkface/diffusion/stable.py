"""Stable Diffusion 1.x in diffusers' layout with the face LDM's interface: a velocity on the straight path.

It was trained to predict the noise e of x0 + sigma e, given as (x0 + sigma e) / sqrt(1 + sigma^2). With
sigma = t / (1 - t) that is our x_t = (1 - t) x0 + t e times a factor, so the same sampler, guidance and
adapters serve both.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from talkface.diffusion.autoencoder import LATENT_FACTOR
from talkface.diffusion.captions import PSEUDO_WORDS, Tokens
from talkface.diffusion.config import AutoencoderConfig, DiffusionConfig
from talkface.diffusion.control import Residual
from talkface.errors import ModelUnavailable

STABLE_DIFFUSION_15 = DiffusionConfig(
    widths=(320, 640, 1280, 1280),
    attention=(True, True, True, False),
    layers=2,
    heads=8,
    text=768,
    text_layers=12,
    mesh=0,
    mirrored=False,
)
"""Sizes of Stable Diffusion 1.5: 859,520,964 parameters in the U-Net."""

DIFFUSERS_FOLDERS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


class StableText(nn.Module):
    """CLIP's text encoder, whose word embeddings can be replaced."""

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.clip: Any = clip  # transformers' models have no types

    def embed(self, ids: Tensor) -> Tensor:
        """Words (B, L, C) of tokens (B, L); pseudo-words, numbered after all tokens, are zero."""
        table = self.clip.get_input_embeddings()
        known = ids < table.num_embeddings
        words: Tensor = table(ids.where(known, 0)) * known[..., None]
        return words

    def forward(self, words: Tensor) -> Tensor:
        """Text embeddings (B, L, C) of words (B, L, C)."""
        table = self.clip.get_input_embeddings()
        # CLIP takes tokens only: a hook makes its embedding layer return these words.
        hook = table.register_forward_hook(lambda *_: words)
        try:
            ids = torch.zeros(words.shape[:2], dtype=torch.long, device=words.device)
            # Which token is the last one only matters for CLIP's pooled output.
            embeddings: Tensor = self.clip(ids)[0]
            return embeddings
        finally:
            hook.remove()


class StableDiffusion(nn.Module):
    """U-Net, text encoder and noise schedule, with the interface of :class:`FaceDiffusion`."""

    mesh = None

    def __init__(
        self,
        unet: nn.Module,
        clip: nn.Module,
        tokenizer: Any,  # noqa: ANN401 - transformers is optional
        schedule: Any,  # noqa: ANN401 - diffusers is imported when needed
    ) -> None:
        super().__init__()
        self.unet, self.text, self.tokenizer = unet, StableText(clip), tokenizer
        given: Any = unet.config  # diffusers' configs have no types
        heads = given.attention_head_dim
        self.config = DiffusionConfig(
            widths=tuple(given.block_out_channels),
            attention=tuple("CrossAttn" in kind for kind in given.down_block_types),
            layers=given.layers_per_block,
            heads=heads if isinstance(heads, int) else heads[0],
            channels=given.in_channels,
            text=given.cross_attention_dim,
            mesh=0,
            mirrored=False,
        )
        variance = (1 - schedule.alphas_cumprod.double()) / schedule.alphas_cumprod.double()
        self.sigmas = variance.sqrt().numpy()
        self.prediction_type = schedule.config.prediction_type

    def tokenize(self, prompt: str, voice: bool = False) -> Tokens:
        """Tokens of a prompt; with ``voice``, those of the pseudo-words come first.

        Words beyond the longest prompt are ignored.
        """
        length = self.tokenizer.model_max_length
        start, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        ids = [start, *(self.pseudo_words if voice else ())]
        said = self.tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"]
        room = length - len(ids) - 1
        ids += [*said[:room], end]
        ignored = self.tokenizer.decode(said[room:]).split() if len(said) > room else []
        return Tokens(np.array(ids + [end] * (length - len(ids))), ignored)

    @property
    def pseudo_words(self) -> tuple[int, ...]:
        """Token ids of the pseudo-words: those after all of CLIP's."""
        first = self.text.clip.get_input_embeddings().num_embeddings
        return tuple(range(first, first + len(PSEUDO_WORDS)))

    def encode_text(self, ids: Tensor) -> Tensor:
        """Text embeddings (B, L, C) of tokens (B, L)."""
        embeddings: Tensor = self.text(self.text.embed(ids))
        return embeddings

    def encode_mesh(self, drawing: Tensor) -> None:
        """Nothing: it has no mesh encoder; SCA shows it the mesh."""

    def inputs(self, noisy: Tensor, time: Tensor, mesh: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What the U-Net takes: latents of unit variance and the step of its schedule."""
        noisy, part = self._within(noisy, time)
        scaled = noisy / (part.square() + (1 - part).square()).sqrt()
        sigma = (part / (1 - part)).flatten().cpu().double().numpy()
        steps = np.interp(np.log(sigma), np.log(self.sigmas), np.arange(len(self.sigmas)))
        return scaled, torch.from_numpy(steps).float().to(noisy.device)

    def forward(
        self,
        noisy: Tensor,
        time: Tensor,
        text_embeddings: Tensor,
        mesh: Tensor | None = None,
        **control: Residual,
    ) -> Tensor:
        """Velocity (B, 4, h, w); the arguments are those of :meth:`FaceDiffusion.forward`."""
        known, part = self._within(noisy, time)
        inputs = self.inputs(noisy, time)
        noise: Tensor = self.unet(*inputs, text_embeddings, return_dict=False, **control)[0]
        clean = (known - part * noise) / (1 - part)
        return noise - clean

    def _within(self, noisy: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """Latents, and their times (B, 1, 1, 1), moved to the schedule's end where they are beyond it."""
        low, high = (float(s / (1 + s)) for s in (self.sigmas[0], self.sigmas[-1]))
        part = time.clamp(low, high)[:, None, None, None]
        beyond = time[:, None, None, None] > high
        return torch.where(beyond, noisy * high / time[:, None, None, None], noisy), part


class StableAutoencoder(nn.Module):
    """AutoencoderKL with the interface of :class:`FaceAutoencoder`."""

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae: Any = vae  # diffusers' models have no types
        given: Any = vae.config
        widths = given.block_out_channels
        self.config = AutoencoderConfig(
            channels=given.latent_channels, decoder=(widths[-1], *reversed(widths))
        )

    @property
    def _factor(self) -> float:
        return float(self.vae.config.scaling_factor)

    def encode(self, image: Tensor) -> Tensor:
        """Latents (B, 4, H/8, W/8) of pictures (B, 3, H, W) in [0, 1]."""
        mean: Tensor = self.vae.encode(image * 2 - 1).latent_dist.mean
        return mean * self._factor

    def unscale(self, latents: Tensor) -> Tensor:
        """Latents as the decoder takes them."""
        return latents / self._factor

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] of latents (B, 4, H/8, W/8)."""
        x = self.unscale(latents)
        for stage in self.stages():
            x = stage(x)
        return (x * 0.5 + 0.5).clamp(0, 1)

    def stages(self) -> list[nn.Sequential]:
        """The decoder in parts, one for each size; the last ends at the picture, -1 to 1."""
        decoder = self.vae.decoder
        first = nn.Sequential(self.vae.post_quant_conv, decoder.conv_in, decoder.mid_block)
        last = nn.Sequential(decoder.conv_norm_out, decoder.conv_act, decoder.conv_out)
        return [first, *(nn.Sequential(block) for block in decoder.up_blocks), last]


def load_stable_diffusion(folder: Path) -> tuple[StableDiffusion, StableAutoencoder, int]:
    """U-Net with text encoder, autoencoder, and the side of its pictures in pixels.

    Raises:
        ModelUnavailable: a part is missing or damaged, or only pickled, or transformers is not installed.
    """
    missing = [part for part in DIFFUSERS_FOLDERS if not (folder / part).is_dir()]
    if missing:
        raise ModelUnavailable(
            f"{folder} is no complete Stable Diffusion: {', '.join(missing)} missing; "
            "give a folder in diffusers' layout"
        )
    try:
        from transformers import CLIPTextModel, CLIPTokenizer
    except ImportError as error:
        raise ModelUnavailable("Stable Diffusion needs transformers: pip install 'talkface[base]'") from error
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel

    def load(kind: Any, part: str, **options: bool) -> Any:  # noqa: ANN401 - classes without types
        try:
            return kind.from_pretrained(str(folder / part), local_files_only=True, **options)
        except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise ModelUnavailable(f"{folder / part} cannot be read as safetensors: {reason}") from error

    safe = {"use_safetensors": True}
    unet, vae = load(UNet2DConditionModel, "unet", **safe), load(AutoencoderKL, "vae", **safe)
    model = StableDiffusion(
        unet,
        load(CLIPTextModel, "text_encoder", **safe),
        load(CLIPTokenizer, "tokenizer"),
        load(DDPMScheduler, "scheduler"),
    )
    kind, channels = model.prediction_type, unet.config.in_channels
    if kind != "epsilon" or channels != unet.config.out_channels:
        raise ModelUnavailable(
            f"{folder} predicts {kind} from {channels} channels; "
            "only text-to-picture models that predict the noise can be used"
        )
    return model.eval(), StableAutoencoder(vae).eval(), LATENT_FACTOR * unet.config.sample_size
