"""Lip sync against a real person's lips of the same words: correlations, M-LMD, closed mouths in silence."""

import numpy as np

from talkface.evaluation.tracking import TrackedFace
from talkface.face import topology as tp

MAX_LAG = 7  # frames to either side within which the offset is sought
LEAST_SPREAD = 0.01  # of the real opening; clips in which it varies less tell nothing about sync
LEAST_PEAK = 1e-3  # of the sound (-60 dB of full scale); nor do clips with a lower one
_ANCHORS = np.array([33, 133, 362, 263, 168, 6, 197, 195, 5, 1, 48, 278])  # eyes and nose
_MOUTH = np.concatenate([tp.LIPS_INNER, tp.LIPS_OUTER])


def correlation_curve(generated: np.ndarray, real: np.ndarray, max_lag: int) -> np.ndarray:
    """Pearson correlation of signals (T,) at lags of -``max_lag`` to ``max_lag`` frames.

    Returns:
        (2 * max_lag + 1,); positive lags: the generated signal is late.
    """
    curve = np.zeros(2 * max_lag + 1)
    for k, lag in enumerate(range(-max_lag, max_lag + 1)):
        a = generated[max(0, lag) : len(generated) + min(0, lag)]
        b = real[max(0, -lag) : len(real) + min(0, -lag)]
        if len(a) > 5 and a.std() > 1e-6 and b.std() > 1e-6:
            curve[k] = np.corrcoef(a, b)[0, 1]
    return curve


def best_correlation(generated: np.ndarray, real: np.ndarray) -> float:
    """Highest correlation of two signals (T,) within one frame of each other."""
    return float(correlation_curve(generated, real, 1).max())


def lip_sync(generated: TrackedFace, real: TrackedFace, sounds: bool = True) -> dict[str, float]:
    """Correlations of opening, width and jaw; spread of the opening; mouth landmark distance.

    Args:
        generated: The face to judge.
        real: A real face that says the same words.
        sounds: False for a silent soundtrack, which no lips can follow: the correlations are left out.
    """
    spread = float(real.opening.std())
    scores = {"real_opening_std": spread, "mouth_lmd": mouth_distance(generated.points, real.points)}
    if sounds and spread > LEAST_SPREAD:
        scores |= {
            "aperture_r": best_correlation(generated.opening, real.opening),
            "width_r": best_correlation(generated.width, real.width),
            "jaw_r": best_correlation(generated.jaw, real.jaw),
            "opening_ratio": float(generated.opening.std() / spread),
        }
    return scores


def silence(generated: TrackedFace, real: TrackedFace, voice: np.ndarray) -> dict[str, float]:
    """How far the mouth stands open where nobody speaks, beyond the person's closed mouth.

    Args:
        generated: The face to judge.
        real: The real person's.
        voice: (T,) bool, whether somebody speaks.

    Returns:
        ``silent_opening`` and ``real_silent_opening`` over inter-ocular distance; empty without silence.
    """
    margin = 4  # frames: lips move a little before and after the sound
    near = np.convolve(voice, np.ones(2 * margin + 1), "same") > 0
    quiet = ~near[: len(generated)]
    if quiet.sum() < 5:
        return {}
    closed = float(np.percentile(real.opening, 5))
    return {
        "silent_opening": float(generated.opening[quiet].mean()) - closed,
        "real_silent_opening": float(real.opening[quiet].mean()) - closed,
    }


def mouth_distance(generated: np.ndarray, real: np.ndarray) -> float:
    """M-LMD: mean distance of mouth points of meshes (T, 478, 3), % of the inter-ocular distance.

    Each generated mesh is first aligned with the real one by a similarity of eyes and nose.
    """
    a, b = generated[..., :2].astype(np.float64), real[..., :2].astype(np.float64)
    a_middle, b_middle = (p[:, _ANCHORS].mean(1, keepdims=True) for p in (a, b))
    a, b = a - a_middle, b - b_middle
    a_complex, b_complex = a[..., 0] + 1j * a[..., 1], b[..., 0] + 1j * b[..., 1]
    x, y = a_complex[:, _ANCHORS], b_complex[:, _ANCHORS]
    turn = (y * x.conj()).sum(1) / np.square(np.abs(x)).sum(1)  # scale and rotation by least squares
    gap = np.abs(turn[:, None] * a_complex[:, _MOUTH] - b_complex[:, _MOUTH]).mean(1)
    return float((100 * gap / tp.inter_ocular(real)).mean())
