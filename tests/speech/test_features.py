"""Content features of speech: their number and how the stream is cut."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import blocks, spoken
from talkface.speech.features import ContentEncoder, FeatureStream


@settings(max_examples=12, deadline=None)
@given(samples=st.integers(700, 160_000), size=st.integers(900, 70_000))
def test_features_come_at_50_hz_whatever_the_blocks(samples: int, size: int) -> None:
    torch.manual_seed(0)
    stream = FeatureStream(ContentEncoder.debug(), window=3.0, context=0.5)
    audio = spoken(samples / 16_000)
    pieces = list(stream(blocks(audio, size)))
    assert sum(len(piece.content) for piece in pieces) == -(-samples // 320)
    assert all(len(piece.content) == len(piece.level) for piece in pieces)
    assert max(float(piece.level.max()) for piece in pieces) <= 0.0


def test_blocks_do_not_change_the_features() -> None:
    torch.manual_seed(0)
    stream = FeatureStream(ContentEncoder.debug(), window=3.0, context=0.5)
    audio = spoken(7.3)
    one, many = (torch.cat([p.content for p in stream(blocks(audio, size))]) for size in (len(audio), 4321))
    torch.testing.assert_close(one, many)
