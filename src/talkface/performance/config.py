"""Sizes of TH-PAD's networks. ``compact`` is what the package ships; ``paper`` is the published scale."""

from dataclasses import dataclass

FRAME_RATE = 25
SPEECH_WINDOW = 5
"""Frames of speech that are heard around a frame that is drawn."""


@dataclass(frozen=True, kw_only=True)
class MotionConfig:
    """E_a, the MLP heads and the motion decoder."""

    content: int = 512  # content features per 20 ms
    audio: int = 256  # f^a
    audio_blocks: int = 5
    dropout: float = 0.2
    lip: int = 64  # f_l
    hidden: int = 256  # f_cl and f_ol
    non_lip: int = 32  # f_nl
    beta_mouth: int = 28
    beta_upper: int = 16
    members: int = 3  # lip paths that are averaged: each sees the same f^a through other weights

    @property
    def motion(self) -> int:
        """Non-lip coefficients per frame: upper face, rotation, translation, scale, gaze."""
        return self.beta_upper + 3 + 2 + 1 + 4


@dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """P_a2nl, the diffusion prior."""

    non_lip: int = 32
    audio: int = 256
    width: int = 256
    layers: int = 5
    heads: int = 4
    feed_forward: int = 768
    window: int = 128  # frames
    diffusion_steps: int = 1000


PAPER_MOTION = MotionConfig(audio=512, hidden=512, lip=512, non_lip=512)
PAPER_PRIOR = PriorConfig(non_lip=512, audio=512, width=512, layers=8, heads=8, feed_forward=2048, window=200)
