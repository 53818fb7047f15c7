"""Sampling of the motion prior, on a tiny random model."""

import torch

from talkface.performance.model import DiffusionPrior
from talkface.performance.sampler import sample, signal_level


def test_prior_keeps_known_frames_and_follows_its_noise() -> None:
    torch.manual_seed(0)
    prior = DiffusionPrior.debug()
    f_a, codes = torch.randn(2, 40, 32), torch.randn(2, 40, 32)
    known = torch.zeros(2, 40)
    known[:, :10] = 1
    noise = torch.randn(2, 40, 32)
    one = sample(prior, f_a, known, codes, noise, 4)
    two = sample(prior, f_a, known, codes, noise, 4, guidance=1.5)
    torch.testing.assert_close(one[:, :10], codes[:, :10])
    assert torch.isfinite(two).all()
    assert not torch.allclose(one, sample(prior, f_a, known, codes, -noise, 4))


def test_schedule_goes_from_signal_to_noise() -> None:
    level = signal_level(torch.arange(1000), 1000)
    assert level[0] > 0.99
    assert level[-1] < 1e-3
    assert (level.diff() <= 0).all()
