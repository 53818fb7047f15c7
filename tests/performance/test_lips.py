"""When lips move: the gate of the voice."""

import numpy as np

from talkface.performance.lips import speech_gate


def test_gate_opens_before_the_voice_and_closes_after_it() -> None:
    probability = np.zeros(200, np.float32)
    probability[100:140] = 1.0
    gate = speech_gate(probability, np.where(probability > 0, -5.0, -50.0))
    assert gate[50:70].min() == 1.0
    assert gate[:40].max() == 0.0
    assert gate[80:].max() == 0.0
    assert gate[46] > 0
