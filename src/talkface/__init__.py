"""Talking people from one portrait and speech.

>>> import talkface
>>> talkface.animate("portrait.jpg", "speech.wav", seed=3).save("out.mp4")
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from talkface.generation import Generation
    from talkface.systems.thpad.pipeline import ThpadPipeline

__version__ = "0.1.0"
__all__ = ["animate", "example_portrait", "example_speech"]

_EXAMPLES = Path(__file__).parent / "examples"


def animate(
    image: str | Path,
    audio: str | Path,
    *,
    seed: int = 0,
    size: int | str = "source",
    fps: float | str = "source",
    pose: float = 1.0,
    blink: float = 1.0,
    gaze: float = 1.0,
    expression: float = 1.0,
    lips: float = 1.0,
    still: bool = False,
    face: int | None = None,
    device: str = "auto",
) -> Generation:
    """Make the person in a portrait say the speech.

    Args:
        image: The portrait: any picture file.
        audio: The speech: any file with an audio stream, of any language and length.
        seed: Draws another head motion, gaze and blinking; the lips stay the same.
        size: Longer side of the video in pixels, or ``"source"`` for that of the portrait.
        fps: Frames a second, or ``"source"`` (25 for a portrait).
        pose: Strength of head motion; 0 holds the head still, 1 is natural.
        blink: Rate of blinks; 0 is none, 1 is natural.
        gaze: Strength of eye movements; 0 looks ahead, 1 is natural.
        expression: Strength of brows and cheeks; 0 is none, 1 is natural.
        lips: Strength of lip motion; 1 is natural.
        still: Keep head and gaze still; lips and blinks go on.
        face: Which face, counted from the left starting at 0; by default the largest.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"`` or another torch device.

    Returns:
        The video, computed while it is iterated or saved; memory does not grow with its length.

    Raises:
        TalkfaceError: What is wrong with the input, in one line.
    """
    return _pipeline(device)(
        image,
        audio,
        seed=seed,
        size=size,
        fps=fps,
        pose=pose,
        blink=blink,
        gaze=gaze,
        expression=expression,
        lips=lips,
        still=still,
        face=face,
    )


@cache
def _pipeline(device: str) -> ThpadPipeline:
    from talkface.systems.thpad.pipeline import ThpadPipeline

    return ThpadPipeline.from_pretrained("compact", device=device)


def example_portrait() -> Path:
    """A portrait to try things on: Eileen Collins, NASA, public domain, 512x512."""
    return _EXAMPLES / "portrait.jpg"


def example_speech() -> Path:
    """Ten seconds of speech to try things on: LibriVox, public domain, 16 kHz."""
    return _EXAMPLES / "speech.flac"
