"""Frame rates: the exact fraction that is meant, and how many frames a duration has."""

import math
from fractions import Fraction

_NTSC = {Fraction(rate * 1000, 1001) for rate in (12, 15, 24, 30, 48, 60, 120, 240)}


def frame_count(duration: float, fps: float | Fraction) -> int:
    """How many frames a video of so many seconds has: ``round(duration * fps)``."""
    return round(duration * exact_fps(fps))


def exact_fps(fps: float | Fraction) -> Fraction:
    """The exact rate that is meant, for example 24000/1001 for 23.976.

    Raises:
        ValueError: The rate is not positive and finite.
    """
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"frame rate must be positive, not {fps}")
    if isinstance(fps, Fraction):
        return fps
    for rate in _NTSC:
        if abs(fps - float(rate)) < 0.004:
            return rate
    return Fraction(fps).limit_denominator(1001)
