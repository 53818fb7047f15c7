"""Retargeting: the tracked mesh with its lips moved to the coefficients of the new speech."""

from dataclasses import dataclass

import numpy as np

from talkface.face import topology as tp
from talkface.face.model import FaceModel, Pose, estimate_pose, mouth_weight
from talkface.performance.lip_shape import lip_readout

_USUAL_SPREAD = 0.125  # 5th to 95th percentile of the opening that the lip path gives, canonical units
_STILL_SPREAD = 0.03  # people with a smaller one do not speak in the video
_BEYOND = 1.2  # how much wider than ever seen a mouth may open
_LEAST_LIMIT = 0.12  # canonical units that any mouth may open
_LINEAR = 0.7  # share of the limit up to which openings are not compressed
_RESIDUAL_SECONDS = 0.4  # time constant of the mean of what the coefficients do not explain


def mesh_code(beta_mouth: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Codes (T, M + 3) of about unit size: mouth coefficients (T, M), rotation vectors (T, 3) in radians."""
    return np.concatenate([beta_mouth, rotation * 5], -1).clip(-5, 5).astype(np.float32)


def mouth_shape(face: FaceModel, beta_mouth: np.ndarray) -> np.ndarray:
    """Opening, width and jaw (T, 3), in canonical units, of mouth coefficients (T, M)."""
    shape: np.ndarray = beta_mouth @ lip_readout(face)
    return shape


@dataclass(frozen=True)
class MouthRange:
    """How far a person opens the mouth; the lips of the new speech are fitted to it.

    Attributes:
        gain: relative to other people.
        limit: the widest opening, canonical units; approached softly.
    """

    gain: float = 1.0
    limit: float = np.inf

    @classmethod
    def seen(cls, openings: np.ndarray, lips: float = 1.0) -> "MouthRange":
        """The range of a person from a few frames.

        The gain of a quiet speaker is below 1, that of a lively one above; it is shrunk towards 1, since a
        few frames are a small sample. Mouths open little further than they were seen to: no reference frame
        shows that.

        Args:
            openings: (N,) seen, canonical units.
            lips: strength that the user asked for.
        """
        low, high = np.percentile(openings, [5, 95])
        lively = float(np.clip(((high - low) / _USUAL_SPREAD) ** 0.6, 0.65, 1.35))
        gain = lively if high - low >= _STILL_SPREAD else 1.0
        return cls(lips * gain, lips * max(_BEYOND * float(openings.max()), _LEAST_LIMIT))

    def fit(self, face: FaceModel, beta_mouth: np.ndarray) -> np.ndarray:
        """Mouth coefficients (M,), scaled to stay within the range."""
        fitted: np.ndarray = self.gain * beta_mouth
        opening = float(mouth_shape(face, fitted[None])[0, 0])
        free = _LINEAR * self.limit
        if opening <= free:
            return fitted
        room = self.limit - free
        compressed = free + room * np.tanh((opening - free) / room)
        limited: np.ndarray = fitted * (compressed / opening)
        return limited


@dataclass(frozen=True)
class Retargeted:
    """Meshes whose lips were moved.

    Attributes:
        points: (T, 478, 3) pixels.
        pose: of each frame.
        beta_mouth: (T, M) the new coefficients.
        original: (T, M) those of the tracked face.
    """

    points: np.ndarray
    pose: Pose
    beta_mouth: np.ndarray
    original: np.ndarray


class Retargeter:
    """Moves the lips of one tracked person, frame after frame.

    Of the lower face's shape that the coefficients do not explain, a slow running mean is kept: it is the
    person's own shape as the tracker sees it in this pose. The quick part belongs to the old words and is
    dropped.

    Args:
        face: the 3DMM.
        neutral: (478, 3) the person's canonical mesh with the mouth closed.
        fps: frames per second.
    """

    def __init__(self, face: FaceModel, neutral: np.ndarray, fps: float) -> None:
        self.face, self.neutral = face, neutral
        self.weight = mouth_weight(face.mean)[:, None]
        self._memory = float(np.exp(-1 / (fps * _RESIDUAL_SECONDS)))
        self._slow: np.ndarray | None = None

    def forget(self) -> None:
        """Start the running mean anew, after a cut."""
        self._slow = None

    def __call__(self, points: np.ndarray, beta_mouth: np.ndarray, share: np.ndarray) -> Retargeted:
        """Move the lips of consecutive frames.

        Args:
            points: (T, 478, 3) the tracked face, pixels.
            beta_mouth: (T, M) coefficients that the lips are to have.
            share: (T,) strength of the change, 0 to 1: 0 leaves a frame as it is.
        """
        pose = estimate_pose(points, self.neutral)
        moved = pose.invert(points) - self.neutral
        original = self.face.project_mouth(moved)
        lower = self.weight * (moved - np.tensordot(original, self.face.mouth, 1))
        slow = self._slowly(lower)
        goal = self.neutral + (1 - self.weight) * moved + self.weight * slow
        goal = goal + np.tensordot(beta_mouth, self.face.mouth, 1)
        close_overlap(goal)
        part = share[:, None, None]
        now = pose.apply((1 - part) * (self.neutral + moved) + part * goal)
        return Retargeted(now.astype(np.float32), pose, beta_mouth, original)

    def _slowly(self, lower: np.ndarray) -> np.ndarray:
        """Running mean of (T, 478, 3); it starts at the mean of a shot's first frames."""
        slow = lower[: max(1, min(len(lower), 12))].mean(0) if self._slow is None else self._slow
        out = np.empty_like(lower)
        for k, now in enumerate(lower):
            slow = self._memory * slow + (1 - self._memory) * now
            out[k] = slow
        self._slow = slow
        return out


def close_overlap(shape: np.ndarray) -> None:
    """Let lips that pass through each other meet halfway, in place; ``shape`` is canonical (T, 478, 3)."""
    upper, lower = tp.LIPS_INNER_UPPER, tp.LIPS_INNER_LOWER
    overlap = np.maximum(shape[:, upper, 1] - shape[:, lower, 1], 0.0)
    shape[:, upper, 1] -= overlap / 2
    shape[:, lower, 1] += overlap / 2
