"""MeshWarp: moves the pixels of a picture from one mesh to another, at any resolution.

Inside the mesh the map is affine per triangle. Around it a ring of vertices follows the head's pose (and,
close to the face, its expression) and fades out into a still background. The map from target to source is
evaluated on a coarse grid (a cell is a few pixels; within a triangle it is exact) and enlarged, so that cost
hardly grows with the size of the picture.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import cv2
import numpy as np
import torch
from torch.nn import functional

from talkface.face import topology as tp
from talkface.face.ramp import smoothstep

# Radii of the rings in units of the face oval's own, from close to the face to where nothing moves.
RADII = np.array([1.06, 1.14, 1.24, 1.36, 1.5, 1.68, 1.9, 2.2, 2.6])
_OVAL = len(tp.FACE_OVAL)
WARP_VERTICES = tp.VERTICES + _OVAL * len(RADII)


def ring_weights() -> tuple[np.ndarray, np.ndarray]:
    """How much ring vertices follow the head's pose and the nearest vertex's expression, each (rings, 36).

    Hair above the face moves with the head up to 1.7 radii, ears to 1.3; the neck gives way sooner.
    """
    angle = 2 * np.pi * np.arange(_OVAL) / _OVAL  # 0 is the top of the forehead, pi the chin
    up = (1 + np.cos(angle)) / 2
    hold = 1.1 + 0.45 * up
    end = 1.9 + 0.7 * up
    pose = 1 - smoothstep((RADII[:, None] - hold) / (end - hold))
    pose[-1] = 0.0
    expression = np.repeat((1 - smoothstep((RADII - 1.0) / 0.5))[:, None], _OVAL, axis=1)
    return pose.astype(np.float32), expression.astype(np.float32)


def ring_triangles() -> np.ndarray:
    """Triangles (N, 3) of the strips between the oval and the rings."""
    loops = [tp.FACE_OVAL, *(tp.VERTICES + _OVAL * k + np.arange(_OVAL) for k in range(len(RADII)))]
    triangles = []
    for inner, outer in pairwise(loops):
        following = np.roll(np.arange(_OVAL), -1)
        triangles.append(np.stack([inner, outer, inner[following]], 1))
        triangles.append(np.stack([outer, outer[following], inner[following]], 1))
    return np.concatenate(triangles)


def with_ring(points: np.ndarray) -> np.ndarray:
    """Add ring vertices to a mesh at rest, (478, 3) -> (WARP_VERTICES, 3), pixels."""
    oval = points[tp.FACE_OVAL]
    center = (oval.max(0) + oval.min(0)) / 2
    rings = center + RADII[:, None, None] * (oval - center)
    rings[..., 2] = oval[None, :, 2]
    return np.concatenate([points, rings.reshape(-1, 3)]).astype(np.float32)


def move_ring(source: np.ndarray, rigid: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Ring vertices of a moved face.

    Args:
        source: (WARP_VERTICES, 3) the resting mesh with its ring, pixels.
        rigid: (WARP_VERTICES, 3) the same moved by the head's pose alone.
        target: (478, 3) the moved face with its expression.

    Returns:
        (WARP_VERTICES, 3) target with ring.
    """
    pose, expression = ring_weights()
    ring = slice(tp.VERTICES, None)
    shape = (len(RADII), _OVAL, 1)
    deformation = (target - rigid[: tp.VERTICES])[tp.FACE_OVAL]
    moved = source[ring] + pose.reshape(-1, 1) * (rigid[ring] - source[ring])
    moved += (expression.reshape(shape) * deformation[None]).reshape(-1, 3)
    return np.concatenate([target, moved])


def triangulate(open_face: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Triangles of the face seen from the front, with open mouth and eyes so that lips and lids stay apart.

    Args:
        open_face: (478, 3) canonical mesh.

    Returns:
        skin: (N, 3), and inner: (M, 3) the triangles that fill the mouth and the eyes.
    """
    from scipy.spatial import Delaunay

    layout = open_face[:, :2].astype(np.float64)
    for contour in (tp.LIPS_INNER, tp.RIGHT_EYE, tp.LEFT_EYE):
        # The next ring of points all but coincides with these: apart, no triangle can cross the edge.
        middle = layout[contour].mean(0)
        layout[contour] += 0.2 * (middle - layout[contour])
    for iris in (slice(468, 473), slice(473, 478)):  # lids hide its top and bottom: keep it between them
        layout[iris] = layout[iris.start] + 0.3 * (layout[iris] - layout[iris.start])
    middle = layout[tp.FACE_OVAL].mean(0)
    layout[tp.FACE_OVAL] += 0.15 * (layout[tp.FACE_OVAL] - middle)  # outermost: the ring joins without a gap
    triangles = Delaunay(layout).simplices
    irises = np.arange(tp.FACE_VERTICES, tp.VERTICES)
    groups = [tp.LIPS_INNER, np.append(tp.RIGHT_EYE, irises[:5]), np.append(tp.LEFT_EYE, irises[5:])]
    inner = np.any([np.isin(triangles, group).all(1) for group in groups], axis=0)
    inside = _inside_oval(layout[triangles].mean(1), layout[tp.FACE_OVAL])
    return triangles[~inner & inside], triangles[inner]


def _inside_oval(centers: np.ndarray, oval: np.ndarray) -> np.ndarray:
    contour = oval[:, :2].astype(np.float32).reshape(-1, 1, 2)
    return np.array(
        [cv2.pointPolygonTest(contour, (float(x), float(y)), False) >= 0 for x, y in centers[:, :2]]
    )


@dataclass(frozen=True)
class WarpField:
    """A map from output pixels to source pixels on a grid.

    Attributes:
        grid: (h, w, 2) float32 source x, y at the centres of the cells.
        triangle: (h, w) int32 index of the triangle each cell belongs to; -1 where nothing moves.
        cell: side of a cell in output pixels.
    """

    grid: np.ndarray
    triangle: np.ndarray
    cell: float

    def dense(self, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        """Source x and y of every output pixel, (height, width) each."""
        if self.cell == 1:
            return self.grid[..., 0], self.grid[..., 1]
        # A cell more on every side, going on as the last two do: places of the outermost half cells.
        grid = np.pad(self.grid, ((1, 1), (1, 1), (0, 0)), mode="reflect", reflect_type="odd")
        corner = 0.5 / self.cell + 0.5
        matrix = np.array([[1 / self.cell, 0, corner], [0, 1 / self.cell, corner]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        full = cv2.warpAffine(grid, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return full[..., 0], full[..., 1]


def resample(image: np.ndarray, field: WarpField, out: np.ndarray) -> None:
    """Draw ``image`` (H, W, 3) uint8 through a field into ``out`` (h, w, 3) uint8, bicubic, on the CPU."""
    x, y = field.dense(out.shape[1], out.shape[0])
    cv2.remap(image, x, y, cv2.INTER_CUBIC, dst=out, borderMode=cv2.BORDER_REPLICATE)


def resample_tensor(image: torch.Tensor, field: WarpField, width: int, height: int) -> torch.Tensor:
    """The same on any device with ``grid_sample``: image (1, 3, H, W) float to (1, 3, height, width)."""
    grid = torch.from_numpy(field.grid).to(image.device).permute(2, 0, 1)[None]
    rows, columns = (round(n * field.cell) for n in field.grid.shape[:2])
    if field.cell != 1:
        grid = functional.interpolate(grid, size=(rows, columns), mode="bilinear")
    grid = grid[..., :height, :width].permute(0, 2, 3, 1)
    size = torch.tensor([image.shape[3] - 1, image.shape[2] - 1], device=image.device)
    normal = grid / size * 2 - 1
    return functional.grid_sample(image, normal, mode="bicubic", padding_mode="border", align_corners=True)


class MeshWarp:
    """Warp fields between meshes of one topology.

    Args:
        skin, inner: triangles from :func:`triangulate`.
    """

    def __init__(self, skin: np.ndarray, inner: np.ndarray) -> None:
        self.inner_count = len(inner)
        self.triangles = np.concatenate([inner, skin, ring_triangles()]).astype(np.int64)

    @cached_property
    def is_mouth(self) -> np.ndarray:
        """1 for triangles inside the lips, (N,)."""
        inner = np.arange(len(self.triangles)) < self.inner_count
        return (inner & np.isin(self.triangles, tp.LIPS_INNER).all(1)).astype(np.float32)

    @cached_property
    def is_eye(self) -> np.ndarray:
        """1 for triangles inside the eyelids, (N,)."""
        inner = np.arange(len(self.triangles)) < self.inner_count
        eye: np.ndarray = (inner & (self.is_mouth == 0)).astype(np.float32)
        return eye

    @cached_property
    def is_face(self) -> np.ndarray:
        """1 for triangles of the face itself, 0 for the ring, (N,)."""
        face: np.ndarray = (self.triangles.max(1) < tp.VERTICES).astype(np.float32)
        return face

    @staticmethod
    def source_scale(source: np.ndarray, target: np.ndarray) -> float:
        """How much larger the source picture is drawn, as an area: frees stretch from resolution."""
        here, there = (points[tp.RIGID, :2] - points[tp.RIGID, :2].mean(0) for points in (source, target))
        return float(np.square(here).sum()) / float(np.square(there).sum())

    def paint_order(self, target: np.ndarray, among: np.ndarray, mirrored: bool = False) -> np.ndarray:
        """From far to near: the ring, mouth and eyes, skin that faces away, the rest of the skin by depth.

        Args:
            target: (WARP_VERTICES, 3).
            among: (N,) indices of triangles, ascending.
            mirrored: whether left and right are exchanged in the mesh.

        Returns:
            (N,) the same in the order in which they are to be painted.
        """
        corners = target[self.triangles[among]]
        a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        depth = corners[..., 2].mean(1)
        winding = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]  # positive when it faces the camera
        depth[(-winding if mirrored else winding) < 0] += 1e6
        depth[among < self.inner_count] = 1e9
        depth[self.is_face[among] == 0] = np.inf
        return among[np.argsort(-depth, kind="stable")]

    def rasterise(
        self,
        target: np.ndarray,
        size: tuple[int, int],
        cell: float,
        offset: tuple[float, float],
        mirrored: bool = False,
    ) -> np.ndarray:
        """Which triangle covers each cell: (h, w) int32, -1 for none. ``size`` is (w, h) in cells."""
        canvas = np.full((size[1], size[0]), -1, np.int32)
        shift = 4  # fixed-point vertices: sixteenths of a cell
        cells = (target[:, :2] - np.asarray(offset) + 0.5) / cell - 0.5  # integers are centres
        corners = np.round(cells * (1 << shift)).astype(np.int32)[self.triangles]
        low, high = corners.min(1) >> shift, (corners.max(1) >> shift) + 1
        seen = (high >= 0).all(1) & (low < size).all(1)
        for index in self.paint_order(target, np.flatnonzero(seen), mirrored).tolist():
            cv2.fillConvexPoly(canvas, corners[index], index, cv2.LINE_8, shift)
        return canvas

    def affines(self, source: np.ndarray, target: np.ndarray, among: np.ndarray) -> np.ndarray:
        """Affine maps target -> source of triangles ``among`` (N,), (N, 2, 3)."""
        corners = self.triangles[among]
        a, b = (mesh[:, :2].astype(np.float64)[corners] for mesh in (target, source))
        edges_a = np.stack([a[:, 1] - a[:, 0], a[:, 2] - a[:, 0]], -1)
        edges_b = np.stack([b[:, 1] - b[:, 0], b[:, 2] - b[:, 0]], -1)
        determinant = edges_a[:, 0, 0] * edges_a[:, 1, 1] - edges_a[:, 0, 1] * edges_a[:, 1, 0]
        flat = np.abs(determinant) < 1e-3
        determinant = np.where(flat, 1.0, determinant)
        upper = np.stack([edges_a[:, 1, 1], -edges_a[:, 0, 1]], -1)
        lower = np.stack([-edges_a[:, 1, 0], edges_a[:, 0, 0]], -1)
        adjugate = np.stack([upper, lower], 1)
        linear = edges_b @ (adjugate / determinant[:, None, None])
        linear[flat] = np.eye(2)  # a triangle without area covers no cell's centre
        offset = b[:, 0] - np.einsum("nij,nj->ni", linear, a[:, 0])
        return np.concatenate([linear, offset[..., None]], -1).astype(np.float32)

    def _stay_inside(
        self, grid: np.ndarray, triangle: np.ndarray, source: np.ndarray, maps: np.ndarray, used: np.ndarray
    ) -> None:
        """Keep what slivers show within a pixel of their triangle, in place: their maps reach far away."""
        stretch = np.square(maps[used, :, :2]).sum((1, 2))
        slivers = used[stretch > 16 * np.median(stretch)] if len(used) else used
        if not len(slivers):
            return
        sliver = np.zeros(len(maps), bool)  # index -1 stays where it is
        sliver[slivers] = True
        rows, columns = np.nonzero(sliver[triangle])
        corners = source[self.triangles[triangle[rows, columns]]][..., :2]
        grid[rows, columns] = np.clip(grid[rows, columns], corners.min(1) - 1, corners.max(1) + 1)

    def field(
        self,
        source: np.ndarray,
        target: np.ndarray,
        size: tuple[int, int],
        cell: float = 1.0,
        offset: tuple[float, float] = (0.0, 0.0),
        triangle: np.ndarray | None = None,
    ) -> WarpField:
        """The map that draws ``source``'s picture on ``target``.

        Args:
            source: (WARP_VERTICES, 3) pixels.
            target: (WARP_VERTICES, 3) pixels.
            size: (w, h) of the grid in cells.
            cell: side of a cell in pixels of the target picture.
            offset: x, y of the grid's upper left corner in the target picture.
            triangle: that of another field onto the same target, which spares drawing it again.
        """
        triangle = self.rasterise(target, size, cell, offset) if triangle is None else triangle
        used = np.flatnonzero(np.bincount(triangle.ravel() + 1, minlength=len(self.triangles) + 1)[1:])
        maps = np.zeros((len(self.triangles) + 1, 2, 3), np.float32)
        maps[-1] = np.eye(2, 3)  # index -1: stays
        maps[used] = self.affines(source, target, used)
        chosen = maps[triangle]
        x = (np.arange(size[0], dtype=np.float32) + 0.5) * cell - 0.5 + offset[0]
        y = ((np.arange(size[1], dtype=np.float32) + 0.5) * cell - 0.5 + offset[1])[:, None]
        grid = np.empty((size[1], size[0], 2), np.float32)
        for axis in (0, 1):
            row = chosen[:, :, axis]
            grid[..., axis] = row[..., 0] * x + row[..., 1] * y + row[..., 2]
        self._stay_inside(grid, triangle, source, maps, used)
        return WarpField(grid, triangle, cell)
