"""Marks: short hashes that tell a network's weights, or prepared data, from others.

A model that is of use only together with those that it was trained over keeps their marks in its config:
``built_on`` holds names of parts and their marks.
"""

import hashlib
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from talkface.errors import ModelUnavailable
from talkface.hub import pretrained_config


def marked(text: str) -> str:
    """The mark of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def weights_mark(module: nn.Module) -> str:
    """The mark of a module's weights."""
    return state_mark(module.state_dict())


def latents_mark(autoencoder: nn.Module) -> str:
    """The mark of an autoencoder's latents: of all its weights but the decoder's."""
    return state_mark({k: v for k, v in autoencoder.state_dict().items() if "decoder" not in k})


def state_mark(state: Mapping[str, Tensor]) -> str:
    """The mark of tensors and their names."""
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def check_built_on(name_or_path: str, marks: Mapping[str, str | Callable[[], str]]) -> None:
    """Refuse a model that was trained over others than those that it is to be used with.

    Args:
        name_or_path: of the model, as :func:`talkface.hub.load_pretrained` takes it. One without ``built_on``
            in its config passes.
        marks: of the models at hand, by the names of ``built_on``. Functions that give them are called only
            for what is named there.

    Raises:
        ModelUnavailable: it is missing, or was trained over something else.
    """
    for part, mark in pretrained_config(name_or_path).get("built_on", {}).items():
        given = marks.get(part, mark)
        if (given() if callable(given) else given) != mark:
            raise ModelUnavailable(f"{name_or_path} was trained over another {part} model: train it again")
