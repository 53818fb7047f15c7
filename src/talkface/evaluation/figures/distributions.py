"""Distances between two sets of feature vectors, such as descriptors of real and of generated faces."""

import numpy as np
from scipy.linalg import sqrtm

LEAST_FACES = 192  # descriptors per set; fewer do not determine a covariance of 128 dimensions


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance between two samples (N, C), each taken as Gaussian."""
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.real(sqrtm(covariances[0] @ covariances[1]))
    apart = np.square(a.mean(0) - b.mean(0)).sum()
    return float(apart + np.trace(covariances[0] + covariances[1] - 2 * root))


def frechet_of_faces(clips: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """``fd_dlib128``: Fréchet distance between the dlib descriptors of real and generated frames.

    Computed as FID is, with another feature extractor: the scale differs from that of published FIDs.

    Args:
        clips: Of each clip, descriptors (N, 128) of real frames and of generated ones.

    Returns:
        Empty for fewer than 192 frames of either kind.
    """
    if min(sum(len(pair[which]) for pair in clips) for which in (0, 1)) < LEAST_FACES:
        return {}
    real, generated = (np.concatenate(part) for part in zip(*clips, strict=True))
    return {"fd_dlib128": frechet(generated, real)}


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Kernel distance (squared MMD, unbiased) between two samples (N, C); about 0 for equal distributions.

    It has the cubic kernel of KID (Binkowski et al., "Demystifying MMD GANs", 2018). A hundred pictures are
    enough for it. It can be slightly negative.
    """

    def within(x: np.ndarray) -> float:
        kernel = _cubic(x, x)
        return float((kernel.sum() - np.trace(kernel)) / (len(x) * (len(x) - 1)))

    return within(a) + within(b) - 2 * float(_cubic(a, b).mean())


def _cubic(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    kernel: np.ndarray = (a.astype(np.float64) @ b.astype(np.float64).T / a.shape[1] + 1) ** 3
    return kernel
