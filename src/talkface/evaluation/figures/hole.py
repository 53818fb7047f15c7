"""How close a filled-in face is to the face that was hidden, inside the hole and at its border."""

from dataclasses import dataclass, field

import numpy as np

from talkface.evaluation.figures.border import jump_ratio, jumps_beside_real
from talkface.evaluation.figures.fidelity import psnr
from talkface.systems.tccp.holes import face_hole, hole_outline

HOLE_MARGIN = 0.25  # by how much the measured hole is larger than the face's oval


@dataclass
class HoleFidelity:
    """Takes pairs of frames and gives the figures of the hole."""

    _squared: list[float] = field(default_factory=list)
    _outside: list[float] = field(default_factory=list)
    _jumps: list[np.ndarray] = field(default_factory=list)

    def add(self, real: np.ndarray, made: np.ndarray, points: np.ndarray) -> None:
        """Take pictures (H, W, 3) uint8 of one size and the real face's mesh (478, 3)."""
        hole = face_hole(points, (real.shape[1], real.shape[0]), HOLE_MARGIN) > 0
        apart = real.astype(np.float32) - made
        if hole.any():
            self._squared.append(float(np.square(apart[hole]).mean()))
        if not hole.all():
            self._outside.append(float(np.abs(apart[~hole]).mean()))
        outline = hole_outline(points, HOLE_MARGIN)
        outward = outline - outline.mean(0)
        outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-6)
        self._jumps.append(jumps_beside_real(made, real, (outline, outward), points))

    def figures(self) -> dict[str, float]:
        """``hole_psnr`` (dB), ``outside_difference`` (levels of 255), ``border`` (generated over real)."""
        if not self._squared:
            return {}
        found = {"hole_psnr": psnr(float(np.mean(self._squared))), "border": jump_ratio(self._jumps)}
        return found | ({"outside_difference": float(np.mean(self._outside))} if self._outside else {})
