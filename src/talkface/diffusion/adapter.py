"""Networks that are worth nothing without those they were trained over, and carry their marks."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

from talkface.errors import ModelUnavailable
from talkface.hub import load_pretrained
from talkface.nn.marks import weights_mark

Module = TypeVar("Module", bound=nn.Module)


def load_adapter(name_or_path: str, build: Callable[[Any], Module], given: Mapping[str, nn.Module]) -> Module:
    """A network with its weights, in evaluation mode.

    Args:
        name_or_path: as :func:`talkface.hub.load_pretrained` takes it.
        build: makes it from the sizes in its config.
        given: what it is to stand on, by the names of its marks.

    Raises:
        ModelUnavailable: it is missing or damaged, or was trained over something else.
    """
    config, state = load_pretrained(name_or_path)
    for part, mark in config["built_on"].items():
        if weights_mark(given[part]) != mark:
            raise ModelUnavailable(f"{name_or_path} was trained over another {part}; train it again")
    module = build(config["model"])
    module.load_state_dict(state)
    return module.eval()
