"""Models that are a handful of arrays."""

from collections.abc import Sequence

import numpy as np
import torch

from talkface.hub import load_pretrained


def load_arrays(name_or_path: str) -> dict[str, np.ndarray]:
    """Arrays of a shipped model, or of one from a directory or hub id, by their names.

    Raises:
        ModelUnavailable: nothing of that name can be found, or it is damaged.
    """
    _, state = load_pretrained(name_or_path)
    return {name: tensor.numpy() for name, tensor in state.items()}


def state_of(model: object, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Tensors to save, of attributes that are arrays."""
    return {name: torch.from_numpy(np.ascontiguousarray(getattr(model, name))) for name in names}
