"""Soft transitions."""

import numpy as np


def smoothstep(x: np.ndarray) -> np.ndarray:
    """From 0 to 1 as x goes from 0 to 1, with no slope at either end; constant beyond."""
    x = np.clip(x, 0.0, 1.0)
    ramp: np.ndarray = x * x * (3 - 2 * x)
    return ramp
