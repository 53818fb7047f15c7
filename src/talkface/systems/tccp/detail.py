"""Detail that latents cannot hold: what the autoencoder loses of the moved reference is given back."""

import cv2
import numpy as np

_NEAR = 21  # pixels across, within which two pictures are compared
_GAIN = (0.5, 1.5)
_LEAST = 4.0  # squared levels of contrast, below which nothing can be compared


def regained(drawn: np.ndarray, moved: np.ndarray, coarse: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """A drawn picture with the reference's detail, as far as it looks like the reference there.

    Args:
        drawn: (H, W, 3) float32, 0 to 255, from latents.
        moved: (H, W, 3) the reference, moved to where it is drawn.
        coarse: (H, W, 3) the same out of the autoencoder.
        inside: (H, W) float32 in [0, 1] where the reference shows the head.

    Returns:
        (H, W, 3) float32: ``drawn`` where the two have nothing in common, and where nothing was lost.
    """
    own, other = drawn.mean(2), coarse.mean(2)
    apart = own - _mean(own), other - _mean(other)
    spread = [_mean(each * each) + _LEAST for each in apart]
    alike = np.clip(_mean(apart[0] * apart[1]) / np.sqrt(spread[0] * spread[1]), 0, 1) ** 2
    gain = np.clip(np.sqrt(spread[0] / spread[1]), *_GAIN)
    return drawn + (inside * alike * gain)[..., None] * (moved.astype(np.float32) - coarse)


def _mean(values: np.ndarray) -> np.ndarray:
    return cv2.blur(values.astype(np.float32), (_NEAR, _NEAR))
