"""FaceMotion: how a face moves over time, in coefficients. Systems talk to renderers through it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from talkface.face.coefficients import GAZE, POSE_AND_GAZE, ROTATION, SCALE, TRANSLATION

Reference = Literal["portrait", "camera"]
"""What a motion is relative to; see :class:`FaceMotion`."""
_REFERENCES = ("portrait", "camera")
_WIDTHS = {"rotation": ROTATION, "translation": TRANSLATION, "scale": SCALE, "gaze": GAZE}
_NON_LIP = ("beta_upper", *_WIDTHS)  # the order of the columns of deviations


@dataclass(frozen=True)
class FaceMotion:
    """Motion of one face, relative to a reference: everything says how far a frame is from it.

    ``reference`` says which of two it is; :meth:`relative_to_camera` converts the first to the second:

    * ``"portrait"``: a portrait's own pose, place, size and gaze. Performances are relative to it (speech to
      motion, motion files, the verbs): a rotation of 0 leaves the head as the portrait shows it.
    * ``"camera"``: a face that faces the camera and looks ahead, at the median place and of the median size
      of a clip. What is measured in pictures is relative to it (:class:`~talkface.face.model.FaceFit`).

    A frame's rotation matrix is R(rotation) R_reference, where R_reference is the identity for a face that
    faces the camera.

    Attributes:
        beta_mouth: (T, M) coefficients of lips, jaw and cheeks; 0 is a closed mouth at rest.
        beta_upper: (T, U) coefficients of eyelids, brows and forehead; 0 is at rest, eyes open.
        rotation: (T, 3) rotation vector from the reference's pose, radians, about the camera's axes
            (x: pitch, y: yaw, z: roll).
        translation: (T, 2) displacement from the reference in inter-ocular distances (x right, y down).
        scale: (T, 1) size over the reference's, about 1.
        gaze: (T, 4) displacement of the irises from the reference's, right x, y, then left x, y, in
            inter-ocular distances; from the eyes' middles where the reference looks ahead.
        fps: frames per second.
        reference: ``"portrait"`` or ``"camera"``.

    Raises:
        ValueError: an array has the wrong shape, or the reference is neither.
    """

    beta_mouth: np.ndarray
    beta_upper: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    scale: np.ndarray
    gaze: np.ndarray
    fps: float = 25.0
    reference: Reference = "portrait"

    def __post_init__(self) -> None:
        if self.reference not in _REFERENCES:
            raise ValueError(f"reference is {self.reference!r}, not one of {', '.join(_REFERENCES)}")
        for name, width in _WIDTHS.items():
            array = getattr(self, name)
            if array.shape != (len(self.beta_mouth), width):
                raise ValueError(f"{name} is {array.shape}, not {(len(self.beta_mouth), width)}")

    def __len__(self) -> int:
        return len(self.beta_mouth)

    def __getitem__(self, part: slice) -> "FaceMotion":
        return self._map(lambda array: array[part])

    def _map(self, function: Callable[[np.ndarray], np.ndarray]) -> "FaceMotion":
        mapped = {name: function(getattr(self, name)) for name in _ARRAYS}
        return FaceMotion(**mapped, fps=self.fps, reference=self.reference)

    @classmethod
    def concatenate(cls, parts: Sequence["FaceMotion"]) -> "FaceMotion":
        """Join stretches of the same frame rate and reference.

        Raises:
            ValueError: their references differ.
        """
        for part in parts:
            part.check_reference(parts[0].reference)
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS}
        return cls(**joined, fps=parts[0].fps, reference=parts[0].reference)

    def check_reference(self, expected: Reference) -> None:
        """Raise ValueError if the motion is not relative to ``expected``."""
        if self.reference != expected:
            raise ValueError(f"motion has the reference {self.reference!r}; {expected!r} is needed")

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

    def rotation_matrices(self) -> np.ndarray:
        """R(rotation) of each frame, (T, 3, 3) float64."""
        matrices: np.ndarray = Rotation.from_rotvec(self.rotation).as_matrix()
        return matrices

    def relative_to_camera(self, rotation: np.ndarray, gaze: np.ndarray) -> "FaceMotion":
        """Motion relative to a portrait as motion relative to a face that faces the camera and looks ahead.

        Translation and scale stay relative to the portrait's.

        Args:
            rotation: (3, 3) the portrait's own.
            gaze: (1, 4) the portrait's own.

        Raises:
            ValueError: the motion is relative to the camera already.
        """
        self.check_reference("portrait")
        turned = Rotation.from_rotvec(self.rotation) * Rotation.from_matrix(rotation)
        rotations = turned.as_rotvec().astype(np.float32)
        return replace(self, rotation=rotations, gaze=self.gaze + gaze, reference="camera")

    def deviations(self) -> np.ndarray:
        """All but the lips as differences from their median over time, (T, U + 10) float32.

        Columns are beta_upper, rotation, translation, scale and gaze. Rotation vectors are subtracted as
        numbers, which is close to a relative rotation for the small turns of somebody who talks.
        """
        stacked = np.concatenate([getattr(self, name) for name in _NON_LIP], 1)
        differences: np.ndarray = (stacked - np.median(stacked, 0)).astype(np.float32)
        return differences

    def to_json(self, path: str | Path) -> None:
        """Write the coefficients as JSON, 5 decimals."""
        about = {"format": "talkface.FaceMotion/1", "fps": float(self.fps), "reference": self.reference}
        data = {name: np.round(getattr(self, name).astype(float), 5).tolist() for name in _ARRAYS}
        Path(path).write_text(json.dumps({**about, **data}))

    @classmethod
    def from_json(cls, path: str | Path) -> "FaceMotion":
        """Read what :meth:`to_json` wrote; a file that names no reference is relative to a portrait."""
        data = json.loads(Path(path).read_text())
        arrays = {name: np.array(data[name], np.float32).reshape(len(data["scale"]), -1) for name in _ARRAYS}
        return cls(**arrays, fps=float(data["fps"]), reference=data.get("reference", "portrait"))


def split_deviations(stacked: np.ndarray) -> dict[str, np.ndarray]:
    """The columns (T, U + 10) of :meth:`FaceMotion.deviations` by the names of what they are."""
    widths = [stacked.shape[1] - POSE_AND_GAZE, ROTATION, TRANSLATION, SCALE]
    return dict(zip(_NON_LIP, np.split(stacked, np.cumsum(widths), axis=1), strict=True))


_ARRAYS = tuple(field.name for field in fields(FaceMotion) if field.name not in {"fps", "reference"})
