"""G4G's losses: alignment, retrieval, several scales."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from talkface.systems.g4g.losses import diagonal_alignment, multi_scale, pairwise_alignment, retrieval


def embeddings(count: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, 32, generator=random), dim=1)


@pytest.mark.parametrize("align", [diagonal_alignment, pairwise_alignment])
def test_alignment_prefers_what_belongs_together(align: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    x, temperature = embeddings(24), torch.tensor(2.3)
    clip, frame = torch.arange(24) // 6, torch.arange(24) % 6 * 5
    matched = align(x, x, temperature, clip, frame)
    assert matched < 0.5 * align(x, x.roll(1, 0), temperature, clip, frame)


def test_near_frames_are_no_negatives() -> None:
    x, temperature = embeddings(8), torch.tensor(4.0)
    x = x[[0, 0, 2, 3, 4, 5, 6, 7]]  # two frames that look and sound alike
    clip = torch.zeros(8, dtype=torch.long)
    apart = torch.tensor([0, 10, 20, 30, 40, 50, 60, 70])
    near = torch.tensor([0, 2, 20, 30, 40, 50, 60, 70])
    far = diagonal_alignment(x, x, temperature, clip, apart)
    assert diagonal_alignment(x, x, temperature, clip, near) < 0.1 * far
    other_clip = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7])
    torch.testing.assert_close(diagonal_alignment(x, x, temperature, other_clip, near), far)
    # With two frames of which each is near the other, the ordinary contrast has nothing else to take.
    torch.manual_seed(0)
    far = pairwise_alignment(x, x, temperature, clip, apart)
    assert pairwise_alignment(x, x, temperature, clip, near) <= far


def test_retrieval_counts_faces_that_find_their_sound() -> None:
    x = embeddings(10)
    assert retrieval(x, x).mean() == 1
    assert retrieval(x, x.roll(1, 0)).mean() == 0
    swapped = x[[1, 0, *range(2, 10)]]
    assert retrieval(x, swapped).tolist() == [0, 0, *[1] * 8]


def test_multi_scale_supervision_looks_under_the_mask_only() -> None:
    target = torch.rand(2, 3, 64, 64)
    weight = torch.zeros(2, 1, 64, 64)
    weight[..., :32] = 1
    small = torch.nn.functional.adaptive_avg_pool2d(target, 16)
    assert multi_scale([small], target, weight) < 1e-6
    spoilt = small.clone()
    spoilt[..., 8:] += 1
    assert multi_scale([spoilt], target, weight) < 1e-6
    spoilt[..., :8] += 1
    assert multi_scale([small, spoilt], target, weight) > 0.1
