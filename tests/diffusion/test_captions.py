"""Captions made of attributes, and prompts read as tokens."""

from typing import TypeVar

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from talkface.diffusion import captions
from talkface.diffusion.captions import CAPTION_LENGTH, VOCABULARY, Attributes, caption, phrases, tokenize

Value = TypeVar("Value")


def optional(strategy: st.SearchStrategy[Value]) -> st.SearchStrategy[Value | None]:
    return st.none() | strategy


ATTRIBUTES = st.builds(
    Attributes,
    male=optional(st.floats(0, 1)),
    age=optional(st.floats(0, 99)),
    hair=optional(st.sampled_from(("bald", *captions.HAIR))),
    glasses=optional(st.booleans()),
    beard=optional(st.booleans()),
    hat=optional(st.booleans()),
    expression=optional(st.sampled_from(captions.EXPRESSIONS)),
    light=optional(st.sampled_from(captions.LIGHTS)),
    background=optional(st.sampled_from(captions.COLOURS)),
    plain=optional(st.booleans()),
)


@given(ATTRIBUTES, st.integers(0, 9))
def test_every_word_of_a_caption_is_known(attributes: Attributes, seed: int) -> None:
    assert all(word in VOCABULARY for phrase in phrases(attributes) for word in phrase.split())
    for said in (caption(attributes), caption(attributes, np.random.default_rng(seed))):
        found = tokenize(said)
        assert found.ids.shape == (CAPTION_LENGTH,)
        assert set(said.replace(",", "").split()) <= {VOCABULARY[k] for k in found.ids} | set(found.ignored)


@given(st.text(max_size=300))
def test_any_prompt_can_be_read(prompt: str) -> None:
    found = tokenize(prompt)
    assert found.ids.shape == (CAPTION_LENGTH,)
    assert 0 <= found.ids.min() <= found.ids.max() < len(VOCABULARY)


def test_unknown_words_are_told_and_synonyms_understood() -> None:
    found = tokenize("A bearded gentleman with a monocle and ginger hair")
    words = [VOCABULARY[k] for k in found.ids if VOCABULARY[k] != captions.PADDING]
    assert words == [captions.START, "beard", "man", "red", "hair"]
    assert found.ignored == ["monocle"]
    assert tokenize("man " * 40).ignored == ["man"] * (41 - CAPTION_LENGTH)
    assert captions.PSEUDO_WORDS[0] in [VOCABULARY[k] for k in tokenize("man", captions.PSEUDO_WORDS).ids]
    assert tokenize("<voice0>").ignored == ["voice0"]
