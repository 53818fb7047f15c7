"""A tiny configuration of G4G's generator and random inputs for any."""

import torch
from torch import Tensor

from talkface.performance.config import SPEECH_WINDOW
from talkface.systems.g4g.config import GeneratorConfig
from talkface.systems.g4g.model import GeneratorInputs

TINY_GENERATOR = GeneratorConfig(content=16, code=16, embedding=16, widths=(8, 16, 16))


def random_inputs(config: GeneratorConfig, batch: int = 2, seed: int = 0) -> GeneratorInputs:
    """Random inputs; the middle of the crop is hidden."""
    random = torch.Generator().manual_seed(seed)
    side, half, count = config.pixels, config.pixels // 2, config.references

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random)

    hidden = torch.zeros(batch, 1, side, side)
    hidden[..., side // 3 : -side // 3, side // 4 : -side // 4] = 1.0
    return GeneratorInputs(
        context=rand(batch, 3, side, side),
        hidden=hidden,
        maps=rand(batch, config.maps, half, half),
        mesh=rand(batch, config.mesh),
        references=rand(batch, count, 3, side, side),
        grids=2 * rand(batch, count, half, half, 2) - 1,
        seeds=rand(batch, count, 3, side, side),
        content=rand(batch, 2 * SPEECH_WINDOW, config.content),
        level=-20 * rand(batch, 2 * SPEECH_WINDOW),
    )
