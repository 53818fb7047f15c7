"""Frame rates are exact, and durations give the right number of frames."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talkface.media.rate import exact_fps, frame_count

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
