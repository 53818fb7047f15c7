"""Batches that are drawn by several processes."""

from typing import Any

import numpy as np

from talkface.training.batches import drawn, to_device


def test_workers_draw_the_same_every_time() -> None:
    def draw(generator: np.random.Generator) -> dict[str, Any]:
        return {"x": generator.normal(size=3), "y": [generator.integers(9, size=2)]}

    def first(count: int) -> list[Any]:
        batches = drawn(draw, np.random.default_rng(0), workers=2)
        return [to_device(next(batches), "cpu") for _ in range(count)]

    one, two = first(5), first(5)
    assert all(
        (a["x"] == b["x"]).all() and (a["y"][0] == b["y"][0]).all() for a, b in zip(one, two, strict=True)
    )
    assert len({float(batch["x"][0]) for batch in one}) == 5
