"""FaceMotion: how a face moves over time, in coefficients. Systems talk to renderers through it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

_WIDTHS = {"rotation": 3, "translation": 2, "scale": 1, "gaze": 4}


@dataclass(frozen=True)
class FaceMotion:
    """Motion of one face, relative to a neutral face in a reference position.

    Attributes:
        beta_mouth: (T, M) coefficients of lips, jaw and cheeks; 0 is a closed mouth at rest.
        beta_upper: (T, U) coefficients of eyelids, brows and forehead; 0 is at rest, eyes open.
        rotation: (T, 3) rotation vector in radians (x: pitch, y: yaw, z: roll), absolute: 0 faces the camera.
        translation: (T, 2) displacement from the reference in inter-ocular distances (x right, y down).
        scale: (T, 1) size over the reference's, about 1.
        gaze: (T, 4) iris displacement from the eye's middle, right x, y then left x, y, inter-ocular
            distances.
        fps: frames per second.
    """

    beta_mouth: np.ndarray
    beta_upper: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    scale: np.ndarray
    gaze: np.ndarray
    fps: float = 25.0

    def __post_init__(self) -> None:
        for name, width in _WIDTHS.items():
            array = getattr(self, name)
            if array.shape != (len(self.beta_mouth), width):
                raise ValueError(f"{name} is {array.shape}, not {(len(self.beta_mouth), width)}")

    def __len__(self) -> int:
        return len(self.beta_mouth)

    def __getitem__(self, part: slice) -> "FaceMotion":
        return self._map(lambda array: array[part])

    def _map(self, function) -> "FaceMotion":
        return FaceMotion(**{name: function(getattr(self, name)) for name in _ARRAYS}, fps=self.fps)

    @classmethod
    def concatenate(cls, parts: Sequence["FaceMotion"]) -> "FaceMotion":
        """Join stretches of the same frame rate."""
        return cls(
            **{name: np.concatenate([getattr(p, name) for p in parts]) for name in _ARRAYS}, fps=parts[0].fps
        )

    def resample(self, times: np.ndarray) -> "FaceMotion":
        """The motion at the given times (seconds from the first frame); ends are held, rotations slerped."""
        if len(self) == 1:
            return self._map(lambda array: np.repeat(array, len(times), axis=0))
        own = np.arange(len(self)) / self.fps
        clipped = np.clip(times, own[0], own[-1])
        right = np.clip(np.searchsorted(own, clipped), 1, len(own) - 1)
        weight = ((clipped - own[right - 1]) / (own[right] - own[right - 1]))[:, None]
        moved = self._map(lambda a: (a[right - 1] * (1 - weight) + a[right] * weight).astype(np.float32))
        rotation = Slerp(own, Rotation.from_rotvec(self.rotation))(clipped).as_rotvec()
        return replace(moved, rotation=rotation.astype(np.float32))

    def to_json(self, path: str | Path) -> None:
        """Write the coefficients as JSON, 5 decimals."""
        data = {name: np.round(getattr(self, name).astype(float), 5).tolist() for name in _ARRAYS}
        Path(path).write_text(json.dumps({"format": "talkface.FaceMotion/1", "fps": float(self.fps), **data}))

    @classmethod
    def from_json(cls, path: str | Path) -> "FaceMotion":
        """Read what :meth:`to_json` wrote."""
        data = json.loads(Path(path).read_text())
        arrays = {name: np.array(data[name], np.float32).reshape(len(data["scale"]), -1) for name in _ARRAYS}
        return cls(**arrays, fps=float(data["fps"]))


_ARRAYS = tuple(field.name for field in fields(FaceMotion) if field.name != "fps")
