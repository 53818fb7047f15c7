"""Augmented crops of mouths."""

import numpy as np
import pytest
import torch
from PIL import Image

from talkface.systems.g4g.experts import SYNC_CROP_PIXELS
from talkface.training.datasets.augmentation import augment_mouths, draw_augmentation, sampling_matrices


def augmented_by_opencv(
    mouth: np.ndarray, scale: float, turn: float, shift: np.ndarray, mirror: bool
) -> np.ndarray:
    """A mouth (H, W, 3) uint8 scaled, turned, moved and then mirrored, by OpenCV."""
    import cv2

    side, middle = len(mouth), np.full(2, (len(mouth) - 1) / 2)
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = np.concatenate([linear, (middle - linear @ middle + shift)[:, None]], 1)
    moved = cv2.warpAffine(mouth, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE)
    return moved[:, ::-1] if mirror else moved


@pytest.mark.parametrize("half", [False, True])
def test_augmented_mouths_are_what_opencv_makes(half: bool, picture: Image.Image) -> None:
    """To within a grey level on average, of mouths with edges and skin; half precision misplaces nothing."""
    generator = np.random.default_rng(0)
    count, length = 6, 2
    whole = np.asarray(picture.resize((256, 256)))
    mouths = np.array([[whole[k : k + 96, 80:176] for k in (120, 110)]] * count)
    scale, turn = np.linspace(0.9, 1.1, count), np.linspace(-0.15, 0.15, count)
    shift, mirror = generator.uniform(-5, 5, (count, 2)), np.arange(count) % 2 == 0
    drawn = draw_augmentation(count, generator) | {"place": sampling_matrices(scale, turn, shift, mirror)}
    drawn |= {"noise": np.zeros_like(drawn["noise"])}
    given = {name: torch.from_numpy(value) for name, value in drawn.items()}
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        made = augment_mouths(torch.from_numpy(mouths).movedim(-1, 2), given)
    assert made.shape == (count, length, 3, SYNC_CROP_PIXELS, SYNC_CROP_PIXELS)
    for k in range(count):
        for frame in range(length):
            moved = augmented_by_opencv(mouths[k, frame], scale[k], turn[k], shift[k], bool(mirror[k]))
            wanted = np.clip(moved * drawn["gain"][k] + drawn["lift"][k], 0, 255)
            apart = np.abs(255 * made[k, frame].movedim(0, -1).numpy() - wanted)
            assert apart.mean() < 0.7
            assert np.quantile(apart, 0.99) < 3


def test_only_noisy_mouths_are_noisy() -> None:
    drawn = {"place": sampling_matrices(np.ones(3), np.zeros(3), np.zeros((3, 2)), np.zeros(3, bool))}
    drawn |= {"gain": np.ones((3, 3), np.float32), "lift": np.zeros(3, np.float32)}
    drawn |= {"noisy": np.array([0, 2]), "noise": np.array([2, 5], np.float32)}
    grey = torch.full((3, 2, 3, SYNC_CROP_PIXELS, SYNC_CROP_PIXELS), 128, dtype=torch.uint8)
    made = 255 * augment_mouths(grey, {name: torch.from_numpy(value) for name, value in drawn.items()})
    np.testing.assert_allclose(made.std((1, 2, 3, 4)), [2, 0, 5], atol=0.05)
    np.testing.assert_allclose(made.mean((1, 2, 3, 4)), 128, atol=0.1)
