"""Marks: short hashes that tell a network's weights, or prepared data, from others."""

import hashlib
from collections.abc import Mapping

from torch import Tensor, nn


def marked(text: str) -> str:
    """The mark of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def weights_mark(module: nn.Module) -> str:
    """The mark of a module's weights."""
    return _digest(module.state_dict())


def latents_mark(autoencoder: nn.Module) -> str:
    """The mark of an autoencoder's latents: of all its weights but the decoder's."""
    return _digest({k: v for k, v in autoencoder.state_dict().items() if "decoder" not in k})


def _digest(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()[:12]
