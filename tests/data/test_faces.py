"""Portraits of a prepared folder and their attributes."""

from dataclasses import replace

import numpy as np
import pytest

from talkface.data.attributes import HEADS, AttributeHeads
from talkface.data.faces import Portrait, weights


def test_people_count_more_alike_than_pictures() -> None:
    one = Portrait("a", "once", "train", np.zeros(0, np.uint8), np.zeros((478, 3)), 5.0)
    often = [replace(one, key=str(k), person="often") for k in range(50)]
    chance = weights([one, *often])
    assert chance.sum() == pytest.approx(1)
    assert 10 * chance[1] < chance[0] < chance[1:].sum()
    real, generated = weights([one, replace(one, person="nobody", generated=True)])
    assert 0 < generated < real


def test_heads_find_what_is_linear() -> None:
    generator = np.random.default_rng(0)
    design = generator.normal(size=(200, 20))
    labels = (design[:, : len(HEADS)] > 0).astype(float)
    heads = AttributeHeads.solve(design, labels, penalty=1.0)
    told = np.array([list(heads(row).values()) for row in design]) > 0.5
    assert (told == labels).mean() > 0.95
