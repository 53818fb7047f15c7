"""What a voice does not tell about a face, drawn from the seed: age, hair and looks."""

from dataclasses import replace

import numpy as np

from talkface.diffusion.captions import HAIR, age_group, known_words
from talkface.systems.imagineid.voice import Speaker

AGE_WORDS = {"young": 25.0, "middle-aged": 40.0, "old": 60.0}
"""Years that words for ages mean."""
_AGE_RANGE = (18.0, 80.0)  # of the people that are drawn
_EMBEDDING_NOISE = 0.2  # standard deviation, per channel, of the noise that TIA was trained with
_HAIR = ("black", "brown", "blond", "red", "grey", "bald", "")
# Shares of _HAIR among 1,321 people of the training portraits, as their captions have it, by age group.
_SHARES = {
    "woman": (
        (0.73, 0.12, 0.08, 0.012, 0.012, 0.0, 0.04),
        (0.46, 0.30, 0.14, 0.036, 0.028, 0.0, 0.03),
        (0.05, 0.43, 0.29, 0.0, 0.143, 0.0, 0.10),
    ),
    "man": (
        (0.73, 0.10, 0.005, 0.0, 0.016, 0.022, 0.12),
        (0.48, 0.05, 0.005, 0.0, 0.074, 0.136, 0.26),
        (0.07, 0.0, 0.0, 0.0, 0.784, 0.09, 0.05),
    ),
}


def draw_person(speaker: Speaker, generator: np.random.Generator) -> Speaker:
    """Somebody who could have a voice, of an age and with looks drawn from what PAD infers.

    The embedding of a voice is a mean over faces that could belong to it, while TIA was trained on the
    embeddings of single faces; noise gives it their spread.
    """
    age = speaker.age + speaker.age_spread * generator.standard_normal()
    semantic = speaker.semantic + _EMBEDDING_NOISE * generator.standard_normal(len(speaker.semantic))
    semantic = (semantic / max(float(np.linalg.norm(semantic)), 1e-6)).astype(np.float32)
    return replace(speaker, age=float(np.clip(age, *_AGE_RANGE)), semantic=semantic)


def draw_hair(speaker: Speaker, prompt: str, generator: np.random.Generator) -> str:
    """A phrase for hair; empty where the prompt says something of it, or at times to leave it to the LDM.

    Kinds are drawn in proportion to the square root of their shares among people of that sex and age, so that
    takes differ more than such people do.
    """
    drawn = generator.random()
    said = set(known_words(prompt))
    if said & {"hair", "bald", "hat", *HAIR}:
        return ""
    man = "man" in said or ("woman" not in said and speaker.male > 0.5)
    age = next((years for word, years in AGE_WORDS.items() if word in said), speaker.age)
    share = np.sqrt(_SHARES["man" if man else "woman"][age_group(age)])
    kind = _HAIR[int(np.searchsorted(np.cumsum(share) / share.sum(), drawn, side="right").clip(0, 6))]
    return f"{kind} hair" if kind in HAIR else kind
