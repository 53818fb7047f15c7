"""What a mesh says about a picture, drawn as maps for networks."""

import numpy as np

from talkface.face.warp import MeshWarp, WarpField

MAP_CHANNELS = 7


def mesh_maps(warp: MeshWarp, field: WarpField, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """What the mesh says about each cell of a field, (7, h, w) float32.

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
