"""Where the mouth is to be: a tracked face with its lips moved as the new speech wants."""

from dataclasses import dataclass

import numpy as np

from talkface.face import topology as tp
from talkface.face.model import FaceModel, Pose, estimate_pose, mouth_weight

_USUAL = 0.125  # spread of the opening that the lip path gives, 5th to 95th percentile, canonical units
_STILL = 0.03  # a smaller one is of somebody who does not speak
_BEYOND = 1.2  # how much wider than ever seen a mouth may open
_LEAST = 0.12  # canonical units: as wide it may open in any case
_FREE = 0.7  # of the limit, up to where openings stay as they are
_SECONDS = 0.4  # over which what the coefficients do not explain is averaged


def mesh_code(beta_mouth: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Mouth coefficients (T, M) and rotation vectors (T, 3), radians, as codes of unit size, (T, M + 3)."""
    return np.concatenate([beta_mouth, rotation * 5], -1).clip(-5, 5).astype(np.float32)


def mouth_shape(face: FaceModel, beta_mouth: np.ndarray) -> np.ndarray:
    """Opening, width and jaw of mouths (T, M) in the FaceModel's canonical units, (T, 3)."""
    upper, lower = tp.INNER_LIPS
    right, left = tp.MOUTH_CORNERS
    columns = [
        face.mouth[:, lower, 1] - face.mouth[:, upper, 1],
        face.mouth[:, left, 0] - face.mouth[:, right, 0],
        face.mouth[:, tp.CHIN, 1],
    ]
    return beta_mouth @ np.stack(columns, 1)


@dataclass(frozen=True)
class MouthRange:
    """How a person opens the mouth, which what the speech wants is fitted to.

    Attributes:
        gain: how much more, or less, than others.
        limit: the widest opening, canonical units; reached softly.
    """

    gain: float = 1.0
    limit: float = np.inf

    @classmethod
    def seen(cls, openings: np.ndarray, lips: float = 1.0) -> "MouthRange":
        """The range of a person seen with openings (N,) in canonical units; ``lips`` scales it.

        The gain of a quiet speaker is below 1, that of a lively one above. Its power and limits shrink it to
        1, since a few frames tell only so much. Mouths do not open much further than they were seen to: there
        are no pictures of that.
        """
        low, high = np.percentile(openings, [5, 95])
        gain = float(np.clip(((high - low) / _USUAL) ** 0.6, 0.65, 1.35)) if high - low >= _STILL else 1.0
        return cls(lips * gain, lips * max(_BEYOND * float(openings.max()), _LEAST))

    def fit(self, face: FaceModel, beta_mouth: np.ndarray) -> np.ndarray:
        """Mouth coefficients (M,) within the range."""
        fitted = self.gain * beta_mouth
        opening = float(mouth_shape(face, fitted[None])[0, 0])
        free = _FREE * self.limit
        if opening <= free:
            return fitted
        room = self.limit - free
        return fitted * ((free + room * np.tanh((opening - free) / room)) / opening)


@dataclass(frozen=True)
class Retargeted:
    """Faces whose lips were moved.

    Attributes:
        points: (T, 478, 3) pixels.
        pose: of each frame.
        beta_mouth: (T, M) what the lips do now.
        original: (T, M) what they did.
    """

    points: np.ndarray
    pose: Pose
    beta_mouth: np.ndarray
    original: np.ndarray


class Retargeter:
    """Moves the lips of one tracked person, frame after frame.

    What the coefficients do not explain of the lower face (the person's own shape as the tracker sees it in
    this pose) is kept, but only its slow part: the quick part belongs to the old words.

    Args:
        face: the 3DMM.
        neutral: (478, 3) the person's canonical mesh with the mouth closed.
        fps: frames a second.
    """

    def __init__(self, face: FaceModel, neutral: np.ndarray, fps: float) -> None:
        self.face, self.neutral = face, neutral
        self.weight = mouth_weight(face.mean)[:, None]
        self._memory = float(np.exp(-1 / (fps * _SECONDS)))
        self._slow: np.ndarray | None = None

    def forget(self) -> None:
        """Begin anew, after a cut."""
        self._slow = None

    def __call__(self, points: np.ndarray, beta_mouth: np.ndarray, share: np.ndarray) -> Retargeted:
        """Move the lips of consecutive frames.

        Args:
            points: (T, 478, 3) the tracked face, pixels.
            beta_mouth: (T, M) what the lips are to do.
            share: (T,) how much of it: 0 leaves a frame as it is.
        """
        pose = estimate_pose(points, self.neutral)
        moved = pose.invert(points) - self.neutral
        original = self.face.project_mouth(moved)
        lower = self.weight * (moved - np.tensordot(original, self.face.mouth, 1))
        slow = self._slowly(lower)
        wanted = self.neutral + (1 - self.weight) * moved + self.weight * slow
        wanted = wanted + np.tensordot(beta_mouth, self.face.mouth, 1)
        meet(wanted)
        part = share[:, None, None]
        now = pose.apply((1 - part) * (self.neutral + moved) + part * wanted)
        return Retargeted(now.astype(np.float32), pose, beta_mouth, original)

    def _slowly(self, lower: np.ndarray) -> np.ndarray:
        """Running mean of (T, 478, 3); the first frames of a shot count for what came before."""
        slow = lower[: max(1, min(len(lower), 12))].mean(0) if self._slow is None else self._slow
        out = np.empty_like(lower)
        for k, now in enumerate(lower):
            slow = self._memory * slow + (1 - self._memory) * now
            out[k] = slow
        self._slow = slow
        return out


def meet(shape: np.ndarray) -> None:
    """Lips that would pass through each other meet instead, in place, canonical (T, 478, 3)."""
    upper, lower = tp.LIPS_INNER_UPPER, tp.LIPS_INNER_LOWER
    overlap = np.maximum(shape[:, upper, 1] - shape[:, lower, 1], 0.0)
    shape[:, upper, 1] -= overlap / 2
    shape[:, lower, 1] += overlap / 2
