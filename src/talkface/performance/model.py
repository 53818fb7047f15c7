"""TH-PAD's networks on coefficients: E_a, MLP_a2l, the heads of E_v, the motion decoder, the prior P_a2nl.

Names follow the paper's graph::

    E_a(audio) -> f^a -> MLP_a2l -> f_l^a ----------------------\\
                   \\-> P_a2nl -> f_nl^a -----------------------> G
    E_v(frame) -> MLP_ol -> f_ol^v -> MLP_nl -> f_nl^v (training) /
               -> MLP_cl -> f_cl^v
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from talkface.hub import build_pretrained
from talkface.nn.blocks import TemporalBlock
from talkface.performance.config import MotionConfig, PriorConfig


def mlp(*widths: int, dropout: float = 0.0) -> nn.Sequential:
    """Linear layers with SiLU between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.SiLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers[:-2])


class ResidualMLP(nn.Module):
    """A linear map plus an MLP whose output starts at zero: at first it is the linear map alone."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.skip = nn.Linear(widths[0], widths[-1])
        self.body = mlp(*widths)
        nn.init.zeros_(self.skip.bias)
        for parameter in self.body[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., widths[0]) to (..., widths[-1])."""
        linear: Tensor = self.skip(x)
        change: Tensor = self.body(x)
        return linear + change


class AudioEncoder(nn.Module):
    """E_a: content features and level at 50 Hz to f^a at 25 fps; it sees half a second to either side."""

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        self.inlet = nn.Sequential(
            nn.Dropout1d(config.dropout), nn.Conv1d(config.content + 1, config.audio, 1)
        )
        self.halve = nn.Conv1d(config.audio, config.audio, 4, stride=2, padding=1)
        dilations = [1, 1, 2, 2, 1, 1, 2, 1][: config.audio_blocks]
        self.blocks = nn.Sequential(*[TemporalBlock(config.audio, d, config.dropout) for d in dilations])
        self.norm = nn.LayerNorm(config.audio)

    def forward(self, content: Tensor, level: Tensor) -> Tensor:
        """Map content (B, 2T, C) and level (B, 2T), dB relative to the loudest, to f^a (B, T, audio)."""
        x = torch.cat([content, level[..., None] / 20 + 1], -1).transpose(1, 2)
        f_a: Tensor = self.norm(self.blocks(self.halve(self.inlet(x))).transpose(1, 2))
        return f_a


class MotionModel(nn.Module):
    """E_a, MLP_a2l, MLP_cl, MLP_ol, MLP_nl and the motion decoder.

    The buffers hold what coefficients and codes are normalised with, and ``lip_gain``, by which the lips of
    :meth:`speak` are scaled: the mean of several members opens less than one alone.
    """

    motion_mean: Tensor
    motion_scale: Tensor
    code_mean: Tensor
    code_scale: Tensor
    lip_gain: Tensor

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        self.config = config
        self.audio_encoder = nn.ModuleList(AudioEncoder(config) for _ in range(config.members))
        self.mlp_a2l = nn.ModuleList(
            mlp(config.audio, config.audio, config.lip, dropout=config.dropout) for _ in range(config.members)
        )
        self.lip_decoder = nn.ModuleList(
            nn.Linear(config.lip, config.beta_mouth) for _ in range(config.members)
        )
        coefficients = config.beta_mouth + config.motion
        self.mlp_cl = mlp(5 * coefficients, config.hidden, config.hidden, config.audio)
        self.mlp_ol = ResidualMLP(coefficients, config.hidden, config.hidden, config.audio)
        self.mlp_nl = ResidualMLP(config.audio, config.hidden, config.non_lip)
        self.non_lip_decoder = ResidualMLP(config.non_lip, config.hidden, config.hidden, config.motion)
        self._start_as_identity()
        self.temperature = nn.Parameter(torch.tensor(math.log(10.0)))
        self.register_buffer("motion_mean", torch.zeros(config.motion))
        self.register_buffer("motion_scale", torch.ones(config.motion))
        self.register_buffer("code_mean", torch.zeros(config.non_lip))
        self.register_buffer("code_scale", torch.ones(config.non_lip))
        self.register_buffer("lip_gain", torch.ones(()))

    @torch.no_grad()
    def _start_as_identity(self) -> None:
        """Start where non-lip coefficients pass f_ol and f_nl unchanged, and lips do not reach f_nl."""
        mouth, motion = self.config.beta_mouth, min(self.config.motion, self.config.non_lip)
        nn.init.orthogonal_(self.mlp_ol.skip.weight)
        select = torch.zeros(self.config.non_lip, mouth + self.config.motion)
        select[:motion, mouth : mouth + motion] = torch.eye(motion)
        self.mlp_nl.skip.weight.copy_(select @ torch.linalg.pinv(self.mlp_ol.skip.weight))
        nn.init.eye_(self.non_lip_decoder.skip.weight)

    @classmethod
    def debug(cls) -> "MotionModel":
        """A tiny random model for tests."""
        return cls(MotionConfig(content=16, audio=32, audio_blocks=2, hidden=32, members=1)).eval()

    @classmethod
    def from_pretrained(cls, name_or_path: str) -> "MotionModel":
        """Load the shipped model, or one from a directory or hub id."""
        return build_pretrained(cls, MotionConfig, name_or_path)

    def encode_audio(self, content: Tensor, level: Tensor) -> list[Tensor]:
        """f^a of each member, (B, T, audio), from content (B, 2T, C) and level (B, 2T)."""
        return [encoder(content, level) for encoder in self.audio_encoder]

    def lips(self, f_a: list[Tensor]) -> list[Tensor]:
        """beta_mouth (B, T, M) of each member: MLP_a2l, then the lip half of the decoder."""
        return [decode(a2l(f)) for f, a2l, decode in zip(f_a, self.mlp_a2l, self.lip_decoder, strict=True)]

    def speak(self, content: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Lips and audio code for inference: the members' mean beta_mouth (B, T, M) and f^a (B, T, audio)."""
        f_a = self.encode_audio(content, level)
        return torch.stack(self.lips(f_a)).mean(0) * self.lip_gain, f_a[0]

    def encode_visual(self, beta_mouth: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
        """E_v's heads: f_cl^v (B, T, audio) from five frames and f_ol^v (B, T, audio) from one.

        Args:
            beta_mouth: (B, T, M).
            motion: (B, T, motion) non-lip coefficients as :meth:`normalise` gives them.
        """
        frame = torch.cat([beta_mouth, motion], -1)
        padded = nn.functional.pad(frame.transpose(1, 2), (2, 2), mode="replicate").transpose(1, 2)
        around = padded.unfold(1, 5, 1).flatten(2)
        return self.mlp_cl(around), self.mlp_ol(frame)

    def non_lip_code(self, f_ol: Tensor) -> Tensor:
        """f_nl^v (B, T, non_lip), of zero mean and unit variance: what the prior learns to draw."""
        code: Tensor = self.mlp_nl(f_ol)
        return (code - self.code_mean) / self.code_scale

    def decode_motion(self, f_nl: Tensor) -> Tensor:
        """Non-lip coefficients (B, T, motion) in their own units from a normalised f_nl (B, T, non_lip)."""
        motion: Tensor = self.non_lip_decoder(f_nl * self.code_scale + self.code_mean)
        return motion * self.motion_scale + self.motion_mean

    def normalise(self, motion: Tensor) -> Tensor:
        """Non-lip coefficients (B, T, motion) to zero mean and unit variance."""
        return (motion - self.motion_mean) / self.motion_scale


def timestep_embedding(step: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding (B, width) of diffusion steps (B,)."""
    rates = torch.exp(-math.log(10_000) * torch.arange(width // 2, device=step.device) / (width // 2))
    angles = step[:, None].float() * rates
    return torch.cat([angles.cos(), angles.sin()], -1)


class DiffusionPrior(nn.Module):
    """P_a2nl: denoises f_nl given f^a; a non-causal transformer with one token per frame (paper, Sec. 3.4).

    Frames marked in ``known`` enter clean, in training as at inference. This is the paper's editing
    mechanism; here it also joins the windows of a long speech.
    """

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        self.inlet = nn.Linear(config.non_lip + config.audio + 1, config.width)
        self.no_audio = nn.Parameter(torch.zeros(config.audio))
        self.time = nn.Sequential(
            nn.Linear(config.width, config.width), nn.SiLU(), nn.Linear(config.width, config.width)
        )
        self.position = nn.Parameter(torch.randn(config.window, config.width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            config.width, config.heads, config.feed_forward, 0.1, "gelu", batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.outlet = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, config.non_lip))

    @classmethod
    def from_pretrained(cls, name_or_path: str = "thpad-prior") -> "DiffusionPrior":
        """Load the shipped model, or one from a directory or hub id."""
        return build_pretrained(cls, PriorConfig, name_or_path)

    @classmethod
    def debug(cls) -> "DiffusionPrior":
        """A tiny random prior for tests."""
        return cls(PriorConfig(audio=32, width=32, layers=1, heads=2, feed_forward=32)).eval()

    def forward(
        self, x: Tensor, step: Tensor, f_a: Tensor, known: Tensor, drop: Tensor | None = None
    ) -> Tensor:
        """Predict the clean codes x0.

        Args:
            x: (B, T, non_lip) noisy codes; known frames are clean. T is ``config.window`` at most.
            step: (B,) diffusion step, 0 to diffusion_steps - 1.
            f_a: (B, T, audio) audio code.
            known: (B, T) 1 for frames given clean, else 0.
            drop: (B,) True where the audio is hidden, for classifier-free guidance.
        """
        if drop is not None:
            f_a = torch.where(drop[:, None, None], self.no_audio, f_a)
        h = self.inlet(torch.cat([x, f_a, known[..., None].to(x)], -1))
        time = self.time(timestep_embedding(step, self.config.width))[:, None]
        h = torch.cat([time, h + self.position[: h.shape[1]]], 1)
        clean: Tensor = self.outlet(self.body(h)[:, 1:])
        return clean
