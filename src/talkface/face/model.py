"""FaceModel: a linear 3DMM on the 478-point mesh, learned from tracked faces by a recipe.

    V(alpha, beta, gaze) = mean + B_id alpha + B_mouth beta_mouth + B_upper beta_upper (+ iris offsets)

in a canonical frame: the inter-ocular distance of the mean face is 1, x to the right, y down, z away from the
camera, origin between the eyes' height and the nose. Pose is weak perspective: pixels = s R V + t.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from talkface.face import topology as tp
from talkface.face.arrays import load_arrays, state_of
from talkface.face.motion import FaceMotion
from talkface.face.ramp import smoothstep
from talkface.face.warp import MeshWarp, triangulate

DEPTH_WEIGHT = 0.3  # depth from the tracker is a guess: it counts less than what is seen
_IRIS_SLICES = (slice(468, 473), slice(473, 478))


@dataclass(frozen=True)
class Pose:
    """Weak perspective of T frames: rotation (T, 3, 3), scale (T,) px per unit, translation (T, 3) px."""

    rotation: np.ndarray
    scale: np.ndarray
    translation: np.ndarray

    @property
    def rotation_vectors(self) -> np.ndarray:
        """Rotations as vectors (T, 3) in radians, float32: 0 faces the camera."""
        vectors: np.ndarray = Rotation.from_matrix(self.rotation).as_rotvec()
        return vectors.astype(np.float32)

    def apply(self, canonical: np.ndarray) -> np.ndarray:
        """Canonical vertices (T, V, 3) or (V, 3) to pixels (T, V, 3)."""
        turned = canonical @ self.rotation.swapaxes(-1, -2)
        posed: np.ndarray = turned * self.scale[:, None, None] + self.translation[:, None]
        return posed

    def invert(self, points: np.ndarray) -> np.ndarray:
        """Pixels (T, V, 3) to the canonical frame."""
        upright = (points - self.translation[:, None]) / self.scale[:, None, None]
        canonical: np.ndarray = upright @ self.rotation
        return canonical


def estimate_pose(points: np.ndarray, shape: np.ndarray) -> Pose:
    """Least-squares weak perspective from ``shape`` (V, 3) to ``points`` (T, V, 3), on the rigid points."""
    target, source = points[:, tp.RIGID].astype(np.float64), shape[tp.RIGID].astype(np.float64)
    target_mean, source_mean = target.mean(1, keepdims=True), source.mean(0)
    a, b = source - source_mean, target - target_mean
    u, singular, vt = np.linalg.svd(np.einsum("tvi,vj->tij", b, a))
    sign = np.ones_like(singular)
    sign[:, 2] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * sign[:, None]) @ vt
    scale = (singular * sign).sum(1) / np.square(a).sum()
    translation = target_mean[:, 0] - scale[:, None] * (rotation @ source_mean)
    return Pose(rotation.astype(np.float32), scale.astype(np.float32), translation.astype(np.float32))


@dataclass(frozen=True)
class FaceFit:
    """A face explained by the model.

    Attributes:
        alpha: (I,) identity coefficients, shared by all frames.
        neutral: (478, 3) this person's own canonical mesh at rest, mouth closed, eyes open, looking ahead.
        motion: the coefficients over time, relative to a face that faces the camera and looks ahead.
        pose: weak perspective of each frame in pixels.
        residual: (T, 478, 3) what the coefficients do not explain, canonical units.
        error: mean distance in pixels over inter-ocular distance between the mesh and alpha's own face.
    """

    alpha: np.ndarray
    neutral: np.ndarray
    motion: FaceMotion
    pose: Pose
    residual: np.ndarray
    error: float


@dataclass(frozen=True)
class Eyelids:
    """Lids apart from the rest of the upper face.

    Attributes:
        gap: (U,) change of the lid gap per coefficient, canonical units.
        open_gap: lid gap of the mean face at rest.
    """

    gap: np.ndarray
    open_gap: float

    def openness(self, beta_upper: np.ndarray) -> np.ndarray:
        """Lid gap over its value at rest, (T,): 1 is open, 0 closed."""
        openness: np.ndarray = 1 + beta_upper @ self.gap / self.open_gap
        return openness

    def complete(self, openness: np.ndarray) -> np.ndarray:
        """A lid that is more than half way down goes all the way: openness (T,) in and out."""
        closing = smoothstep((0.75 - openness) / 0.35)
        completed: np.ndarray = np.clip(openness, 0.0, 1.15) * (1 - closing)
        return completed

    def with_openness(
        self, beta_upper: np.ndarray, openness: np.ndarray, expression: float = 1.0
    ) -> np.ndarray:
        """beta_upper (T, U) with the lids at ``openness`` (T,) and the brows scaled by ``expression``."""
        direction = self.gap / np.square(self.gap).sum()
        rest = beta_upper - (beta_upper @ self.gap)[:, None] * direction
        lids = ((openness - 1) * self.open_gap)[:, None] * direction
        upper: np.ndarray = (expression * rest + lids).astype(np.float32)
        return upper


class FaceModel:
    """The learned bases.

    Args:
        mean: (478, 3) the mean neutral face, canonical units.
        identity, mouth, upper: (K, 478, 3) bases, scaled so that coefficients have unit variance.
        opening: (478, 3) mean displacement of a widely open mouth from the neutral face.
    """

    def __init__(
        self,
        mean: np.ndarray,
        identity: np.ndarray,
        mouth: np.ndarray,
        upper: np.ndarray,
        opening: np.ndarray,
    ) -> None:
        self.mean, self.identity, self.mouth, self.upper, self.opening = mean, identity, mouth, upper, opening
        self._mouth_solver = _solver(mouth, 1e-3)
        self._upper_solver = _solver(upper, 1e-3)
        self._identity_solver = _solver(identity, 1e-2)

    @classmethod
    def from_pretrained(cls, name_or_path: str = "face") -> "FaceModel":
        """Load the shipped model, or one from a directory or hub id."""
        return cls(**load_arrays(name_or_path))

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors to save."""
        return state_of(self, ("mean", "identity", "mouth", "upper", "opening"))

    # -- synthesis -------------------------------------------------------------------------------

    def expression(self, motion: FaceMotion) -> np.ndarray:
        """Canonical displacement (T, 478, 3) of mouth, upper face and irises from the neutral face."""
        moved = np.tensordot(motion.beta_mouth, self.mouth, 1)
        moved = moved + np.tensordot(motion.beta_upper, self.upper, 1)
        for eye, part in enumerate(_IRIS_SLICES):
            moved[:, part, :2] += motion.gaze[:, None, 2 * eye : 2 * eye + 2]
        return moved.astype(np.float32)

    def mesh_warp(self) -> MeshWarp:
        """The warp between meshes of this topology, triangulated on a face with open mouth and eyes."""
        return MeshWarp(*triangulate(self.mean + self.opening))

    def eyelids(self) -> "Eyelids":
        """What closes an eye, in terms of beta_upper."""
        gaps = [
            self.upper[:, lids[:, 1], 1] - self.upper[:, lids[:, 0], 1]
            for lids in (tp.RIGHT_LIDS, tp.LEFT_LIDS)
        ]
        lids = np.concatenate([tp.RIGHT_LIDS, tp.LEFT_LIDS])
        open_gap = float((self.mean[lids[:, 1], 1] - self.mean[lids[:, 0], 1]).mean())
        return Eyelids(np.concatenate(gaps, 1).mean(1), open_gap)

    # -- analysis --------------------------------------------------------------------------------

    def project_mouth(self, displacement: np.ndarray) -> np.ndarray:
        """beta_mouth (T, M) of canonical displacements (T, 478, 3) from a neutral face."""
        return _solve(self._mouth_solver, displacement)

    def project_upper(self, displacement: np.ndarray) -> np.ndarray:
        """beta_upper (T, U) of canonical displacements (T, 478, 3) from a neutral face."""
        return _solve(self._upper_solver, displacement)

    def fit(self, points: np.ndarray, fps: float = 25.0, iterations: int = 3) -> FaceFit:
        """Explain tracked points (T, 478, 3), pixels, T >= 1, of one person.

        The neutral face of a clip is what is seen when the mouth is most closed; that of a single picture is
        what remains when the model's mouth is closed.
        """
        points = np.asarray(points, np.float32)
        shape = self.mean
        for _ in range(iterations):
            pose = estimate_pose(points, shape)
            canonical = pose.invert(points)
            neutral = self._neutral(canonical)
            alpha = _solve(self._identity_solver, (neutral - self.mean)[None])[0]
            shape = neutral
        displacement = canonical - neutral
        gaze = np.concatenate([_gaze(canonical, eye) for eye in (0, 1)], axis=1)
        place, size = pose.translation[:, :2], np.median(pose.scale)
        motion = FaceMotion(
            beta_mouth=self.project_mouth(displacement),
            beta_upper=self.project_upper(displacement),
            rotation=pose.rotation_vectors,
            translation=(place - np.median(place, 0)) / size,
            scale=(pose.scale / size)[:, None],
            gaze=gaze.astype(np.float32),
            fps=fps,
            reference="camera",
        )
        residual = displacement - self.expression(motion)
        own = self.mean + np.tensordot(alpha, self.identity, 1) + self.expression(motion)
        distance = np.linalg.norm((pose.apply(own) - points)[:, : tp.FACE_VERTICES, :2], axis=-1).mean(1)
        error = float((distance / tp.inter_ocular(points)).mean())
        return FaceFit(alpha, neutral, motion, pose, residual, error)

    def _neutral(self, canonical: np.ndarray) -> np.ndarray:
        """The face at rest, (478, 3)."""
        if len(canonical) >= 25:
            return clip_neutral(canonical, self.mean)
        alpha = _solve(self._identity_solver, canonical - self.mean)
        displacement = canonical - self.mean - np.tensordot(alpha, self.identity, 1)
        at_rest = canonical - np.tensordot(self.project_mouth(displacement), self.mouth, 1)
        neutral = self._closed(at_rest.mean(0))
        return _look_ahead(neutral)

    def _closed(self, face: np.ndarray, tolerance: float = 0.01) -> np.ndarray:
        """Close what is left of a smile (478, 3) as mouths do, jaw and all; the lips then meet exactly."""
        gaps = _lip_gaps(self.mouth) / tolerance
        system = gaps @ gaps.T + np.eye(len(gaps))
        beta = -np.linalg.solve(system, gaps @ (_lip_gaps(face) / tolerance))
        face = face + np.tensordot(beta, self.mouth, 1)
        rest = np.zeros_like(face)
        rest[tp.LIPS_INNER_LOWER, 1] = rest[tp.LIPS_INNER_UPPER, 1] = _lip_gaps(face) / 2
        rest[tp.LIPS_INNER_LOWER, 1] *= -1
        closed: np.ndarray = (face + rest).astype(np.float32)
        return closed


def _lip_gaps(points: np.ndarray) -> np.ndarray:
    """Vertical gaps (..., 9) between the inner lips of (..., 478, 3)."""
    gaps: np.ndarray = points[..., tp.LIPS_INNER_LOWER, 1] - points[..., tp.LIPS_INNER_UPPER, 1]
    return gaps


def clip_neutral(canonical: np.ndarray, mean: np.ndarray, closed: float = 0.15) -> np.ndarray:
    """The neutral face (478, 3) of a clip: mouth from the most closed frames, eyes from the median."""
    opening = canonical[:, tp.INNER_LIPS[1], 1] - canonical[:, tp.INNER_LIPS[0], 1]
    quiet = np.argsort(opening)[: max(1, round(closed * len(opening)))]
    weight = mouth_weight(mean)[:, None]
    neutral = weight * canonical[quiet].mean(0) + (1 - weight) * np.median(canonical, 0)
    return _look_ahead(neutral.astype(np.float32))


def _gaze(canonical: np.ndarray, eye: int) -> np.ndarray:
    middle = canonical[:, tp.EYE_CORNERS[eye], :2].mean(1)
    gaze: np.ndarray = canonical[:, tp.IRIS_CENTERS[eye], :2] - middle
    return gaze


def _look_ahead(neutral: np.ndarray) -> np.ndarray:
    """Move the irises to the middle of the eyes."""
    neutral = neutral.copy()
    for eye, part in enumerate(_IRIS_SLICES):
        neutral[part, :2] -= _gaze(neutral[None], eye)[0]
    return neutral


def mouth_weight(mean: np.ndarray) -> np.ndarray:
    """How much each vertex of ``mean`` (478, 3) is the mouth's, (478,): 0 above the nose, 1 below it."""
    top, bottom = mean[5, 1], mean[2, 1]
    return smoothstep((mean[:, 1] - top) / (bottom - top)).astype(np.float32)


def _solver(basis: np.ndarray, ridge: float) -> np.ndarray:
    """Weighted ridge regression onto ``basis`` (K, 478, 3) as one matrix of the same shape.

    Coefficients have unit variance, so the ridge is in units of the mean squared length of a basis vector.
    """
    weight = np.array([1.0, 1.0, DEPTH_WEIGHT])
    flat = (basis * weight).reshape(len(basis), -1).astype(np.float64)
    gram = flat @ flat.T
    gram += ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
    solver: np.ndarray = (np.linalg.solve(gram, flat).reshape(basis.shape) * weight).astype(np.float32)
    return solver


def _solve(solver: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    return np.tensordot(displacement, solver, ([1, 2], [1, 2])).astype(np.float32)
