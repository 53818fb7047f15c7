"""Maps of a mesh and of its warp, as networks see them."""

import cv2
import numpy as np

from talkface.face import topology as tp
from talkface.face.warp import MeshWarp, WarpField, with_ring

MAP_CHANNELS = 7
MESH_CHANNELS, MESH_PIXELS = 6, 128


def mesh_maps(warp: MeshWarp, field: WarpField, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Maps of the target mesh at each cell of a warp field, (7, h, w) float32.

    Channels: normal x, y, z; inside the lips; inside an eye; log stretch of the warp; on the face.
    """
    corners = target[warp.triangles]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.abs(normal[:, 2]) + 1e-3
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-6
    normal *= np.sign(normal[:, 2:] + 1e-9)
    before = source[warp.triangles][..., :2]
    a, b = before[:, 1] - before[:, 0], before[:, 2] - before[:, 0]
    area_before = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) + 1e-3
    stretch = np.clip(np.log(area / area_before * warp.source_scale(source, target)), -2, 2) / 2
    columns = np.stack([*normal.T, warp.is_mouth, warp.is_eye, stretch, warp.is_face], 1)
    columns = np.concatenate([columns, np.zeros((1, MAP_CHANNELS))]).astype(np.float32)  # -1: background
    return np.ascontiguousarray(columns[field.triangle].transpose(2, 0, 1))


def draw_mesh(warp: MeshWarp, points: np.ndarray, side: float, pixels: int = MESH_PIXELS) -> np.ndarray:
    """A face's mesh as a picture, (6, pixels, pixels) float32.

    Channels: normal x, y, z; inside the lips; inside an eye; iris. Zero beside the face.

    Args:
        warp: of this topology.
        points: (478, 3) mesh in a square picture.
        side: of that picture, in its pixels.
        pixels: side of the drawing.
    """
    mesh = with_ring(points)
    corners = mesh[warp.triangles]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    mirrored = bool(normal[warp.is_face > 0, 2].sum() < 0)  # most of a face's front is seen
    triangle = warp.rasterise(mesh, (pixels, pixels), side / pixels, (0.0, 0.0), mirrored)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-6
    normal *= np.sign(normal[:, 2:] + 1e-9)
    columns = np.stack([*normal.T, warp.is_mouth, warp.is_eye], 1) * warp.is_face[:, None]
    columns = np.concatenate([columns, np.zeros((1, columns.shape[1]))]).astype(np.float32)
    drawn = columns[triangle].transpose(2, 0, 1)
    return np.ascontiguousarray(np.concatenate([drawn, _irises(points, side / pixels, drawn[4])]))


def _irises(points: np.ndarray, cell: float, eyes: np.ndarray) -> np.ndarray:
    """Where an iris is seen between the lids, (1, h, w) float32."""
    disc = np.zeros(eyes.shape, np.float32)
    shift = 4
    for center in tp.IRIS_CENTERS:
        radius = np.linalg.norm(points[center + 1 : center + 5, :2] - points[center, :2], axis=1).mean()
        place = ((points[center, :2] + 0.5) / cell - 0.5) * (1 << shift)
        x, y = np.round(place).astype(int).tolist()
        length = max(1, round(float(radius) / cell * (1 << shift)))
        cv2.circle(disc, (x, y), length, 1.0, -1, cv2.LINE_8, shift)
    return (disc * (eyes > 0))[None]
