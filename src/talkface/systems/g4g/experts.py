"""Sync experts: how well do these lips and this sound fit, and how far are they apart in time?

An expert embeds five frames of a mouth and the speech around them so that what belongs together lies close,
as SyncNet does (Chung and Zisserman 2016). The *training* expert is frozen in the generator's loss. The
*evaluation* expert measures the result; it has another architecture and was trained on other clips, so that a
generator cannot score well by exploiting weaknesses of the first.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from talkface.face.coefficients import MOUTH_COEFFICIENTS
from talkface.hub import build_pretrained

SYNC_WINDOW = 5
"""Frames that are embedded together."""
SYNC_CROP_PIXELS = 96
"""Side of the mouth crops that an expert is given."""


@dataclass(frozen=True, kw_only=True)
class SyncExpertConfig:
    """Architecture of :class:`SyncExpert`.

    Attributes:
        visual: "stacked" (the five frames are channels of one picture) or "recurrent" (a picture network on
            every frame, then a convolution over time).
        content: content features per 20 ms.
        embedding: size of the embeddings.
        widths: channels of the picture network at each halving.
        audio: channels of the speech network.
        dropout: in both networks.
        beta_mouth: expression coefficients of the mouth, which both sides must also predict in training.
    """

    visual: str = "stacked"
    content: int = 512
    embedding: int = 256
    widths: tuple[int, int, int, int] = (48, 96, 160, 256)
    audio: int = 256
    dropout: float = 0.1
    beta_mouth: int = MOUTH_COEFFICIENTS


def _picture_network(channels: int, widths: tuple[int, ...], out: int, dropout: float) -> nn.Sequential:
    """Pictures (B, channels, 96, 96) to vectors (B, out)."""
    layers: list[nn.Module] = [nn.PixelUnshuffle(2)]
    before = 4 * channels
    for depth, width in enumerate(widths):
        layers.append(nn.Conv2d(before, width, 3, stride=2, padding=1))
        layers += [_Residual(width), nn.SiLU()] if depth > 1 else [nn.SiLU()]  # cheap where maps are large
        before = width
    side = SYNC_CROP_PIXELS // 2 // 2 ** len(widths)
    layers += [nn.Flatten(), nn.Dropout(dropout), nn.Linear(before * side * side, out)]
    return nn.Sequential(*layers)


class _Residual(nn.Module):
    """Two convolutions, added to their input (B, width, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        nn.init.normal_(self.body[-1].get_parameter("weight"), std=1e-2)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.body(x)
        return x + change


class SyncExpert(nn.Module):
    """Embeds mouths and speech; the smaller the distance of two embeddings, the better they fit."""

    def __init__(self, config: SyncExpertConfig) -> None:
        super().__init__()
        self.config = config
        stacked = config.visual == "stacked"
        frames, out = (SYNC_WINDOW, config.embedding) if stacked else (1, config.audio)
        self.picture = _picture_network(3 * frames, config.widths, out, config.dropout)
        self.over_time: nn.Module = nn.Identity()
        if not stacked:
            self.over_time = nn.Sequential(
                nn.SiLU(),
                nn.Conv1d(out, config.audio, SYNC_WINDOW),
                nn.SiLU(),
                nn.Conv1d(config.audio, config.embedding, 1),
            )
        width = config.audio
        kernel = 3 if stacked else 5
        self.speech = nn.Sequential(
            nn.Dropout1d(config.dropout),
            nn.Conv1d(config.content + 1, width, 1),
            nn.SiLU(),
            nn.Conv1d(width, width, kernel, padding=kernel // 2),
            nn.SiLU(),
            nn.Conv1d(width, width, 4, stride=2, padding=1),  # to 25 Hz
            nn.SiLU(),
            nn.Conv1d(width, width, SYNC_WINDOW),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            nn.Conv1d(width, config.embedding, 1),
        )
        self.scale = nn.Parameter(torch.tensor(0.0))  # log of the factor from distances to logits
        self.mouth_of_video = nn.Linear(config.embedding, SYNC_WINDOW * config.beta_mouth)
        self.mouth_of_speech = nn.Linear(config.embedding, SYNC_WINDOW * config.beta_mouth)

    @classmethod
    def debug(cls) -> "SyncExpert":
        """A tiny random expert for tests."""
        return cls(SyncExpertConfig(content=16, widths=(8, 8, 8, 8), audio=16, embedding=16)).eval()

    @classmethod
    def from_pretrained(cls, name_or_path: str = "sync-evaluation") -> "SyncExpert":
        """Load the shipped evaluation expert, or one from a directory or hub id."""
        return build_pretrained(cls, SyncExpertConfig, name_or_path)

    def config_dict(self) -> dict[str, Any]:
        """What ``config.json`` holds."""
        return {"class": "SyncExpert", "model": asdict(self.config)}

    def embed_video(self, mouths: Tensor, every: int = 1) -> Tensor:
        """Embed windows of five frames.

        Args:
            mouths: (B, T, 3, 96, 96) in [0, 1] at 25 fps.
            every: frames from the start of one window to that of the next.

        Returns:
            (B, N, C); N is T - 4 where ``every`` is 1.
        """
        batch, length = mouths.shape[:2]
        pixels = mouths * 2 - 1
        if self.config.visual == "stacked":
            windows = pixels.unfold(1, SYNC_WINDOW, every).movedim(-1, 2)  # (B, N, 5, 3, H, W)
            stacked: Tensor = self.picture(windows.flatten(2, 3).flatten(0, 1))
            return torch.unflatten(stacked, 0, (batch, windows.shape[1]))
        frames = torch.unflatten(self.picture(pixels.flatten(0, 1)), 0, (batch, length))
        embedded: Tensor = self.over_time(frames.transpose(1, 2))
        return embedded.transpose(1, 2)[:, ::every]

    def embed_with_features(self, mouths: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Embedding (B, C) of five mouths (B, 5, 3, 96, 96), and the picture network's features."""
        stacked = self.config.visual == "stacked"
        x = (mouths * 2 - 1).flatten(1, 2) if stacked else (mouths * 2 - 1).flatten(0, 1)
        features = []
        for layer in self.picture:
            x = layer(x)
            if isinstance(layer, nn.SiLU):
                features.append(x)
        if not stacked:
            x = self.over_time(torch.unflatten(x, 0, (-1, SYNC_WINDOW)).transpose(1, 2))[..., 0]
        return x, features

    def embed_audio(self, content: Tensor, level: Tensor) -> Tensor:
        """Content (B, 2T, C) and level (B, 2T), dB relative to the loudest, to embeddings (B, T - 4, C)."""
        x = torch.cat([content, level[..., None] / 20 + 1], -1).transpose(1, 2)
        embedded: Tensor = self.speech(x)
        return embedded.transpose(1, 2)

    def logits(self, video: Tensor, audio: Tensor) -> Tensor:
        """Logits (N, M) of embeddings (N, C) and (M, C): minus their scaled squared distances."""
        return -self.scale.exp() * torch.cdist(video, audio).square() / video.shape[1]
