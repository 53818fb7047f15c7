"""Sizes of TCCP's networks. The defaults are the compact preset."""

from dataclasses import dataclass

from talkface.face.coefficients import MOUTH_COEFFICIENTS

WINDOW_FRAMES = 8
"""Frames that stage 2 draws together."""
SIGNAL_CHANNELS = 15
"""Channels of the maps of a :class:`~talkface.systems.tccp.model.VideoSignal`."""


@dataclass(frozen=True, kw_only=True)
class MVControlNetConfig:
    """What one stage is conditioned on; all other sizes are those of its base.

    Attributes:
        audio: width of content features; 0 for a stage without audio.
        lips: width of mouth coefficients; 0 for a stage without them.
        words: tokens per frame of each of these.
        identity: channels of the identity encoder.
        drawing: whether the control branch is given drawings of landmarks.
        control: whether there is a control branch; else its input is added to the latents.
        begin: the initial noise level, above 0 to 1, of frames that have an initial estimate.
        heads: of attention over time.
        frames: longest window.
    """

    audio: int = 0
    lips: int = MOUTH_COEFFICIENTS
    words: int = 5
    identity: int = 64
    drawing: bool = True
    control: bool = True
    begin: float = 0.3
    heads: int = 4
    frames: int = 32


LANDMARKS = MVControlNetConfig(audio=512, lips=0, words=4, drawing=False)
"""Stage 1: masked context, audio and identity to drawings of landmarks."""
FACE = MVControlNetConfig()
"""Stage 2: drawings of landmarks, lips and identity to the face."""
