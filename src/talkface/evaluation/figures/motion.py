"""Do head and eyes move as people's do?"""

from itertools import combinations

import numpy as np
from scipy.linalg import sqrtm

from talkface.evaluation.figures.performance import RATE, Performance
from talkface.face import topology as tp

_CLOSED = 0.5  # of the usual lid gap: below it the eye counts as closed


def head_and_eyes(performance: Performance) -> dict[str, float]:
    """Pose variance (rad^2), gaze spread, gaze against head, blinks a minute, lid gap in blinks, jitter."""
    motion = performance.motion
    lids = lid_openness(performance.points)
    blinks = blink_depths(lids)
    horizontal = motion.gaze[:, [0, 2]].mean(1)
    return {
        "pose_variance": float(motion.rotation.var(0).sum()),
        "gaze_std": float(motion.gaze.std(0).mean()),
        "gaze_head_r": _correlation(horizontal, motion.rotation[:, 1]),
        "blinks_per_minute": len(blinks) / (len(performance) / RATE / 60),
        "blink_depth": float(np.median(blinks)) if blinks else float("nan"),
        "jitter": jitter(performance.points),
    }


def lid_openness(points: np.ndarray) -> np.ndarray:
    """Lid gap of (T, 478, 3) over its usual value in the clip, (T,)."""
    gap = tp.eye_openness(points).mean(-1)
    return gap / max(float(np.percentile(gap, 70)), 1e-6)


def blink_depths(openness: np.ndarray) -> list[float]:
    """Smallest openness of every blink: a time of at most half a second below half of the usual gap."""
    closed = np.concatenate([[False], openness < _CLOSED, [False]])
    edges = np.flatnonzero(closed[1:] != closed[:-1])
    runs = zip(edges[::2], edges[1::2], strict=True)
    return [float(openness[a:b].min()) for a, b in runs if b - a <= RATE / 2]


def jitter(points: np.ndarray) -> float:
    """Mean third difference of mesh points (T, 478, 3), % of inter-ocular distance."""
    third = np.diff(points[:, : tp.FACE_VERTICES, :2], n=3, axis=0)
    return float(100 * np.linalg.norm(third, axis=-1).mean() / tp.inter_ocular(points).mean())


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if a.std() < 1e-6 or b.std() < 1e-6:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def diversity(takes: list[Performance]) -> dict[str, float]:
    """Mean distance between head rotations of takes of one speech, degrees; correlation of their lips."""
    length = min(map(len, takes))
    pairs = list(combinations(takes, 2))
    apart = [
        np.linalg.norm(a.motion.rotation[:length] - b.motion.rotation[:length], axis=1).mean()
        for a, b in pairs
    ]
    alike = [_correlation(a.opening[:length], b.opening[:length]) for a, b in pairs]
    return {
        "take_diversity_degrees": float(np.degrees(np.mean(apart))),
        "take_lip_agreement": float(np.mean(alike)),
    }


def similarity_of_natural_dynamics(generated: list[Performance], real: list[Performance]) -> dict[str, float]:
    """FID_fm and FID_dfm (Frechet distances of coefficients and of their changes) and SND, their sum."""
    scores = {}
    for name, order in (("fid_fm", 0), ("fid_dfm", 1)):
        scores[name] = frechet(_coefficients(generated, order), _coefficients(real, order))
    return scores | {"snd": scores["fid_fm"] + scores["fid_dfm"]}


def _coefficients(performances: list[Performance], order: int) -> np.ndarray:
    """Per-frame pose (times 5: about unit size) and expression, or their frame differences, (N, C)."""
    rows = []
    for performance in performances:
        motion = performance.motion
        parts = [
            motion.rotation * 5,
            motion.translation * 5,
            motion.scale * 5,
            motion.beta_mouth,
            motion.beta_upper,
        ]
        stacked = np.concatenate(parts, 1)
        rows.append(np.diff(stacked, n=order, axis=0) if order else stacked - stacked.mean(0))
    return np.concatenate(rows)


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance of two samples (N, C) taken as Gaussian."""
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.real(sqrtm(covariances[0] @ covariances[1]))
    apart = np.square(a.mean(0) - b.mean(0)).sum()
    return float(apart + np.trace(covariances[0] + covariances[1] - 2 * root))


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased squared kernel distance of two samples (N, C), about 0 for samples of one kind.

    With the cubic kernel of KID (Binkowski et al., "Demystifying MMD GANs", 2018), for which a hundred
    pictures are enough; it can be slightly negative.
    """

    def within(x: np.ndarray) -> float:
        kernel = _cubic(x, x)
        return float((kernel.sum() - np.trace(kernel)) / (len(x) * (len(x) - 1)))

    return within(a) + within(b) - 2 * float(_cubic(a, b).mean())


def _cubic(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a.astype(np.float64) @ b.astype(np.float64).T / a.shape[1] + 1) ** 3
