"""Learns :class:`FaceModel` from tracked clips: alignment, neutral faces, principal components."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from talkface.face import topology as tp
from talkface.face.coefficients import MOUTH_COEFFICIENTS, SHAPE_COEFFICIENTS, UPPER_COEFFICIENTS
from talkface.face.model import DEPTH_WEIGHT, FaceModel, clip_neutral, estimate_pose, mouth_weight
from talkface.hub import save_pretrained
from talkface.training import ClosedFormTask

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FaceModelConfig:
    """Sizes of the bases and how many frames are used.

    Attributes:
        identity: components of neutral faces.
        mouth: components of the mouth's expressions.
        upper: components of all other expressions.
        frames_per_clip: at most, evenly spread.
        alignments: rounds of aligning all clips with their mean and taking the mean anew.
    """

    identity: int = SHAPE_COEFFICIENTS
    mouth: int = MOUTH_COEFFICIENTS
    upper: int = UPPER_COEFFICIENTS
    frames_per_clip: int = 60
    alignments: int = 4


def learn(points: list[np.ndarray], config: FaceModelConfig) -> FaceModel:
    """Learn the model from clips of tracked points, each (T, 478, 3) pixels."""
    chosen = [
        clip[np.linspace(0, len(clip) - 1, min(len(clip), config.frames_per_clip)).astype(int)]
        for clip in points
    ]
    mean, canonical = _align(chosen, config.alignments)
    neutrals = np.stack([clip_neutral(clip, mean) for clip in canonical])
    mean = neutrals.mean(0)
    identity = _principal(neutrals - mean, config.identity)
    moved = np.concatenate([clip - neutral for clip, neutral in zip(canonical, neutrals, strict=True)])
    moved[:, tp.FACE_VERTICES :] = 0.0  # irises are gaze, not expression
    weight = mouth_weight(mean)[:, None]
    mouth = _principal(moved * weight, config.mouth, center=False)
    upper = _principal(moved * (1 - weight), config.upper, center=False)
    gap = moved[:, tp.INNER_LIPS[1], 1] - moved[:, tp.INNER_LIPS[0], 1]
    opening = (moved * weight)[np.argsort(-gap)[: len(moved) // 100]].mean(0)
    return FaceModel(mean, identity, mouth, upper, opening)


def _align(clips: list[np.ndarray], rounds: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Generalised Procrustes analysis on the rigid points; the mean ends with inter-ocular distance 1."""
    shape: np.ndarray = clips[0][0] - clips[0][0].mean(0)
    canonical = clips
    for _ in range(rounds):
        shape = _upright(shape)
        canonical = [estimate_pose(clip, shape).invert(clip) for clip in clips]
        shape = np.mean([clip.mean(0) for clip in canonical], axis=0)
    shape = _upright(shape)
    personal = []
    for clip in canonical:  # each person's own shape carries the pose, so that identity does not leak into it
        own = clip.mean(0)
        own = estimate_pose(own[None], shape).invert(own[None])[0]
        personal.append(estimate_pose(clip, own).invert(clip))
    return shape, personal


def _upright(shape: np.ndarray) -> np.ndarray:
    """Scale to inter-ocular distance 1, symmetric about x = 0, origin midway between eyes and nose base."""
    shape = shape / np.linalg.norm(shape[tp.EYE_OUTER[0]] - shape[tp.EYE_OUTER[1]])
    right, left = shape[tp.EYE_OUTER[0]], shape[tp.EYE_OUTER[1]]
    x = (left - right) / np.linalg.norm(left - right)
    down = shape[2] - (left + right) / 2
    # the plane of eyes and nose base leans back by about 0.35 rad in a face that looks straight ahead
    down = down - x * (down @ x)
    down /= np.linalg.norm(down)
    back = np.cross(x, down)
    lean = 0.35
    y = np.cos(lean) * down + np.sin(lean) * back
    z = np.cross(x, y)
    turned = shape @ np.stack([x, y, z], axis=1)
    origin = (turned[tp.EYE_OUTER[0]] + turned[tp.EYE_OUTER[1]] + turned[2] * 2) / 4
    upright: np.ndarray = (turned - origin).astype(np.float32)
    return upright


def _principal(samples: np.ndarray, count: int, center: bool = True) -> np.ndarray:
    """Leading principal components (count, 478, 3), scaled so that coefficients have unit variance."""
    weight = np.array([1.0, 1.0, DEPTH_WEIGHT], np.float32)
    flat = (samples * weight).reshape(len(samples), -1)
    if center:
        flat = flat - flat.mean(0)
    small = flat[:: max(1, len(flat) // 8000)].astype(np.float64)
    _, singular, vt = np.linalg.svd(small, full_matrices=False)
    count = min(count, len(singular))
    basis = vt[:count] * (singular[:count, None] / np.sqrt(len(small)))
    explained = np.square(singular[:count]).sum() / np.square(singular).sum()
    logger.info("%d components explain %.3f of the variance", count, explained)
    components: np.ndarray = (basis.reshape(count, -1, 3) / weight).astype(np.float32)
    return components


class FaceModelTask(ClosedFormTask[FaceModelConfig]):
    """Solved on the clips of split "train"; its error is measured on split "val"."""

    def solve(self, output: Path) -> dict[str, float]:
        """Learn, measure and save the model in ``output``/export."""
        model = learn([clip for clip in self._points("train") if len(clip) >= 10], self.config)
        errors = [model.fit(clip).error for clip in self._points("val")]
        metrics = {
            "val_fit_error_mean": float(np.mean(errors)),
            "val_fit_error_median": float(np.median(errors)),
        }
        save_pretrained(
            output / "export", {"class": "FaceModel", "metrics": metrics}, model.state(), card=None
        )
        return metrics

    def _points(self, split: str) -> list[np.ndarray]:
        """The tracked points of the clips of a split, (T, 478, 3) pixels each."""
        items = [i for i in self.manifest.items if i.has_video and i.usable and i.split == split]
        return [self.manifest.track(item).points for item in items]
