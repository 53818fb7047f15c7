"""Pitch and periodicity of a voice."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import RATE
from talkface.speech.features import SAMPLES_PER_FEATURE
from talkface.speech.pitch import HIGHEST, LOWEST, pitch


@given(st.floats(LOWEST * 1.1, HIGHEST * 0.9), st.floats(0.01, 0.9), st.integers(0, 99))
def test_pitch_of_a_buzz_is_found(frequency: float, loudness: float, seed: int) -> None:
    time = np.arange(RATE) / RATE
    buzz = sum(np.sin(2 * np.pi * frequency * k * time) / k for k in range(1, 9))
    noise = np.random.default_rng(seed).normal(0, 0.02, RATE)
    octaves, periodicity = pitch(torch.from_numpy(loudness * (buzz + noise)).float())
    assert octaves.shape == periodicity.shape == (RATE // SAMPLES_PER_FEATURE,)
    inner = slice(3, -3)
    found = 160 * 2 ** octaves[inner].median()
    assert abs(np.log2(float(found) / frequency)) < 0.05
    assert periodicity[inner].min() > 0.8


def test_noise_is_not_periodic() -> None:
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 0.3, RATE)).float()
    assert pitch(noise)[1].median() < 0.4
