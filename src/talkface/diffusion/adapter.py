"""Loads networks that were trained over frozen ones, and only work together with these."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

from talkface.errors import ModelUnavailable
from talkface.hub import load_pretrained
from talkface.nn.marks import weights_mark

Module = TypeVar("Module", bound=nn.Module)


def load_adapter(name_or_path: str, build: Callable[[Any], Module], given: Mapping[str, nn.Module]) -> Module:
    """An adapter with its weights, in evaluation mode.

    Args:
        name_or_path: as :func:`talkface.hub.load_pretrained` takes it.
        build: makes it from the sizes in its config.
        given: the frozen networks under it, by the names in its config's "built_on".

    Raises:
        ModelUnavailable: it is missing or damaged, or was trained over other networks.
    """
    config, state = load_pretrained(name_or_path)
    for part, mark in config["built_on"].items():
        if weights_mark(given[part]) != mark:
            raise ModelUnavailable(f"{name_or_path} was trained over another {part}; train it again")
    module = build(config["model"])
    module.load_state_dict(state)
    return module.eval()
