"""Talking people from speech: from one portrait, in an existing video, or out of nothing but the voice.

>>> import talkface
>>> talkface.animate("portrait.jpg", "speech.wav", seed=3).save("out.mp4")
>>> talkface.dub("interview.mp4", "spanish.wav").save("dubbed.mp4")
>>> talkface.imagine("speech.wav", takes=4).save("people.mp4")
>>> talkface.fill("masked.mp4", "speech.wav", identity="anna.jpg").save("filled.mp4")
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from talkface._version import __version__
from talkface.api import animate, dub, fill, imagine

if TYPE_CHECKING:
    from talkface.output import Generation, Take

__all__ = [
    "Generation",
    "Take",
    "__version__",
    "animate",
    "dub",
    "example_portrait",
    "example_speech",
    "fill",
    "imagine",
]

_EXAMPLES = Path(__file__).parent / "examples"


def example_portrait() -> Path:
    """A portrait to try things on: Eileen Collins, NASA, public domain, 512x512."""
    return _EXAMPLES / "portrait.jpg"


def example_speech() -> Path:
    """Ten seconds of speech to try things on: LibriVox, public domain, 16 kHz."""
    return _EXAMPLES / "speech.flac"


def __getattr__(name: str) -> object:
    """The types of results, loaded when they are asked for: `import talkface` stays quick."""
    if name in ("Generation", "Take"):
        from talkface import output

        return getattr(output, name)
    raise AttributeError(f"module 'talkface' has no attribute {name!r}")
