"""Smooth tracked faces without delay: the head's pose a good deal, the expression hardly.

A tracked mesh trembles as a whole by a hundredth of the eyes' distance. The pose is smoothed as much as its
motion allows; the face in its own frame only as far as it does not move, so that lips and lids keep their
time and their reach.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from talkface.face.model import Pose, estimate_pose

SMOOTHING_REACH = 0.24  # seconds to either side that count
_STILL, _MOVING = 0.08, 0.028  # seconds, standard deviation of the pose's filter at rest and in fast motion
_FAST = 0.4  # inter-ocular distances a second at which the filter begins to narrow
_BRIEF = 0.04  # seconds, standard deviation of the expression's filter
_NOISE = 0.01  # inter-ocular distances by which a vertex may move and still be smoothed
# What a change of translation (x, y), depth, log of scale and rotation (x, y, z) moves in the picture.
_EFFECT = np.array([1.0, 1.0, 0.0, 0.6, 0.6, 0.6, 0.6])


@dataclass(frozen=True)
class PosedFace:
    """A face at one moment: ``time`` in seconds, ``pose`` of one frame and ``canonical`` (478, 3)."""

    time: float
    pose: Pose
    canonical: np.ndarray

    @classmethod
    def of(cls, time: float, points: np.ndarray, neutral: np.ndarray) -> "PosedFace":
        """Take points (478, 3) in pixels apart, of a person with a neutral face (478, 3)."""
        pose = estimate_pose(points[None], neutral)
        return cls(time, pose, pose.invert(points[None])[0])


def smooth(faces: Sequence[PosedFace], time: float) -> tuple[np.ndarray, Pose]:
    """The face at ``time``, from what was tracked around it.

    Args:
        faces: In order of time, of one person and without a cut between them. There may be none at ``time``
            itself; then what lies between is interpolated.
        time: Seconds.

    Returns:
        points (478, 3) in pixels, and the smoothed pose of one frame.
    """
    times = np.array([face.time for face in faces]) - time
    nearest = int(np.abs(times).argmin())
    anchor = faces[nearest].pose
    states = _states([face.pose for face in faces], anchor)
    level, slope = _line(times, states, _STILL)
    speed = float(np.linalg.norm(slope * _EFFECT))
    level, _ = _line(times, states, max(_MOVING, _STILL / np.hypot(1.0, speed / _FAST)))
    pose = _pose(level, anchor)
    return pose.apply(_expression(faces, times))[0], pose


def _states(poses: Sequence[Pose], anchor: Pose) -> np.ndarray:
    """Poses as differences (T, 7) from one of them: translation over scale, log of scale, rotation vector."""
    scale = np.concatenate([pose.scale for pose in poses]) / anchor.scale
    shift = np.concatenate([pose.translation for pose in poses]) - anchor.translation
    turn = np.concatenate([pose.rotation for pose in poses]) @ anchor.rotation[0].T
    rotation = Rotation.from_matrix(turn).as_rotvec()
    return np.concatenate([shift / anchor.scale, np.log(scale)[:, None], rotation], 1)


def _pose(state: np.ndarray, anchor: Pose) -> Pose:
    turn = Rotation.from_rotvec(state[4:]).as_matrix().astype(np.float32)
    return Pose(
        turn[None] @ anchor.rotation,
        (anchor.scale * np.exp(state[3])).astype(np.float32),
        (anchor.translation + anchor.scale * state[:3]).astype(np.float32),
    )


def _line(times: np.ndarray, values: np.ndarray, deviation: float) -> tuple[np.ndarray, np.ndarray]:
    """Level and slope at time 0 of the line that fits best near it, (C,) each; Gaussian weights."""
    weight = np.exp(-0.5 * (times / deviation) ** 2) + 1e-12
    weight = weight / weight.sum()
    middle, mean = weight @ times, weight @ values
    spread = weight @ np.square(times - middle)
    if spread < 1e-8:
        return mean, np.zeros_like(mean)
    slope = (weight * (times - middle)) @ values / spread
    return mean - middle * slope, slope


def _expression(faces: Sequence[PosedFace], times: np.ndarray) -> np.ndarray:
    """The canonical face (478, 3) at time 0, each vertex smoothed only over moments when it was there."""
    nearest = int(np.abs(times).argmin())
    if abs(times[nearest]) > 1e-3 and times[0] < 0 < times[-1]:
        right = int(np.searchsorted(times, 0.0))
        share = np.float32(-times[right - 1] / (times[right] - times[right - 1]))
        return (1 - share) * faces[right - 1].canonical + share * faces[right].canonical
    here = faces[nearest].canonical
    near = np.flatnonzero(np.abs(times) < 3 * _BRIEF).tolist()
    around = np.stack([faces[i].canonical for i in near])
    moved = np.square(around[..., :2] - here[:, :2]).sum(-1)
    weight = np.exp(-0.5 * (moved / _NOISE**2 + np.square(times[near] / _BRIEF)[:, None]))
    smoothed: np.ndarray = ((weight[..., None] * around).sum(0) / weight.sum(0)[:, None]).astype(np.float32)
    return smoothed
