"""Which reference pictures the generator is given."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from talkface.systems.g4g.model import GeneratorInputs, GeneratorOutput
from talkface.systems.g4g.references import Chooser, spread


def total(drawn: GeneratorOutput, given: GeneratorInputs) -> Tensor:
    """A loss of everything that is drawn."""
    parts = [drawn.picture(given.seeds, given.context), *drawn.scales, drawn.visual, drawn.audio]
    return sum((part.square().mean() for part in parts), torch.zeros(()))


@settings(deadline=None)
@given(
    times=st.lists(st.floats(0, 20), min_size=6, max_size=12, unique=True),
    moments=st.lists(st.floats(0, 20), min_size=1, max_size=20),
)
def test_references_are_not_of_the_moment(times: list[float], moments: list[float]) -> None:
    seen = np.array(times)
    choose = Chooser(np.random.default_rng(0).standard_normal((len(seen), 6)), seen, 2)
    for moment in sorted(moments):
        chosen = choose(np.zeros(6), moment)
        assert len(chosen) == len(set(chosen)) == 2
        free = np.abs(seen - moment) >= choose.apart
        assert free[chosen].all() or free.sum() < 2


def test_references_stay_unless_another_is_clearly_nearer() -> None:
    choose = Chooser(np.array([[0.0], [1.0], [10.0]]), np.array([50.0, 60.0, 70.0]), 1)
    assert choose(np.array([0.4]), 0.0) == [0]
    assert choose(np.array([0.55]), 0.04) == [0]
    assert choose(np.array([0.9]), 0.08) == [1]
    assert choose(np.array([0.45]), 0.12) == [1]


def test_too_few_references_are_repeated() -> None:
    assert Chooser(np.zeros((1, 6)), np.array([3.0]), 3)(np.zeros(6), 3.0) == [0, 0, 0]


@settings(deadline=None)
@given(count=st.integers(1, 12), total=st.integers(1, 40), seed=st.integers(0, 99))
def test_spread_takes_the_closed_mouth_and_what_is_far_from_it(count: int, total: int, seed: int) -> None:
    candidates = np.random.default_rng(seed).standard_normal((total, 6)).astype(np.float32)
    chosen = spread(candidates, count)
    assert len(chosen) == min(count, total)
    assert candidates[:, 0].argmin() in chosen
    assert (np.diff(chosen) > 0).all()


def test_spread_does_not_repeat_what_is_alike() -> None:
    assert spread(np.zeros((5, 6), np.float32), 3).tolist() == [0]
    corners = np.array([[0, 0], [0.1, 0], [5, 0], [5, 0.1], [5, 9]], np.float32)
    assert spread(corners, 3).tolist() == [0, 2, 4] or spread(corners, 3).tolist() == [0, 3, 4]
