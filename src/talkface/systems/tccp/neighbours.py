"""What comes shortly before and after each frame: mouth coefficients and content features."""

import numpy as np

LIP_CONTEXT_FRAMES = 2
"""Frames before and after one whose mouth coefficients it is conditioned on."""


def neighbours(values: np.ndarray, reach: int) -> np.ndarray:
    """Values (T, ...) of each frame and those ``reach`` before and after it, (T, 2 reach + 1, ...)."""
    index = np.arange(len(values))[:, None] + np.arange(-reach, reach + 1)
    near: np.ndarray = values[np.clip(index, 0, len(values) - 1)]
    return near


def content_neighbours(content: np.ndarray) -> np.ndarray:
    """Content features (2T, C) at 50 Hz around each frame, (T, 4, C)."""
    index = 2 * np.arange(len(content) // 2)[:, None] + np.arange(-1, 3)
    near: np.ndarray = content[np.clip(index, 0, len(content) - 1)]
    return near
