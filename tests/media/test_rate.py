"""Frame rates are exact, and a constant rate gives the right frames."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from talkface.media.rate import exact_fps, frame_count, frame_times, resample_times

RATES = st.sampled_from([12.0, 23.976, 24.0, 25.0, 29.97, 30.0, 50.0, 59.94, 60.0])


def test_exact_rates() -> None:
    assert exact_fps(23.976) == Fraction(24000, 1001)
    assert exact_fps(29.97) == exact_fps(29.97003) == Fraction(30000, 1001)
    assert exact_fps(59.94) == Fraction(60000, 1001)
    assert exact_fps(25) == 25
    assert exact_fps(24.0) == 24
    assert exact_fps(12.5) == Fraction(25, 2)
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="positive"):
            exact_fps(bad)


@given(duration=st.floats(0, 1e5), fps=RATES)
def test_frame_count_is_within_half_a_frame(duration: float, fps: float) -> None:
    assert abs(frame_count(duration, fps) / float(exact_fps(fps)) - duration) <= 0.5 / fps + 1e-6


@given(source=RATES, target=RATES, count=st.integers(2, 300))
def test_resample_times(source: float, target: float, count: int) -> None:
    times = frame_times(count, source)
    chosen = resample_times(times, target)
    assert (
        abs(len(chosen) / float(exact_fps(target)) - count / float(exact_fps(source))) <= 0.5 / target + 0.01
    )
    assert (np.diff(chosen) >= 0).all()
    assert np.abs(times[chosen] - frame_times(len(chosen), target)).max(initial=0) <= 1 / source + 1 / target
    assert np.array_equal(resample_times(times, source), np.arange(count))
