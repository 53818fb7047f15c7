"""Words about faces: captions made of attributes, and prompts read into the tokens that the LDM knows."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

CAPTION_LENGTH = 16
"""Tokens of a caption; what is longer is cut off."""
PADDING, START = "<pad>", "<start>"
PSEUDO_WORDS = ("<voice0>", "<voice1>", "<voice2>", "<voice3>")
"""Tokens of a caption whose embeddings the Textual Inversion Adapter makes from a voice."""

AGE_ENDS = (30, 52)
"""Years at which the age groups of captions end: young, middle-aged, old."""
HAIR = ("black", "brown", "blond", "red", "grey")
EXPRESSIONS = ("neutral", "smiling", "talking")
LIGHTS = ("dim", "soft", "bright")
COLOURS = ("white", "grey", "black", "blue", "green", "red", "brown")
_WORDS = (
    *("woman", "man", "young", "middle-aged", "old", "hair", "bald", "glasses", "beard", "hat"),
    *("light", "background", "plain", "busy", "no", *HAIR, *EXPRESSIONS, *LIGHTS, *COLOURS),
)
VOCABULARY = (PADDING, START, *PSEUDO_WORDS, *dict.fromkeys(_WORDS))
_SYNONYMS = {
    "woman": "female lady girl",
    "man": "male guy boy gentleman",
    "blond": "blonde fair",
    "red": "ginger redhead",
    "grey": "white-haired gray",
    "black": "dark-haired",
    "brown": "brunette",
    "glasses": "spectacles eyeglasses",
    "beard": "bearded moustache mustache goatee",
    "old": "elderly aged senior",
    "young": "teenage",
    "middle-aged": "adult middleaged",
    "smiling": "smile smiles happy laughing",
    "talking": "speaking",
    "neutral": "serious calm",
    "dim": "dark",
    "hat": "cap headscarf",
    "no": "without",
    "background": "backdrop wall",
    "light": "lighting",
    "hair": "haired",
}
_STOP_WORDS = "a an the with and of in on at to is are has have wearing person face portrait photo who"


@dataclass(frozen=True)
class Attributes:
    """What a caption can say of a portrait; None for what is not known.

    Attributes:
        male: probability that the person looks like a man, 0 to 1.
        age: years.
        hair: one of HAIR, or "bald".
        glasses, beard, hat: whether there is one.
        expression: one of EXPRESSIONS.
        light: one of LIGHTS.
        background: one of COLOURS.
        plain: whether the background is of one colour.
    """

    male: float | None = None
    age: float | None = None
    hair: str | None = None
    glasses: bool | None = None
    beard: bool | None = None
    hat: bool | None = None
    expression: str | None = None
    light: str | None = None
    background: str | None = None
    plain: bool | None = None


def age_group(years: float) -> int:
    """0 for young people, 1 for middle-aged, 2 for old ones."""
    return sum(years >= end for end in AGE_ENDS)


def phrases(attributes: Attributes) -> list[str]:
    """One phrase for each attribute that is known."""
    found = []
    if attributes.age is not None:
        found.append(("young", "middle-aged", "old")[age_group(attributes.age)])
    if attributes.male is not None and abs(attributes.male - 0.5) > 0.15:
        found.append("man" if attributes.male > 0.5 else "woman")
    if attributes.hair is not None:
        found.append("bald" if attributes.hair == "bald" else f"{attributes.hair} hair")
    for name in ("glasses", "beard", "hat"):
        value = getattr(attributes, name)
        if value is not None and (value or name == "glasses"):
            found.append(name if value else f"no {name}")
    found += [attributes.expression] if attributes.expression else []
    found += [f"{attributes.light} light"] if attributes.light else []
    if attributes.background is not None:
        kind = "plain " if attributes.plain else "busy " if attributes.plain is not None else ""
        found.append(f"{kind}{attributes.background} background")
    return found


def caption(attributes: Attributes, generator: np.random.Generator | None = None, keep: float = 0.75) -> str:
    """A caption.

    Args:
        attributes: what it says.
        generator: draws which phrases are said, so that an LDM learns captions of any length; None for all.
        keep: probability that a phrase is said.
    """
    found = phrases(attributes)
    if generator is not None:
        found = [phrase for phrase in found if generator.random() < keep]
    return ", ".join(found)


@dataclass(frozen=True)
class Tokens:
    """A prompt as the LDM reads it.

    Attributes:
        ids: (CAPTION_LENGTH,) token ids.
        ignored: unknown words, in order.
    """

    ids: np.ndarray
    ignored: list[str] = field(default_factory=list)


def tokenize(prompt: str, prefix: Sequence[str] = ()) -> Tokens:
    """Tokens of any prompt; ``prefix`` are tokens before it, such as PSEUDO_WORDS."""
    words, ignored = [START, *prefix], []
    for word in re.findall(r"[\w-]+", prompt.lower()):
        known = _MEANING.get(word, word)
        if known in _IDS and known not in PSEUDO_WORDS:
            words.append(known)
        elif known not in _STOP_WORDS.split():
            ignored.append(word)
    ignored += words[CAPTION_LENGTH:]
    words = words[:CAPTION_LENGTH] + [PADDING] * (CAPTION_LENGTH - len(words))
    return Tokens(np.array([_IDS[word] for word in words]), ignored)


def known_words(prompt: str) -> list[str]:
    """Words of a prompt that the compact LDM knows, or that mean the same."""
    return [VOCABULARY[number] for number in tokenize(prompt).ids if number]


_MEANING = {other: word for word, others in _SYNONYMS.items() for other in others.split()}
_IDS = {word: number for number, word in enumerate(VOCABULARY)}
