"""Draws new lips into the frames of a video, in place.

The jaw is moved by MeshWarp at the frame's own resolution; the mouth is drawn by the generator from reference
frames of the same person; everything outside of the lower face stays as it is, to the bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np
import torch
from torch import Tensor

from talkface.face.crop import cut, face_unit, transform
from talkface.face.masks import lower_face_mask, lower_face_outline
from talkface.face.model import FaceModel
from talkface.face.warp import MeshWarp, move_ring, resample, with_ring
from talkface.nn.threads import shared_cores
from talkface.performance.lip_track import LipTarget
from talkface.systems.g4g.drawing import FrameInputs, Reference, mouth_matrix, prepare
from talkface.systems.g4g.geometry import mesh_code, mouth_shape
from talkface.systems.g4g.model import GeneratorOutput, Generator, GeneratorInputs
from talkface.systems.g4g.references import Chooser, features

_CELLS_PER_UNIT = 48  # grid cells of the warp per inter-ocular distance
_COARSEST = 4.0  # pixels of a cell; OpenCV places pixels to a 32nd of it


@dataclass(frozen=True)
class Bank:
    """Reference frames of one person.

    Attributes:
        references: K crops with their meshes.
        pictures: K lower faces at the video's own resolution, (H, W, 3) uint8.
        matrices: K affine maps (2, 3) from the pixels of the crops to those of the pictures.
        described: (K, F) features by which they are chosen.
        times: (K,) seconds at which they were seen.
    """

    references: list[Reference]
    pictures: list[np.ndarray]
    matrices: list[np.ndarray]
    described: np.ndarray
    times: np.ndarray


@dataclass
class FaceEdit:
    """One face in one frame: where it is, where it is to be, and what is said.

    Attributes:
        image: (H, W, 3) uint8 the frame; drawn into.
        points: (478, 3) the face as it is, pixels.
        goal: (478, 3) as it is to be.
        rotation: (3,) its rotation vector, radians.
        wanted: what the speech wants.
        time: seconds in the source video.
        strength: 1 draws the mouth, 0 leaves it.
        keep: (H, W) float32 or None: 1 where something covers the face and the frame stays as it is.
    """

    image: np.ndarray
    points: np.ndarray
    goal: np.ndarray
    rotation: np.ndarray
    wanted: LipTarget
    time: float
    strength: float = 1.0
    keep: np.ndarray | None = None


@dataclass
class PreparedEdit:
    """A job with what the generator is given for it."""

    job: FaceEdit
    matrix: np.ndarray
    crop: np.ndarray
    goal: np.ndarray
    chosen: list[int]
    prepared: FrameInputs


class MouthRenderer:
    """Draws mouths of one person.

    Args:
        face: the 3DMM.
        generator: the network.
        bank: reference frames of the person.
        device: where the generator runs.
    """

    def __init__(
        self, face: FaceModel, generator: Generator, bank: Bank, device: str | torch.device = "cpu"
    ) -> None:
        self.face, self.bank, self.device = face, bank, torch.device(device)
        self.warp: MeshWarp = face.mesh_warp()
        self.generator, self.pixels = generator.to(self.device).eval(), generator.config.pixels
        self._smaller: dict[tuple[int, int], np.ndarray] = {}
        self._choose = Chooser(bank.described, bank.times, generator.config.references)
        with torch.inference_mode():
            crops = np.stack([reference.crop for reference in bank.references])
            self._crops = self._tensor(_planes(crops.astype(np.float32) / 255))
            self._remembered = self.generator.remember(self._crops)

    def draw(self, cuts: Sequence[PreparedEdit]) -> None:
        """Draw the mouths of some frames for which :meth:`cut` was called, in place."""
        with torch.inference_mode(), shared_cores():
            inputs, remembered = self._batch(cuts)
            drawn = self.generator(inputs, remembered)
        for index, piece in enumerate(cuts):
            self._paste(piece, drawn, index)

    # -- before the generator --------------------------------------------------------------------

    def cut(self, job: FaceEdit) -> PreparedEdit:
        """Move the jaw of a frame, in place, and cut out what the generator needs; frame after frame."""
        resting = with_ring(job.points)
        moved = move_ring(resting, resting, job.goal)
        self._move_jaw(job, resting, moved)
        matrix = mouth_matrix(moved, self.pixels)
        goal = transform(moved, matrix)
        crop = cut(job.image, matrix, self.pixels)
        shape = mouth_shape(self.face, job.wanted.beta_mouth)
        chosen = self._choose(features(shape, job.rotation), job.time)
        references = [self.bank.references[k] for k in chosen]
        covered = cut(job.keep, matrix, self.pixels) if job.keep is not None else None
        prepared = prepare(self.warp, crop, goal, references, self.generator.config.seeded, covered)
        return PreparedEdit(job, matrix, crop, goal, chosen, prepared)

    def _move_jaw(self, job: FaceEdit, resting: np.ndarray, moved: np.ndarray) -> None:
        """Warp the lower face of the frame itself, in place; nothing else changes."""
        height, width = job.image.shape[:2]
        outline = lower_face_outline(job.points)
        left, top = np.clip(np.floor(outline.min(0)), 0, [width, height]).astype(int)
        right, bottom = np.clip(np.ceil(outline.max(0)) + 1, 0, [width, height]).astype(int)
        if right <= left or bottom <= top:
            return
        offset = np.array([left, top, 0], np.float32)
        mask = lower_face_mask(job.points - offset, (right - left, bottom - top))
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            return
        top, bottom = top + rows[0], top + rows[-1] + 1
        left, right = left + columns[0], left + columns[-1] + 1
        mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        cell = float(np.clip(face_unit(job.points) / _CELLS_PER_UNIT, 1.0, _COARSEST))
        cells = int(np.ceil((right - left) / cell)), int(np.ceil((bottom - top) / cell))
        field = self.warp.field(resting, moved, cells, cell, (float(left), float(top)))
        region = job.image[top:bottom, left:right]
        warped = np.empty_like(region)
        resample(job.image, field, warped)
        if job.keep is not None:  # nor may what covers the face be drawn a second time beside itself
            x, y = field.dense(right - left, bottom - top)
            fetched = cv2.remap(job.keep, x, y, cv2.INTER_LINEAR)
            mask = mask * (1 - np.maximum(job.keep[top:bottom, left:right], fetched))
        alpha = mask[..., None]
        blended = region + alpha * (warped.astype(np.float32) - region)
        region[:] = (blended + 0.5).astype(np.uint8)

    def _batch(self, cuts: Sequence[PreparedEdit]) -> tuple[GeneratorInputs, list[Tensor]]:
        prepared = [piece.prepared for piece in cuts]
        wanted = [piece.job.wanted for piece in cuts]
        rotations = np.stack([piece.job.rotation for piece in cuts])
        arrays = {
            "context": _planes(np.stack([p.context for p in prepared])),
            "hidden": np.stack([p.hidden for p in prepared])[:, None],
            "maps": np.stack([p.maps for p in prepared]),
            "mesh": mesh_code(np.stack([w.beta_mouth for w in wanted]), rotations),
            "grids": np.stack([p.grids for p in prepared]).astype(np.float32),
            "seeds": _planes(np.stack([p.seeds for p in prepared])),
            "content": np.stack([w.content for w in wanted]),
            "level": np.stack([w.level for w in wanted]),
        }
        chosen = torch.tensor([piece.chosen for piece in cuts], device=self.device)
        tensors = {name: self._tensor(array) for name, array in arrays.items()}
        inputs = GeneratorInputs(**tensors, references=self._crops[chosen])
        assert {f.name for f in fields(GeneratorInputs)} == tensors.keys() | {"references"}
        return inputs, [features_[chosen] for features_ in self._remembered]

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    # -- after it --------------------------------------------------------------------------------

    def _paste(self, piece: PreparedEdit, drawn: GeneratorOutput, index: int) -> None:
        """Put a mouth together at the frame's own resolution, in place."""
        spot = _Spot.of(piece.prepared.hidden, piece.matrix, piece.job.image.shape)
        if spot is None:
            return
        take = lambda t: spot.maps(_rows(t[index].float().cpu().numpy()))  # noqa: E731
        mouth, weights = take(drawn.residual), take(drawn.weights)
        for place in range(len(piece.chosen)):
            mouth += weights[..., place, None] * self._seed(piece, spot, place)
        mask, alpha = np.split(take(torch.cat([drawn.mask, drawn.alpha], 1)), 2, 2)
        mouth += mask * (take(drawn.color) - mouth)
        alpha = alpha * piece.job.strength
        if piece.job.keep is not None:
            alpha *= 1 - piece.job.keep[spot.rows, spot.columns, None]
        region = piece.job.image[spot.rows, spot.columns]
        blended = region + alpha * (255 * mouth - region)
        np.clip(blended, 0, 255, out=blended)
        region[:] = (blended + 0.5).astype(np.uint8)

    def _seed(self, piece: PreparedEdit, spot: "_Spot", place: int) -> np.ndarray:
        """A reference in place, from its own picture at full resolution, (h, w, 3) float32 in [0, 1]."""
        index, pixels = piece.chosen[place], self.pixels
        crop = (piece.prepared.grids[place] + 1) * (pixels / 2) - 0.5
        matrix = self.bank.matrices[index]
        there = spot.maps((crop @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32), finer=0.5)
        stride = np.sqrt(abs(np.linalg.det(matrix[:, :2]) * np.linalg.det(spot.matrix[:, :2])))
        picture, scale = self._picture(index, max(1, round(float(stride))))
        there = (there + 0.5) * scale - 0.5
        border = cv2.BORDER_REPLICATE
        seed = cv2.remap(picture, there, None, cv2.INTER_CUBIC, borderMode=border)  # type: ignore[call-overload]
        return seed * (piece.prepared.gains[place] / 255)

    def _picture(self, index: int, shrink: int) -> tuple[np.ndarray, np.ndarray]:
        """A reference's picture made smaller by area, and by how much (2,): larger ones would shimmer."""
        picture = self.bank.pictures[index]
        if shrink == 1:
            return picture, np.ones(2, np.float32)
        if (index, shrink) not in self._smaller:
            size = [max(1, side // shrink) for side in picture.shape[1::-1]]
            self._smaller[index, shrink] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        small = self._smaller[index, shrink]
        return small, (np.array(small.shape[1::-1]) / picture.shape[1::-1]).astype(np.float32)


@dataclass(frozen=True)
class _Spot:
    """The rectangle of a frame into which a mouth is drawn.

    Attributes:
        rows, columns: of the frame.
        matrix: affine map (2, 3) from the rectangle's pixels to those of the crop.
    """

    rows: slice
    columns: slice
    matrix: np.ndarray

    @classmethod
    def of(cls, hidden: np.ndarray, matrix: np.ndarray, shape: tuple[int, ...]) -> "_Spot | None":
        """Where what is hidden (P, P) of a crop lies in a frame (H, W, ...); None if nowhere.

        Args:
            hidden: 0 where nothing is drawn.
            matrix: affine map (2, 3) from frame to crop.
            shape: of the frame.
        """
        y, x = np.nonzero(hidden)
        if not len(x):
            return None
        corners = np.array([[a, b] for a in (x.min() - 1, x.max() + 1) for b in (y.min() - 1, y.max() + 1)])
        there = cv2.transform(corners[None].astype(np.float64), cv2.invertAffineTransform(matrix))[0]
        limits = np.array(shape[1::-1])
        left, top = np.clip(np.floor(there.min(0)), 0, limits).astype(int)
        right, bottom = np.clip(np.ceil(there.max(0)) + 1, 0, limits).astype(int)
        if right <= left or bottom <= top:
            return None
        local = matrix.copy()
        local[:, 2] += matrix[:, :2] @ [left, top]
        return cls(slice(top, bottom), slice(left, right), local)

    def maps(self, maps: np.ndarray, finer: float = 1.0) -> np.ndarray:
        """Maps (h, w, C) of a crop in this rectangle (H, W, C).

        They have ``finer`` times as many places a side as the crop has pixels.
        """
        channels = maps.shape[2]
        if channels > 4:  # more than OpenCV takes
            parts = np.split(maps, range(4, channels, 4), 2)
            return np.concatenate([self.maps(part, finer) for part in parts], 2)
        matrix = finer * self.matrix
        matrix[:, 2] += (finer - 1) / 2
        shrink = int(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
        if shrink > 1:  # by area: what is finer than the frame would flicker
            small = maps.shape[1] // shrink, maps.shape[0] // shrink
            scale = (np.array(small) / maps.shape[1::-1])[:, None]
            maps = cv2.resize(np.ascontiguousarray(maps), small, interpolation=cv2.INTER_AREA)
            matrix = scale * matrix
            matrix[:, 2] += (scale[:, 0] - 1) / 2
        size = self.columns.stop - self.columns.start, self.rows.stop - self.rows.start
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        there = cv2.warpAffine(maps, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return there.reshape(size[1], size[0], channels)


def _planes(pictures: np.ndarray) -> np.ndarray:
    """(..., H, W, 3) to (..., 3, H, W)."""
    return np.moveaxis(pictures, -1, -3)


def _rows(planes: np.ndarray) -> np.ndarray:
    """(C, H, W) to (H, W, C)."""
    return np.moveaxis(planes, 0, -1)
