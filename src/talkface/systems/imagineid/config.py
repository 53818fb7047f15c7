"""Sizes of ImagineID's networks. The defaults are the compact preset."""

from dataclasses import dataclass

from talkface.face.coefficients import MOUTH_COEFFICIENTS, SHAPE_COEFFICIENTS, UPPER_COEFFICIENTS

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")


@dataclass(frozen=True, kw_only=True)
class CcfConfig:
    """The adapters over the face LDM.

    Attributes:
        semantic, emotion: widths of what TIA is given.
        hidden: of TIA.
    """

    semantic: int = 64
    emotion: int = 16
    hidden: int = 256


@dataclass(frozen=True, kw_only=True)
class PadConfig:
    """The three stages of progressive audio disentanglement.

    Attributes:
        content: content features per 20 ms.
        prosody: pitch, periodicity and log-mel per 20 ms.
        width, layers, heads: of each stage's transformer.
        dropout: in training.
        shape: identity coefficients alpha of the 3DMM.
        semantic: width of the identity embedding that voices and faces share.
        features: of the face descriptor that it is aligned with.
        beta_mouth, beta_upper: mouth and expression coefficients of the 3DMM.
        emotion: width of the emotion embedding.
    """

    content: int = 512
    prosody: int = 82
    width: int = 128
    layers: int = 2
    heads: int = 4
    dropout: float = 0.2
    shape: int = SHAPE_COEFFICIENTS
    semantic: int = 64
    features: int = 1024
    beta_mouth: int = MOUTH_COEFFICIENTS
    beta_upper: int = UPPER_COEFFICIENTS
    emotion: int = 16
