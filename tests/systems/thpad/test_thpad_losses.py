"""TH-PAD's losses."""

import torch

from talkface.nn.picture import gradient_loss
from talkface.systems.thpad import losses


def test_losses_know_their_optimum() -> None:
    x = torch.randn(64, 16)
    temperature = torch.tensor(20.0)
    assert losses.contrastive_sync(x, x, temperature) < losses.contrastive_sync(x, x.roll(1, 0), temperature)
    assert losses.orthogonality(torch.randn(500, 64), torch.randn(500, 64)) < 0.05
    assert losses.orthogonality(x, x) > 0.99
    assert losses.velocity(x[None], x[None] + 3.0) < 1e-10
    image = torch.rand(2, 3, 32, 32)
    assert gradient_loss(image, image, torch.ones(2, 1, 32, 32)) == 0
