"""Sizes of TCCP's networks. The defaults are the compact preset."""

from dataclasses import dataclass

from talkface.face.coefficients import MOUTH_COEFFICIENTS

WINDOW = 8
"""Frames that are drawn together."""
PLANES = 15
"""Channels of a video-type signal at the latents' size; see :class:`~talkface.systems.tccp.model.Signal`."""


@dataclass(frozen=True, kw_only=True)
class MVControlNetConfig:
    """What one stage is conditioned on; the rest is as its base is.

    Attributes:
        audio: width of content features; 0 where the stage does not listen.
        lips: width of mouth coefficients; 0 where the stage is not told them.
        words: tokens of each of these in a frame.
        identity: channels of the identity encoder.
        drawing: whether the control branch sees drawings of landmarks.
        control: whether there is a control branch; else what it would see joins the latents.
        begin: time at which frames with a first guess begin, above 0 to 1: so noisy is it then.
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
