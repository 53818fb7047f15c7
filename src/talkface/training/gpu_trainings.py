"""The trainings for a borrowed GPU: recipe, model, share of the time, and what must travel."""

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace

from talkface.data.pack import Contents
from talkface.errors import InvalidOption

_DIFFUSERS_WHEELS = ("diffusers", "importlib_metadata")
_SOUND_WHEELS = ("soundfile", "cffi", "pycparser")
_FACES = Contents(portraits=True, weights=("face", "face-autoencoder"), wheels=_DIFFUSERS_WHEELS)
_LDM = ("face", "face-autoencoder", "face-diffusion")
_FOOTAGE = Contents(density=100, silent=True, seconds=1.2, of_one=3, weights=_LDM, wheels=_DIFFUSERS_WHEELS)
_TINY_FOOTAGE = ("config.batch=2", "config.frames=3", "config.held_out=2")
_TINY_LDM = (
    "config.model={widths: [8, 16], attention: [false, true], layers: 1, heads: 2, text: 16, text_layers: 1,"
    " mesh: 4}"
)
_TINY_FACES = (_TINY_LDM, "config.batch=2", "config.variants=2", "config.held_out=2", "config.sharpness=0")


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training that can run on a machine with a borrowed GPU.

    Attributes:
        recipe: its name in ``recipes/``.
        model: what it trains, by the name under which it is shipped.
        share: of the time, relative to those of the trainings that run with it; time that one leaves goes to
            the rest.
        contents: what it needs.
        comes_back: whether its model is wanted, or only those that are trained over it.
        after: trainings that must run before it, in the same run.
        settings: overrides of the recipe.
        sizes: the settings that make up the batch's size.
        tiny: overrides that make it small enough for a test.
        judged: overrides with which its model is judged afterwards, where the task only validates.
    """

    recipe: str
    model: str
    share: float
    contents: Contents
    comes_back: bool = True
    after: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ("batch",)
    tiny: tuple[str, ...] = ()
    judged: tuple[str, ...] = ()


#: In the order in which they run: a training comes after those whose models it needs.
TRAININGS = {
    "teacher": Training(
        recipe="face-diffusion-large",
        model="face-diffusion-teacher",
        share=5,
        contents=_FACES,
        comes_back=False,
        tiny=_TINY_FACES,
    ),
    "ldm": Training(
        recipe="face-diffusion-distilled",
        model="face-diffusion",
        share=3,
        contents=_FACES,
        after=("teacher",),
        settings=("config.teacher=face-diffusion-teacher",),
        tiny=_TINY_FACES,
        judged=("config.variants=1",),
    ),
    "sca": Training(
        recipe="imagineid-sca-large",
        model="imagineid-sca",
        share=2,
        contents=_FOOTAGE,
        tiny=_TINY_FOOTAGE,
    ),
    "mba": Training(
        recipe="imagineid-mba-large",
        model="imagineid-mba",
        share=1,
        contents=_FOOTAGE,
        after=("sca",),
        tiny=_TINY_FOOTAGE,
    ),
    "tccp": Training(
        recipe="tccp-video-large",
        model="tccp-video",
        share=3,
        contents=Contents(
            density=100,
            speech=True,
            seconds=1.2,
            of_one=3,
            weights=(*_LDM, "thpad-refiner"),
            wheels=_DIFFUSERS_WHEELS + _SOUND_WHEELS,
        ),
        settings=("config.windows=4",),  # eight would take a minute of the CPUs before the first step
        tiny=("config.batch=1", "config.windows=1", "config.held_out=1"),
    ),
    "refiner": Training(
        recipe="thpad-refiner-large",
        model="thpad-refiner",
        share=3,
        contents=Contents(density=236, silent=True, seconds=12.0, of_one=6, smallest=100, weights=("face",)),
        sizes=("mouths", "eyes"),
        tiny=("config.mouths=1", "config.eyes=1", "config.smallest_unit=0", "config.max_clips=2"),
    ),
    "prior": Training(
        recipe="thpad-prior-large",
        model="thpad-prior",
        share=1,
        contents=Contents(
            speech=True, of_one=10, weights=("face", "speech", "thpad-motion"), wheels=_SOUND_WHEELS
        ),
        tiny=(
            "config.model={width: 32, layers: 1, heads: 2, feed_forward: 64}",
            "config.batch=2",
            "config.motion.variants=1",
        ),
        judged=("config.motion.variants=1",),
    ),
    "sync": Training(
        recipe="g4g-sync-large",
        model="sync-training",
        share=2,
        contents=Contents(
            density=90, room=1.2, speech=True, of_one=14, weights=("face", "speech"), wheels=_SOUND_WHEELS
        ),
        sizes=("clips",),
        tiny=("config.clips=2", "config.stretch=24", "config.max_clips=4", "config.half=all"),
    ),
}


def chosen(names: Sequence[str]) -> list[str]:
    """The named trainings and those whose models they need, in the order in which they run.

    Raises:
        InvalidOption: there is no such training.
    """
    unknown = [name for name in names if name not in TRAININGS]
    if unknown or not names:
        named = ", ".join(unknown) or "is named"
        raise InvalidOption(f"no training {named}: there are {', '.join(TRAININGS)}")
    wanted = set(names)
    for name in reversed(TRAININGS):
        if name in wanted:
            wanted |= set(TRAININGS[name].after)
    return [name for name in TRAININGS if name in wanted]


def contents_of(names: Sequence[str]) -> Contents:
    """What trainings need together, less the models that one of them trains for those after it."""
    needed, made = [], set[str]()
    for training in (TRAININGS[name] for name in chosen(names)):
        left = tuple(name for name in training.contents.weights if name not in made)
        needed.append(replace(training.contents, weights=left))
        made.add(training.model)
    return functools.reduce(operator.or_, needed)
