"""The detector of voices: fed in blocks, asked at any time."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import RATE
from talkface.speech.activity import VoiceActivity, voice_activity


@settings(max_examples=15)
@given(cuts=st.lists(st.integers(1, RATE), max_size=4), asked=st.lists(st.integers(0, 60), max_size=4))
def test_a_voice_is_heard_alike_however_it_is_fed_and_asked_about(
    samples: np.ndarray, cuts: list[int], asked: list[int]
) -> None:
    speech = samples[RATE : 2 * RATE].astype(np.float32) / 32768
    whole, parts = VoiceActivity(), VoiceActivity()
    whole.feed(speech)
    for block in np.split(speech, sorted(cuts)):
        parts.feed(block)
    for stop in asked:
        parts.probability(max(0, stop - 20), stop)
    np.testing.assert_array_equal(parts.probability(0, 50), whole.probability(0, 50))
    assert whole.probability(0, 50).max() > 0.8


def test_somebody_speaks_in_speech_and_nobody_in_silence(samples: np.ndarray) -> None:
    speech = samples[: 3 * RATE].astype(np.float32) / 32768
    silence = np.zeros(2 * RATE, np.float32)
    active = voice_activity(np.concatenate([speech, silence]))
    assert active.shape == (250,)
    assert active[:150].mean() > 0.5
    assert not active[170:].any()
