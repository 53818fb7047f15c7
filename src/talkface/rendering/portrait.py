"""TH-PAD's generator G in the compact preset: FaceMotion to frames of a portrait.

MeshWarp moves the portrait; the refiner draws mouth and eyes anew:

frame = Refiner(MeshWarp(portrait, mesh(motion)), f_id, f_l, f_nl)
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from talkface.face import topology as tp
from talkface.face.crop import (
    LEFT_EYE_REGION,
    MOUTH_REGION,
    RIGHT_EYE_REGION,
    cut,
    face_regions,
    face_unit,
    fineness,
    paste,
    region_matrix,
    transform,
)
from talkface.face.draw import mesh_maps
from talkface.face.model import FaceFit, FaceModel, estimate_pose
from talkface.face.motion import FaceMotion
from talkface.face.warp import move_ring, resample, resample_tensor, with_ring
from talkface.media.prefetch import prefetched
from talkface.rendering.mouth_plate import draw_plate, mouth_plate, plate_corners
from talkface.rendering.refiner import Refined, Refiner, motion_code

_MOST_TURNED = 0.45  # radians from the camera that a head approaches and never reaches
_CELLS_PER_UNIT = 110  # grid cells per inter-ocular distance: a cell is a pixel on a 512-pixel portrait


@dataclass
class Drawn:
    """A warped frame with the refiner's inputs, which then draws into it.

    Attributes:
        image: (H, W, 3) uint8.
        moved: (WARP_VERTICES, 3) its mesh with ring, pixels.
        crops, maps, matrices: of each part: warped crop (P, P, 3) uint8, mesh maps (MAP_CHANNELS, P/2, P/2),
            and affine map (2, 3) from frame to crop.
        code: (51,) motion code.
        wanted: False for a skipped frame that is drawn all the same, with its batch.
    """

    image: np.ndarray
    moved: np.ndarray
    crops: list[np.ndarray]
    maps: list[np.ndarray]
    matrices: list[np.ndarray]
    code: np.ndarray
    wanted: bool = True


class PortraitRenderer:
    """Draws one portrait in any FaceMotion.

    Args:
        image: (H, W, 3) uint8 RGB portrait.
        points: (478, 3) its tracked mesh, pixels.
        face: the 3DMM.
        refiner: the network, or None to warp only.
        device: where the refiner runs.
        dtype: of the refiner's arithmetic.
        whole: resample the whole picture, not only what is near the head: for meshes anywhere in it.
    """

    def __init__(
        self,
        image: np.ndarray,
        points: np.ndarray,
        face: FaceModel,
        refiner: Refiner | None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        whole: bool = False,
    ) -> None:
        self.image, self.face, self.device, self.dtype = image, face, torch.device(device), dtype
        self.fit: FaceFit = face.fit(points[None])
        self.warp, self._eyelids = face.mesh_warp(), face.eyelids()
        self.resting = with_ring(points)
        pose = self.fit.pose
        self._rotation, self._translation = pose.rotation[0], pose.translation[0]
        self._scale = float(pose.scale[0])
        self._canonical = (self.resting - self._translation) / self._scale @ self._rotation
        self._box = (0, 0, image.shape[1], image.shape[0]) if whole else self._moving_box()
        self._picture: Tensor | None = None  # the portrait on the GPU, which warps it there
        if self.device.type != "cpu":
            pixels = torch.from_numpy(image).to(self.device)
            self._picture = pixels.permute(2, 0, 1)[None].float()
        self._cell = max(1.0, face_unit(points) / _CELLS_PER_UNIT)
        self._corners = plate_corners(self.fit.neutral)
        self._refiner = refiner.to(self.device).eval() if refiner is not None else None
        if self._refiner is not None:
            self._prepare_references(self._refiner, points)

    def _moving_box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of what moves, within the picture: the mesh and the ring around it."""
        height, width = self.image.shape[:2]
        low, high = self.resting[:, :2].min(0), self.resting[:, :2].max(0)
        left, top = np.clip(np.floor(low), 0, [width, height]).astype(int)
        right, bottom = np.clip(np.ceil(high) + 1, 0, [width, height]).astype(int)
        return int(left), int(top), int(right), int(bottom)

    @torch.inference_mode()
    def _prepare_references(self, refiner: Refiner, points: np.ndarray) -> None:
        """The refiner's fixed inputs: the portrait's crops, their identity codes, the mouth plate."""
        self._parts = face_regions(refiner.config.pixels)  # a part's code is its index
        self._finer = fineness(refiner.config.pixels)
        density = refiner.config.pixels / (MOUTH_REGION.side * face_unit(points))
        self._shrink = min(self._finer, max(1, int(density)))
        crops = (cut(self.image, region_matrix(points, part), part.pixels) for part in self._parts)
        self._references = [self._to_tensor([crop]) for crop in crops]
        self._identity = [refiner.identity(crop) for crop in self._references]
        self._tone = _single_tone(self._references[MOUTH_REGION.code])
        corners = self._scale * (self._corners @ self._rotation.T) + self._translation
        mean_mouth = refiner.mean_mouth.cpu().numpy()
        self._plate = mouth_plate(self.image, points, corners, mean_mouth, self._finer)

    def _to_tensor(self, crops: list[np.ndarray]) -> Tensor:
        stacked = torch.from_numpy(np.stack(crops)).to(self.device)
        return stacked.permute(0, 3, 1, 2).contiguous().float() / 255

    # -- geometry --------------------------------------------------------------------------------

    def meshes(self, motion: FaceMotion) -> tuple[np.ndarray, np.ndarray]:
        """Rigid and deformed meshes with rings, (T, V, 3) pixels each.

        The motion is relative to the portrait's own pose and gaze.

        Raises:
            ValueError: its reference is not ``"portrait"``.
        """
        motion.check_reference("portrait")
        shape = self.fit.neutral + self.face.expression(self._relative_to_camera(motion))
        _close_lids(shape, self.fit.neutral, self._eyelids.openness(motion.beta_upper))
        _close_overlaps(shape)
        return self._posed(self._canonical[None], motion), self._posed(shape, motion)

    def _posed(self, shape: np.ndarray, motion: FaceMotion) -> np.ndarray:
        """Canonical points (T or 1, V, 3) in each frame's pose, (T, V, 3) pixels."""
        within = replace(motion, rotation=self._within_reach(motion.rotation))
        rotation = within.rotation_matrices() @ self._rotation
        scale = (self._scale * motion.scale)[:, :, None]
        offset = np.repeat(self._translation[None], len(motion), 0)
        offset[:, :2] += motion.translation * self._scale
        posed: np.ndarray = scale * (shape @ rotation.swapaxes(1, 2)) + offset[:, None]
        return posed.astype(np.float32)

    def _within_reach(self, rotvec: np.ndarray) -> np.ndarray:
        """Rotations (T, 3), less the more the portrait itself is turned: what it hides cannot be shown."""
        own, limit = Rotation.from_matrix(self._rotation).as_rotvec(), _MOST_TURNED
        reached: np.ndarray = limit * np.tanh((own + rotvec) / limit) - limit * np.tanh(own / limit)
        return reached.astype(np.float32)

    def _relative_to_camera(self, motion: FaceMotion) -> FaceMotion:
        """The portrait's motion, within its reach, from a face that faces the camera and looks ahead."""
        within = replace(motion, rotation=self._within_reach(motion.rotation))
        return within.relative_to_camera(self._rotation, self.fit.motion.gaze)

    # -- drawing ---------------------------------------------------------------------------------

    def frames(self, motions: Iterable[FaceMotion], batch: int = 4, skip: int = 0) -> Iterator[np.ndarray]:
        """Frames (H, W, 3) uint8 for stretches of motion, ``batch`` at a time through the refiner.

        Speech, motion and warping work ahead in a thread while the refiner is busy. The first ``skip`` frames
        are left out; the others are as they would be after them.

        Raises:
            ValueError: a motion's reference is not ``"portrait"``.
        """
        for drawn in prefetched(self._drawn(motions, batch, skip)):
            yield from (d.image for d in self._finished(drawn) if d.wanted)

    def moved(
        self, motions: Iterable[FaceMotion], batch: int = 4, skip: int = 0
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Frames as :meth:`frames` gives them, each with its mesh (478, 3)."""
        for drawn in self._drawn(motions, batch, skip):
            for one in self._finished(drawn):
                if one.wanted:
                    yield one.image, one.moved[: len(self.fit.neutral)]

    def at(self, meshes: np.ndarray, motion: FaceMotion) -> list[np.ndarray]:
        """Draw the portrait at given meshes of its own face.

        Args:
            meshes: (T, 478, 3) in pixels of a picture as large as the portrait.
            motion: of these meshes, with the reference ``"camera"``.

        Returns:
            T pictures (H, W, 3) uint8.

        Raises:
            ValueError: the motion's reference is not ``"camera"``.
        """
        motion.check_reference("camera")
        pose = estimate_pose(meshes, self.fit.neutral)
        rigid, corners = pose.apply(self._canonical), pose.apply(self._corners)
        codes = motion_code(motion.beta_mouth, motion.beta_upper, motion.gaze, motion.rotation)
        drawn = [self._draw(*row) for row in zip(rigid, meshes, codes, strict=True)]
        if self._refiner is not None:
            for one, plate in zip(drawn, corners, strict=True):
                self._cut_parts(one, plate)
        return [one.image for one in self._finished(drawn)]

    def _drawn(self, motions: Iterable[FaceMotion], batch: int, skip: int = 0) -> Iterator[list[Drawn]]:
        """Warped frames with the refiner's inputs, in batches; the first ``skip`` frames are left out."""
        before = 0  # frames of earlier stretches
        for motion in motions:
            motion.check_reference("portrait")
            past, before = skip - before, before + len(motion)
            if past >= len(motion):
                continue
            rigid, target = self.meshes(motion)
            shown = self._relative_to_camera(motion)
            codes = motion_code(shown.beta_mouth, shown.beta_upper, shown.gaze, shown.rotation)
            plates = self._posed(self._corners[None], motion) if self._refiner is not None else None
            for start in range(0, len(motion), batch):
                part = range(start, min(start + batch, len(motion)))
                if part.stop <= past:
                    continue
                drawn = [self._draw(rigid[k], target[k], codes[k]) for k in part]
                if plates is not None:
                    for k, frame in zip(part, drawn, strict=True):
                        self._cut_parts(frame, plates[k])
                # Skipped frames are drawn all the same: the batch's size changes the last bits of the others.
                for frame in drawn[: max(0, past - start)]:
                    frame.wanted = False
                yield drawn

    def _draw(self, rigid: np.ndarray, target: np.ndarray, code: np.ndarray) -> Drawn:
        """The portrait warped to a ``target`` mesh (478, 3); ``rigid`` (WARP_VERTICES, 3) places the ring."""
        moved = move_ring(self.resting, rigid, target)
        left, top, right, bottom = self._box
        width, height = right - left, bottom - top
        cells = int(np.ceil(width / self._cell)), int(np.ceil(height / self._cell))
        field = self.warp.field(self.resting, moved, cells, self._cell, (left, top))
        image = self.image.copy()
        if self._picture is None:
            resample(self.image, field, image[top:bottom, left:right])
        else:
            moved_pixels = resample_tensor(self._picture, field, width, height)[0].permute(1, 2, 0)
            image[top:bottom, left:right] = moved_pixels.round().clamp(0, 255).byte().cpu().numpy()
        return Drawn(image, moved, [], [], [], code)

    def _cut_parts(self, drawn: Drawn, plate: np.ndarray) -> None:
        """Add each part's crop, mesh maps and matrix to a frame; ``plate`` (3, 3): the plate's corners."""
        for part in self._parts:
            matrix = region_matrix(drawn.moved, part)
            goal = transform(drawn.moved, matrix)
            half = part.pixels // 2
            field = self.warp.field(self.resting, goal, (half, half), 2.0)
            maps = mesh_maps(self.warp, field, self.resting, goal)
            crop = cut(drawn.image, matrix, part.pixels)
            if part.code == MOUTH_REGION.code:
                crop = draw_plate(crop, self._plate, transform(plate, matrix), maps[3])
            drawn.matrices.append(matrix)
            drawn.crops.append(crop)
            drawn.maps.append(maps)

    def _finished(self, drawn: list[Drawn]) -> list[Drawn]:
        if self._refiner is not None:
            self._refine(self._refiner, drawn)
        return drawn

    @torch.inference_mode()
    def _refine(self, refiner: Refiner, drawn: list[Drawn]) -> None:
        """Refine all mouths of a batch, then all eyes, and paste them into the frames."""
        for codes in ([MOUTH_REGION.code], [RIGHT_EYE_REGION.code, LEFT_EYE_REGION.code]):
            rows = [(d, i) for d in drawn for i in codes]
            warped = self._to_tensor([d.crops[i] for d, i in rows])
            maps = torch.from_numpy(np.stack([d.maps[i] for d, i in rows])).to(self.device)
            given = (
                warped,
                torch.cat([self._references[i] for _, i in rows]),
                maps,
                torch.from_numpy(np.stack([d.code for d, _ in rows])).to(self.device),
                torch.tensor([i for _, i in rows], device=self.device),
                torch.cat([self._identity[i] for _, i in rows]),
            )
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                made = refiner(*given)
            refined = Refined(made.residual.float(), made.color.float(), made.mask.float())
            if self._tone is not None:
                refined = _toned(refined, *self._tone)
            layer = _layer(refined, warped, maps, self._finer)
            if self._shrink > 1:  # much finer than the picture: pasted as it is, it would alias
                layer = torch.nn.functional.avg_pool2d(layer, self._shrink)
            for (d, i), row in zip(rows, layer.permute(0, 2, 3, 1).cpu().numpy(), strict=True):
                paste(d.image, row, _shrunk(d.matrices[i], self._shrink))


def _shrunk(matrix: np.ndarray, by: int) -> np.ndarray:
    """Affine map (2, 3) to the pixels of a crop that was reduced ``by`` times by averaging."""
    smaller = matrix / by
    smaller[:, 2] -= (by - 1) / (2 * by)
    return smaller


def _single_tone(crop: Tensor, tolerance: float = 3.5 / 255) -> tuple[Tensor, Tensor] | None:
    """Slope and offset (1, 3, 1, 1) from grey to colour of a monochrome crop (1, 3, H, W); None of others."""
    grey = crop.mean(1).flatten()
    basis = torch.stack([grey, torch.ones_like(grey)], 1)
    pixels = crop[0].flatten(1).T
    slope, offset = torch.linalg.lstsq(basis, pixels).solution
    apart = (basis @ torch.stack([slope, offset]) - pixels).square().mean().sqrt()
    return (slope.view(1, 3, 1, 1), offset.view(1, 3, 1, 1)) if apart < tolerance else None


def _toned(refined: Refined, slope: Tensor, offset: Tensor) -> Refined:
    """Output in the portrait's single tone: the refiner was trained on faces in colour only."""
    residual = refined.residual.mean(1, keepdim=True) * slope
    return Refined(residual, refined.color.mean(1, keepdim=True) * slope + offset, refined.mask)


def _layer(refined: Refined, warped: Tensor, maps: Tensor, finer: int) -> Tensor:
    """Layers (B, 4, H, W) to paste: colour to add, 0 to 255, and the share of the picture it replaces."""
    between = torch.nn.functional.interpolate(maps[:, 3:4], scale_factor=2.0, mode="bilinear")
    plate = (1 - refined.mask) * between  # between the lips the crop shows the plate, the frame does not
    add = (1 - refined.mask) * refined.residual + refined.mask * refined.color + plate * warped
    return _feather(maps[:, 6:7], finer) * torch.cat([add * 255, refined.mask + plate], 1)


def _feather(face: Tensor, finer: int) -> Tensor:
    """Soft weight (B, 1, 2H, 2W) that is 0 at the crop's border and off the face (B, 1, H, W)."""
    size, reach = face.shape[-1], 2 * finer
    inner = -torch.nn.functional.max_pool2d(-face, 2 * reach + 1, 1, reach)
    soft = torch.nn.functional.avg_pool2d(inner, 2 * reach + 1, 1, reach)
    ramp = torch.linspace(0, size - 1, size, device=face.device)
    ramp = (torch.minimum(ramp, size - 1 - ramp) / (size * 0.12)).clamp(0, 1)
    window = ramp[:, None] * ramp[None]
    return torch.nn.functional.interpolate(soft * window, scale_factor=2.0, mode="bilinear")


def _close_lids(shape: np.ndarray, neutral: np.ndarray, openness: np.ndarray) -> None:
    """Close this person's eyes, in place: the coefficients are made to close those of the mean face.

    Args:
        shape: (T, 478, 3) moved faces.
        neutral: (478, 3) the face at rest.
        openness: (T,) of the lids, 1 open and 0 closed.
    """
    shut = np.clip(1 - openness, 0.0, 1.0)[:, None]
    for upper, lower in tp.LID_EDGES:
        gap = (1 - shut) * (neutral[lower, 1] - neutral[upper, 1])
        surplus = shut * (shape[:, lower, 1] - shape[:, upper, 1] - gap)
        shape[:, upper, 1] += 0.85 * surplus
        shape[:, lower, 1] -= 0.15 * surplus


def _close_overlaps(shape: np.ndarray) -> None:
    """Lips and lids that would pass through each other meet instead, in place, canonical (T, 478, 3)."""
    pairs = [(tp.LIPS_INNER_UPPER, tp.LIPS_INNER_LOWER, 0.5), *((u, low, 0.15) for u, low in tp.LID_EDGES)]
    for upper, lower, share in pairs:
        overlap = np.maximum(shape[:, upper, 1] - shape[:, lower, 1], 0.0)
        shape[:, upper, 1] -= (1 - share) * overlap
        shape[:, lower, 1] += share * overlap
