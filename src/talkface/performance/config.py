"""Sizes of TH-PAD's networks; the defaults are the compact preset's, which the package ships."""

from dataclasses import dataclass

from talkface.face.coefficients import MOUTH_COEFFICIENTS, POSE_AND_GAZE, UPPER_COEFFICIENTS

FRAME_RATE = 25
"""Frames per second of everything that is drawn from speech."""
SPEECH_WINDOW = 5
"""Frames of speech that are heard around a frame that is drawn."""


@dataclass(frozen=True, kw_only=True)
class MotionConfig:
    """Architecture of :class:`~talkface.performance.model.MotionModel`: E_a, the MLP heads, the decoder.

    Attributes:
        content: content features per 20 ms.
        audio: size of f^a.
        audio_blocks: temporal blocks of E_a.
        dropout: in E_a and in the lip path.
        lip: size of f_l.
        hidden: width of the heads, of f_cl and of f_ol.
        non_lip: size of f_nl.
        beta_mouth, beta_upper: expression coefficients of mouth and upper face.
        members: lip paths whose coefficients are averaged; each has its own E_a.
    """

    content: int = 512
    audio: int = 256
    audio_blocks: int = 5
    dropout: float = 0.2
    lip: int = 64
    hidden: int = 256
    non_lip: int = 32
    beta_mouth: int = MOUTH_COEFFICIENTS
    beta_upper: int = UPPER_COEFFICIENTS
    members: int = 3

    @property
    def motion(self) -> int:
        """Non-lip coefficients per frame: upper face, rotation, translation, scale, gaze."""
        return self.beta_upper + POSE_AND_GAZE


@dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """Architecture of :class:`~talkface.performance.model.DiffusionPrior`, P_a2nl.

    Attributes:
        non_lip: size of f_nl.
        audio: size of f^a.
        width, layers, heads, feed_forward: of the transformer.
        window: frames that it can see at once.
        diffusion_steps: of the noise schedule.
    """

    non_lip: int = 32
    audio: int = 256
    width: int = 256
    layers: int = 5
    heads: int = 4
    feed_forward: int = 768
    window: int = 128
    diffusion_steps: int = 1000
