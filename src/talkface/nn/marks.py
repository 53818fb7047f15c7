"""Marks: short names that tell a network's weights from others."""

import hashlib
from collections.abc import Mapping

from torch import Tensor, nn


def marked(text: str) -> str:
    """A short name for what a text tells."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def weights_mark(module: nn.Module) -> str:
    """Tells a module's weights from others."""
    return _digest(module.state_dict())


def latents_mark(autoencoder: nn.Module) -> str:
    """Tells an autoencoder from those with other latents; how they are drawn does not matter."""
    return _digest({k: v for k, v in autoencoder.state_dict().items() if "decoder" not in k})


def _digest(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()[:12]
