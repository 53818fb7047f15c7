"""Working ahead changes nothing but the time."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talkface.media.prefetch import prefetched


@given(items=st.lists(st.integers()), depth=st.integers(1, 5))
def test_order_and_number_stay(items: list[int], depth: int) -> None:
    assert list(prefetched(items, depth)) == items


def test_errors_come_where_the_item_would() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    ahead = prefetched(broken())
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="no more"):
        next(ahead)


def test_it_is_never_far_ahead_and_stops_with_the_reader() -> None:
    made: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            made.append(len(made))
            yield made[-1]

    ahead = prefetched(endless(), depth=3)
    assert [next(ahead) for _ in range(5)] == list(range(5))
    ahead.close()
    assert len(made) <= 5 + 3
