"""Draws new lips into the frames of a video, in place.

MeshWarp moves the jaw at the frame's own resolution; the generator draws the mouth from reference frames of
the same person. Pixels outside of the lower face do not change.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

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
from talkface.systems.g4g.model import Generator, GeneratorInputs, GeneratorOutput
from talkface.systems.g4g.references import Chooser, features

_CELLS_PER_UNIT = 48  # grid cells of the warp per inter-ocular distance
_COARSEST = 4.0  # largest cell, pixels; OpenCV places pixels to a 32nd of it


@dataclass(frozen=True)
class Bank:
    """Reference frames of one person.

    Attributes:
        references: K crops with their meshes.
        pictures: K lower faces at the video's own resolution, (H, W, 3) uint8.
        matrices: K affine maps (2, 3) from the pixels of the crops to those of the pictures.
        described: (K, F) features by which they are chosen
            (:func:`~talkface.systems.g4g.references.features`).
        times: (K,) seconds at which they were seen.
    """

    references: list[Reference]
    pictures: list[np.ndarray]
    matrices: list[np.ndarray]
    described: np.ndarray
    times: np.ndarray


@dataclass
class FaceEdit:
    """A change of one face in one frame.

    Attributes:
        image: (H, W, 3) uint8 the frame; it is drawn into.
        points: (478, 3) the mesh of the face as it is, pixels.
        goal: (478, 3) the mesh as it is to be.
        rotation: (3,) rotation vector of the head, radians.
        target: what the lips are to do, and the speech around this moment.
        time: seconds in the source video.
        strength: opacity of the new mouth, 0 to 1.
        keep: (H, W) float32 or None: 1 where something covers the face and the frame stays as it is.
    """

    image: np.ndarray
    points: np.ndarray
    goal: np.ndarray
    rotation: np.ndarray
    target: LipTarget
    time: float
    strength: float = 1.0
    keep: np.ndarray | None = None


@dataclass
class PreparedEdit:
    """An edit with what the generator is given for it.

    Attributes:
        edit: whose jaw is moved already.
        matrix: affine map (2, 3) from frame to mouth crop.
        chosen: indices of its references in the bank.
        inputs: of the generator.
    """

    edit: FaceEdit
    matrix: np.ndarray
    chosen: list[int]
    inputs: FrameInputs


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

    def draw(self, edits: Sequence[PreparedEdit]) -> None:
        """Draw the mouths of frames that :meth:`prepare` prepared, in place."""
        with torch.inference_mode(), shared_cores():
            inputs, remembered = self._batch(edits)
            drawn = self.generator(inputs, remembered)
        for index, prepared in enumerate(edits):
            self._paste(prepared, drawn, index)

    # -- before the generator --------------------------------------------------------------------

    def prepare(self, edit: FaceEdit) -> PreparedEdit:
        """Move the jaw of a frame, in place, and cut out what the generator needs.

        To be called for one frame after the other: the choice of references depends on the last one.
        """
        resting = with_ring(edit.points)
        moved = move_ring(resting, resting, edit.goal)
        self._move_jaw(edit, resting, moved)
        matrix = mouth_matrix(moved, self.pixels)
        goal = transform(moved, matrix)
        crop = cut(edit.image, matrix, self.pixels)
        shape = mouth_shape(self.face, edit.target.beta_mouth)
        chosen = self._choose(features(shape, edit.rotation), edit.time)
        references = [self.bank.references[k] for k in chosen]
        covered = cut(edit.keep, matrix, self.pixels) if edit.keep is not None else None
        inputs = prepare(self.warp, crop, goal, references, self.generator.config.seeded, covered)
        return PreparedEdit(edit, matrix, chosen, inputs)

    def _move_jaw(self, edit: FaceEdit, resting: np.ndarray, moved: np.ndarray) -> None:
        """Warp the frame's lower face, in place, from mesh ``resting`` to ``moved``, with rings."""
        height, width = edit.image.shape[:2]
        outline = lower_face_outline(edit.points)
        left, top = np.clip(np.floor(outline.min(0)), 0, [width, height]).astype(int)
        right, bottom = np.clip(np.ceil(outline.max(0)) + 1, 0, [width, height]).astype(int)
        if right <= left or bottom <= top:
            return
        offset = np.array([left, top, 0], np.float32)
        mask = lower_face_mask(edit.points - offset, (right - left, bottom - top))
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            return
        top, bottom = top + rows[0], top + rows[-1] + 1
        left, right = left + columns[0], left + columns[-1] + 1
        mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        cell = float(np.clip(face_unit(edit.points) / _CELLS_PER_UNIT, 1.0, _COARSEST))
        cells = int(np.ceil((right - left) / cell)), int(np.ceil((bottom - top) / cell))
        field = self.warp.field(resting, moved, cells, cell, (float(left), float(top)))
        region = edit.image[top:bottom, left:right]
        warped = np.empty_like(region)
        resample(edit.image, field, warped)
        if edit.keep is not None:
            # Neither draw over what covers the face, nor draw it a second time beside itself.
            x, y = field.dense(right - left, bottom - top)
            fetched = cv2.remap(edit.keep, x, y, cv2.INTER_LINEAR)
            mask = mask * (1 - np.maximum(edit.keep[top:bottom, left:right], fetched))
        alpha = mask[..., None]
        blended = region + alpha * (warped.astype(np.float32) - region)
        region[:] = (blended + 0.5).astype(np.uint8)

    def _batch(self, edits: Sequence[PreparedEdit]) -> tuple[GeneratorInputs, list[Tensor]]:
        """The generator's inputs, and features of the references (B, R, C, H, W) at every scale."""
        frames = [prepared.inputs for prepared in edits]
        targets = [prepared.edit.target for prepared in edits]
        rotations = np.stack([prepared.edit.rotation for prepared in edits])
        arrays = {
            "context": _planes(np.stack([frame.context for frame in frames])),
            "hidden": np.stack([frame.hidden for frame in frames])[:, None],
            "maps": np.stack([frame.maps for frame in frames]),
            "mesh": mesh_code(np.stack([target.beta_mouth for target in targets]), rotations),
            "grids": np.stack([frame.grids for frame in frames]).astype(np.float32),
            "seeds": _planes(np.stack([frame.seeds for frame in frames])),
            "content": np.stack([target.content for target in targets]),
            "level": np.stack([target.level for target in targets]),
        }
        chosen = torch.tensor([prepared.chosen for prepared in edits], device=self.device)
        tensors = {name: self._tensor(array) for name, array in arrays.items()}
        inputs = GeneratorInputs(**tensors, references=self._crops[chosen])
        assert {f.name for f in fields(GeneratorInputs)} == tensors.keys() | {"references"}
        return inputs, [features_[chosen] for features_ in self._remembered]

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    # -- after it --------------------------------------------------------------------------------

    def _paste(self, prepared: PreparedEdit, drawn: GeneratorOutput, index: int) -> None:
        """Compose row ``index`` of what was drawn at the frame's own resolution, in place."""
        edit = prepared.edit
        spot = _Spot.of(prepared.inputs.hidden, prepared.matrix, edit.image.shape)
        if spot is None:
            return

        def resampled(maps: Tensor) -> np.ndarray:
            return spot.maps(_rows(maps[index].float().cpu().numpy()))

        mouth, weights = resampled(drawn.residual), resampled(drawn.weights)
        for place in range(len(prepared.chosen)):
            mouth += weights[..., place, None] * self._seed(prepared, spot, place)
        mask, alpha = np.split(resampled(torch.cat([drawn.mask, drawn.alpha], 1)), 2, 2)
        mouth += mask * (resampled(drawn.color) - mouth)
        alpha = alpha * edit.strength
        if edit.keep is not None:
            alpha *= 1 - edit.keep[spot.rows, spot.columns, None]
        region = edit.image[spot.rows, spot.columns]
        blended = region + alpha * (255 * mouth - region)
        np.clip(blended, 0, 255, out=blended)
        region[:] = (blended + 0.5).astype(np.uint8)

    def _seed(self, prepared: PreparedEdit, spot: "_Spot", place: int) -> np.ndarray:
        """The ``place``-th reference, warped at its full resolution, (h, w, 3) float32 in [0, 1]."""
        index, pixels = prepared.chosen[place], self.pixels
        crop = (prepared.inputs.grids[place] + 1) * (pixels / 2) - 0.5
        matrix = self.bank.matrices[index]
        there = spot.maps((crop @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32), finer=0.5)
        stride = np.sqrt(abs(np.linalg.det(matrix[:, :2]) * np.linalg.det(spot.matrix[:, :2])))
        picture, scale = self._picture(index, max(1, round(float(stride))))
        there = (there + 0.5) * scale - 0.5
        no_map, border = cast(Any, None), cv2.BORDER_REPLICATE  # OpenCV's stubs ask for two maps
        seed: np.ndarray = cv2.remap(picture, there, no_map, cv2.INTER_CUBIC, borderMode=border)
        seed = seed * (prepared.inputs.gains[place] / 255)
        return seed

    def _picture(self, index: int, shrink: int) -> tuple[np.ndarray, np.ndarray]:
        """A reference's picture, reduced ``shrink`` times by area against aliasing, and the scale (2,)."""
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
        """The part of a frame that a crop's mask covers; None if it lies outside.

        Args:
            hidden: (P, P) the mask, 0 where nothing is drawn.
            matrix: affine map (2, 3) from frame to crop.
            shape: of the frame, height and width first.
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
        """Resample maps of a crop to this rectangle.

        Args:
            maps: (h, w, C) float32.
            finer: their side over that of the crop.

        Returns:
            (H, W, C) float32.
        """
        channels = maps.shape[2]
        if channels > 4:  # OpenCV takes no more
            parts = np.split(maps, range(4, channels, 4), 2)
            return np.concatenate([self.maps(part, finer) for part in parts], 2)
        matrix = finer * self.matrix
        matrix[:, 2] += (finer - 1) / 2
        shrink = int(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
        if shrink > 1:  # by area: details finer than the frame's pixels would flicker
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
