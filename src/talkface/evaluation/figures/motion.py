"""Motion of head and eyes, and the distribution of motion coefficients."""

from itertools import combinations

import numpy as np

from talkface.evaluation.figures.distributions import frechet
from talkface.evaluation.tracking import COMMON_FPS, TrackedFace
from talkface.face import topology as tp

_CLOSED = 0.5  # of the usual lid gap: below it the eye counts as closed


def head_and_eyes(face: TrackedFace) -> dict[str, float]:
    """Figures of one video.

    Returns:
        ``pose_variance`` in rad^2; ``gaze_std``, spread of the gaze coefficients; ``gaze_head_r``, the
        correlation of horizontal gaze and yaw; ``blinks_per_minute``; ``blink_depth``, the median lid gap in
        blinks over the usual one; ``jitter``, see :func:`jitter`.
    """
    motion = face.motion
    lids = lid_openness(face.points)
    blinks = blink_depths(lids)
    horizontal = motion.gaze[:, [0, 2]].mean(1)
    return {
        "pose_variance": float(motion.rotation.var(0).sum()),
        "gaze_std": float(motion.gaze.std(0).mean()),
        "gaze_head_r": _correlation(horizontal, motion.rotation[:, 1]),
        "blinks_per_minute": len(blinks) / (len(face) / COMMON_FPS / 60),
        "blink_depth": float(np.median(blinks)) if blinks else float("nan"),
        "jitter": jitter(face.points),
    }


def head_and_eyes_beside(generated: TrackedFace, real: TrackedFace) -> dict[str, float]:
    """:func:`head_and_eyes` of a generated video, and of the real one with the prefix ``real_``."""
    of_real = {f"real_{name}": value for name, value in head_and_eyes(real).items()}
    return head_and_eyes(generated) | of_real


def lid_openness(points: np.ndarray) -> np.ndarray:
    """Lid gap of (T, 478, 3) over its usual value in the clip, (T,)."""
    gap: np.ndarray = tp.eye_openness(points).mean(-1)
    return gap / max(float(np.percentile(gap, 70)), 1e-6)


def blink_depths(openness: np.ndarray) -> list[float]:
    """Smallest openness in each blink: at most half a second below half of the usual lid gap."""
    closed = np.concatenate([[False], openness < _CLOSED, [False]])
    edges = np.flatnonzero(closed[1:] != closed[:-1])
    runs = zip(edges[::2], edges[1::2], strict=True)
    return [float(openness[a:b].min()) for a, b in runs if b - a <= COMMON_FPS / 2]


def jitter(points: np.ndarray) -> float:
    """Mean third difference over time of mesh points (T, 478, 3), % of the inter-ocular distance."""
    third = np.diff(points[:, : tp.FACE_VERTICES, :2], n=3, axis=0)
    return float(100 * np.linalg.norm(third, axis=-1).mean() / tp.inter_ocular(points).mean())


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if a.std() < 1e-6 or b.std() < 1e-6:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def diversity(takes: list[TrackedFace]) -> dict[str, float]:
    """How much several takes of one speech differ.

    Returns:
        ``take_diversity_degrees``, mean distance between head rotations, and ``take_lip_agreement``,
        correlation of mouth openings; means over pairs of takes.
    """
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


def similarity_of_natural_dynamics(generated: list[TrackedFace], real: list[TrackedFace]) -> dict[str, float]:
    """FID_fm and FID_dfm, Fréchet distances of motion coefficients and of their changes; SND, their sum."""
    scores = {}
    for name, order in (("fid_fm", 0), ("fid_dfm", 1)):
        scores[name] = frechet(_coefficients(generated, order), _coefficients(real, order))
    return scores | {"snd": scores["fid_fm"] + scores["fid_dfm"]}


def _coefficients(faces: list[TrackedFace], order: int) -> np.ndarray:
    """Pose (times 5, to about unit size) and expression of all frames, or their differences, (N, C)."""
    rows = []
    for face in faces:
        motion = face.motion
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
