"""Compression of meshes: place, size and turn, principal components, and a quantised residual.

Meshes are turned upright and scaled to a face's size of 1. A tracker's network gives shapes of few
dimensions, so that components leave little over. Coefficients and residual are rounded to 1/800 of a face's
size, a tenth of what trackers tremble by.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from talkface.face import topology as tp
from talkface.face.crop import face_unit

STEP = 1 / 800  # of a face's size
_COMPONENTS, _MOST = 96, 6000
_NOSE, _RIGHT, _LEFT = 1, 33, 263
_POINTS = tp.VERTICES


@dataclass(frozen=True)
class MeshCodec:
    """Mean (478 * 3,) and components (K, 478 * 3) of upright meshes, float16 as they are kept."""

    mean: np.ndarray
    components: np.ndarray

    @classmethod
    def of(cls, meshes: np.ndarray) -> "MeshCodec":
        """The codec that suits meshes (N, 478, 3) best."""
        chosen = meshes[np.linspace(0, len(meshes) - 1, min(_MOST, len(meshes))).astype(int)]
        flat = _upright(chosen)[0].reshape(len(chosen), -1)
        mean = flat.mean(0)
        around = flat - mean
        _, vectors = np.linalg.eigh(around.T @ around)
        components = vectors[:, ::-1][:, : min(_COMPONENTS, len(chosen))].T
        # Eigenvectors have no sign of their own, but the same meshes are to give the same bytes.
        largest = components[np.arange(len(components)), np.abs(components).argmax(1)]
        components = components * np.sign(largest)[:, None]
        return cls(mean.astype(np.float16), components.astype(np.float16))

    def encode(self, meshes: np.ndarray) -> dict[str, np.ndarray]:
        """Arrays of whole numbers, and each mesh's place, size and turn, of meshes (N, 478, 3)."""
        upright, place = _upright(meshes)
        rest = upright.reshape(len(meshes), -1) - self.mean.astype(np.float64)
        basis = self.components.astype(np.float64)
        values = np.round(rest @ basis.T / STEP)
        lacking = np.round((rest - values * STEP @ basis) / STEP)
        # Frames are like those before them: differences are smaller than values.
        return {
            "place": place.astype(np.float32),
            "values": np.diff(values, axis=0, prepend=0 * values[:1]).astype(np.int32),
            "lacking": lacking.astype(np.int16),
        }

    def decode(self, kept: Mapping[str, np.ndarray]) -> np.ndarray:
        """Meshes (N, 478, 3) float32 of what :meth:`encode` gave."""
        values = np.cumsum(kept["values"].astype(np.float64), 0)
        flat = self.mean + (values @ self.components.astype(np.float64) + kept["lacking"]) * STEP
        return _turned(flat.reshape(-1, _POINTS, 3), kept["place"].astype(np.float64))


def _upright(meshes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Meshes about the nose, upright, of size 1; and (N, 4) nose x, y, and size times turn as x, y."""
    meshes = meshes.astype(np.float64)
    nose = meshes[:, _NOSE, :2].astype(np.float32).astype(np.float64)
    axis = meshes[:, _LEFT, :2] - meshes[:, _RIGHT, :2]
    size = np.array([face_unit(mesh) for mesh in meshes])[:, None]
    turn = (axis / np.maximum(np.linalg.norm(axis, axis=1, keepdims=True), 1e-6) * size).astype(np.float32)
    place = np.concatenate([nose, turn.astype(np.float64)], 1)
    return _complex(meshes, place, inverse=True), place


def _turned(upright: np.ndarray, place: np.ndarray) -> np.ndarray:
    return _complex(upright, place, inverse=False).astype(np.float32)


def _complex(points: np.ndarray, place: np.ndarray, inverse: bool) -> np.ndarray:
    """A similarity of x and y, as complex numbers; depth is scaled alike."""
    nose, turn = (place[:, k] + 1j * place[:, k + 1] for k in (0, 2))
    flat, size = points[..., 0] + 1j * points[..., 1], np.abs(turn)[:, None]
    moved = (flat - nose[:, None]) / turn[:, None] if inverse else flat * turn[:, None] + nose[:, None]
    depth = points[..., 2] / size if inverse else points[..., 2] * size
    return np.stack([moved.real, moved.imag, depth], -1)
