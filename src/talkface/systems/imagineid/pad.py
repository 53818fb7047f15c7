"""PAD, progressive audio disentanglement: identity, then content, then emotion (paper, Sec. 3.1).

Identity and emotion are transformers over speech at 12.5 Hz, content is convolutional, at 25 Hz. A stage is
frozen before the next one is trained, and its output is among the inputs of the next one::

    speech -> stage 1 -> alpha, semantic embedding ----------------------+
           -> stage 2 (given stage 1) -> beta_mouth --------------------+|
           -> stage 3 (given stages 1 and 2) -> emotion, beta_upper, residual of beta_mouth
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkface.hub import build_pretrained
from talkface.nn.blocks import TemporalBlock
from talkface.nn.transformer import transformer
from talkface.systems.imagineid.config import EMOTIONS, PadConfig

_DILATIONS = (1, 1, 2, 2, 1)


@dataclass(frozen=True)
class Speech:
    """A batch of speech at 50 Hz: content (B, T, C), level (B, T) in dB, prosody (B, T, P)."""

    content: Tensor
    level: Tensor
    prosody: Tensor


@dataclass(frozen=True)
class VoiceIdentity:
    """What PAD's first stage infers of a speaker.

    Attributes:
        shape: (B, K) expected alpha of the 3DMM.
        shape_spread: (B, K) its standard deviation.
        semantic: (B, S) unit vectors, comparable with those of faces.
        male: (B,) logit.
        age: (B,) expected age in decades.
        age_spread: (B,) its standard deviation.
    """

    shape: Tensor
    shape_spread: Tensor
    semantic: Tensor
    male: Tensor
    age: Tensor
    age_spread: Tensor

    def code(self) -> Tensor:
        """Identity code (B, K + S) for the later stages: shape and semantic embedding."""
        return torch.cat([self.shape, self.semantic], -1)


class Inlet(nn.Module):
    """Speech (50 Hz) to tokens (B, T / stride, width)."""

    def __init__(self, config: PadConfig, stride: int, prosody: bool = True) -> None:
        super().__init__()
        self.stride, self.prosody = stride, prosody
        given = config.content + 1 + (config.prosody if prosody else 0)
        self.drop = nn.Dropout1d(config.dropout)
        self.mix = nn.Conv1d(given, config.width, 1)
        self.shrink = nn.Conv1d(config.width, config.width, 2 * stride, stride=stride, padding=stride // 2)

    def forward(self, speech: Speech) -> Tensor:
        """Tokens of speech."""
        parts = [speech.content, speech.level[..., None] / 20 + 1]
        if self.prosody:
            parts.append(speech.prosody)
        x = self.mix(self.drop(torch.cat(parts, -1).transpose(1, 2)))
        shrunk: Tensor = self.shrink(F.silu(x))
        return shrunk.transpose(1, 2)


def _transformer(config: PadConfig) -> nn.TransformerEncoder:
    return transformer(config.width, config.heads, config.layers, config.dropout)


class PadIdentityEncoder(nn.Module):
    """Stage 1: a transformer with queries [shape] and [semantic] (paper, Sec. 3.1, "identity")."""

    def __init__(self, config: PadConfig) -> None:
        super().__init__()
        self.config = config
        self.inlet = Inlet(config, stride=4)
        self.queries = nn.Parameter(torch.randn(2, config.width) * 0.02)
        self.body = _transformer(config)
        self.norm = nn.LayerNorm(3 * config.width)
        self.shape = nn.Linear(3 * config.width, 2 * config.shape)
        self.semantic = nn.Linear(3 * config.width, config.semantic)
        self.told = nn.Linear(3 * config.width, 3)  # male, age, spread of age

    def forward(self, speech: Speech) -> VoiceIdentity:
        """The speaker of each stretch of speech."""
        tokens = self.inlet(speech)
        queries = self.queries.expand(len(tokens), -1, -1)
        seen = self.body(torch.cat([queries, tokens], 1))
        # Mean and standard deviation beside the queries' outputs: they are learnt from less data.
        pooled = [seen[:, 2:].mean(1), seen[:, 2:].std(1)]
        shape, spread = self.shape(self.norm(torch.cat([seen[:, 0], *pooled], -1))).chunk(2, -1)
        described = self.norm(torch.cat([seen[:, 1], *pooled], -1))
        male, age, age_spread = self.told(described).unbind(-1)
        return VoiceIdentity(
            shape,
            F.softplus(spread) + 0.05,
            F.normalize(self.semantic(described), dim=-1),
            male,
            4 + age,
            F.softplus(age_spread) + 0.1,
        )


class FaceProjection(nn.Module):
    """Face descriptors (B, F) to the identity embedding that voices share, (B, S) unit vectors."""

    mean: Tensor
    scale: Tensor

    def __init__(self, config: PadConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.features, config.semantic)
        self.register_buffer("mean", torch.zeros(config.features))
        self.register_buffer("scale", torch.ones(config.features))

    def forward(self, features: Tensor) -> Tensor:
        """Embeddings of descriptors."""
        return F.normalize(self.linear((features - self.mean) / self.scale), dim=-1)


class PadContentEncoder(nn.Module):
    """Stage 2: mouth coefficients of what is said, given who says it (paper, Sec. 3.1, "content").

    It is the mean of some convolutional networks. ``gain`` makes up for the smaller motion of their mean.
    """

    gain: Tensor

    def __init__(self, config: PadConfig, members: int = 2) -> None:
        super().__init__()
        self.members = nn.ModuleList(_ContentMember(config) for _ in range(members))
        self.register_buffer("gain", torch.ones(()))

    def forward(self, speech: Speech, identity: Tensor) -> list[Tensor]:
        """beta_mouth (B, T / 2, M) of each member, from speech (B, T, ...) and identity codes (B, K + S)."""
        return [member(speech, identity) for member in self.members]

    def mean(self, speech: Speech, identity: Tensor) -> Tensor:
        """beta_mouth (B, T / 2, M): the mean of the members, times ``gain``."""
        return torch.stack(self(speech, identity)).mean(0) * self.gain


class _ContentMember(nn.Module):
    """Convolutions over time, modulated by the identity code."""

    def __init__(self, config: PadConfig) -> None:
        super().__init__()
        self.inlet = Inlet(config, stride=2, prosody=False)
        self.speaker = nn.Linear(config.shape + config.semantic, 2 * config.width)
        nn.init.zeros_(self.speaker.weight)
        nn.init.zeros_(self.speaker.bias)
        self.near = nn.Sequential(*(TemporalBlock(config.width, d, config.dropout) for d in _DILATIONS))
        self.outlet = nn.Sequential(
            nn.LayerNorm(config.width), nn.Linear(config.width, config.width), nn.SiLU(),
            nn.Dropout(config.dropout), nn.Linear(config.width, config.beta_mouth),
        )  # fmt: skip

    def forward(self, speech: Speech, identity: Tensor) -> Tensor:
        scale, shift = self.speaker(identity)[:, None].chunk(2, -1)
        x = self.inlet(speech) * (1 + scale) + shift
        lips: Tensor = self.outlet(self.near(x.transpose(1, 2)).transpose(1, 2))
        return lips


class EmotionEncoder(nn.Module):
    """Stage 3: a transformer for the mood, and the expressions of moods (paper, Sec. 3.1, "emotion")."""

    def __init__(self, config: PadConfig) -> None:
        super().__init__()
        self.inlet = Inlet(config, stride=4)
        self.before = nn.Linear(config.shape + config.semantic, config.width)
        self.mouth = nn.Conv1d(config.beta_mouth, config.width, 4, stride=2, padding=1)
        self.body = _transformer(config)
        self.norm = nn.LayerNorm(2 * config.width)
        self.mood = nn.Linear(2 * config.width, len(EMOTIONS))
        self.embedding = nn.Embedding(len(EMOTIONS), config.emotion)
        expression = config.beta_upper + config.beta_mouth
        self.expression = nn.Linear(config.emotion, expression)
        nn.init.zeros_(self.expression.bias)
        self.upper = config.beta_upper

    def logits(self, speech: Speech, identity: Tensor, mouth: Tensor) -> Tensor:
        """Logits (B, T / 4, 8) of EMOTIONS at 12.5 Hz.

        Args:
            speech: (B, T, ...) at 50 Hz.
            identity: (B, K + S) from stage 1.
            mouth: (B, T / 2, M) from stage 2.
        """
        tokens = self.inlet(speech)
        count = tokens.shape[1]
        moved = self.mouth(mouth.transpose(1, 2)).transpose(1, 2)
        seen = self.body(tokens + self.before(identity)[:, None] + _fitted(moved, count))
        overall = seen.mean(1, keepdim=True).expand(-1, count, -1)
        logits: Tensor = self.mood(self.norm(torch.cat([seen, overall], -1)))
        return logits

    def express(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """beta_upper (..., U) and residual of beta_mouth (..., M) of a mixture of EMOTIONS (..., 8)."""
        neutral = self.embedding.weight[:1]
        out = self.expression(probabilities @ (self.embedding.weight - neutral))
        return out[..., : self.upper], out[..., self.upper :]


def _fitted(x: Tensor, count: int) -> Tensor:
    """The first ``count`` steps of (B, T, C), the last one repeated."""
    return x[:, :count] if x.shape[1] >= count else F.pad(x, (0, 0, 0, count - x.shape[1]))


class Pad(nn.Module):
    """The three stages."""

    def __init__(self, config: PadConfig) -> None:
        super().__init__()
        self.config = config
        self.identity = PadIdentityEncoder(config)
        self.faces = FaceProjection(config)
        self.content = PadContentEncoder(config)
        self.emotion = EmotionEncoder(config)

    @classmethod
    def debug(cls) -> "Pad":
        """A tiny random one for tests."""
        return cls(PadConfig(content=16, width=16, layers=1, heads=2, semantic=8, features=8)).eval()

    @classmethod
    def from_pretrained(cls, name_or_path: str) -> "Pad":
        """Load the shipped model, or one from a directory or hub id."""
        return build_pretrained(cls, PadConfig, name_or_path)
