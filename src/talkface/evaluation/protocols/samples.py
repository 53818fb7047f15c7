"""Some frames of a generated video beside the real ones of the same time: likeness, sharpness, pictures."""

from dataclasses import dataclass, field

import numpy as np

from talkface.evaluation.figures import picture
from talkface.evaluation.figures.steadiness import face_square
from talkface.evaluation.judges.recognisers import dlib_recogniser
from talkface.evaluation.protocols.clips import Clip, frames_at
from talkface.evaluation.report import CELL_PIXELS
from talkface.face.crop import MOUTH_REGION, cut, region_matrix

_SHOWN = 4  # sampled frames in the contact sheets


@dataclass
class SampledFrames:
    """Likeness, sharpness and pictures of some frames.

    Args:
        same_place: Whether the faces are at the same places: then the contact sheet crops both where the real
            one is.
    """

    same_place: bool
    _descriptors: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    _sharpness: list[tuple[float, float]] = field(default_factory=list)
    _cells: list[tuple[int, np.ndarray]] = field(default_factory=list)

    def add(
        self, number: int, real: tuple[np.ndarray, np.ndarray], made: tuple[np.ndarray, np.ndarray]
    ) -> None:
        """Take a real and a generated frame: pictures (H, W, 3) uint8 with their meshes (478, 3)."""
        self._sharpness.append((picture.mouth_sharpness(*real), picture.mouth_sharpness(*made)))
        if describe := dlib_recogniser():
            self._descriptors.append((describe(*real), describe(*made)))
        pair = _cell(*real), _cell(made[0], real[1] if self.same_place else made[1])
        self._cells.append((number, np.concatenate(pair, 1)))

    def figures(self) -> dict[str, float]:
        """``mouth_sharpness``, generated over real; ``csim`` and ``face_distance`` of frames at one time."""
        figures = {}
        if self._sharpness:
            real, made = np.mean(self._sharpness, 0)
            figures["mouth_sharpness"] = float(made / max(real, 1e-6))
        return figures | picture.mean_likeness(self._descriptors)

    def faces(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Descriptors (N, 128) of real and generated frames, None where there is no recogniser."""
        if not self._descriptors:
            return None
        real, made = zip(*self._descriptors, strict=True)
        return np.stack(real), np.stack(made)

    def strip(self, speech: Clip | None) -> np.ndarray:
        """A row of the contact sheet: real and generated faces, below them their mouths.

        Args:
            speech: The clip whose sound was used, if it is another one: its face is shown, too.
        """
        if not self._cells:
            return np.zeros((2 * CELL_PIXELS, 2 * CELL_PIXELS, 3), np.uint8)
        chosen = np.linspace(0, len(self._cells) - 1, _SHOWN + 2)[1:-1].round().astype(int)
        cells = [self._cells[k] for k in chosen]
        if speech is None:
            return np.concatenate([cell for _, cell in cells], 1)
        parts = []
        shown = frames_at(speech.path, [number for number, _ in cells])
        for (number, cell), frame in zip(cells, shown, strict=True):
            first, last = speech.track.frames[[0, -1]]
            mesh = speech.track.points[min(max(number, first), last) - first]
            parts += [cell, _cell(frame, mesh)]
        return np.concatenate(parts, 1)


def _cell(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The face, and below it the mouth, (320, 160, 3), with a dark line to the right."""
    face = cut(image, face_square(points, CELL_PIXELS, side=2.4), CELL_PIXELS)
    mouth = cut(image, region_matrix(points, MOUTH_REGION) * (CELL_PIXELS / MOUTH_REGION.pixels), CELL_PIXELS)
    cell = np.concatenate([face, mouth])
    cell[:, -2:] = 32
    return cell
