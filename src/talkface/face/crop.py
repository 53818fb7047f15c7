"""Aligned crops of the regions of a face that a network redraws, and how they are put back."""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from talkface.face import topology as tp


@dataclass(frozen=True)
class FaceRegion:
    """A square region of the face.

    Attributes:
        name: in messages.
        code: number by which networks are told which region it is.
        side: inter-ocular distances.
        pixels: side of the crop.
    """

    name: str
    code: int
    side: float
    pixels: int


MOUTH_REGION = FaceRegion("mouth", 0, 1.1, 128)
RIGHT_EYE_REGION = FaceRegion("right eye", 1, 0.55, 64)
LEFT_EYE_REGION = FaceRegion("left eye", 2, 0.55, 64)
FACE_REGIONS = (MOUTH_REGION, RIGHT_EYE_REGION, LEFT_EYE_REGION)


def face_regions(pixels: int) -> tuple[FaceRegion, ...]:
    """:data:`FACE_REGIONS` of other sizes: the mouth's crop of ``pixels``, the eyes' of half of that."""
    own = MOUTH_REGION.pixels
    return tuple(replace(region, pixels=region.pixels * pixels // own) for region in FACE_REGIONS)


def fineness(pixels: int) -> int:
    """How much finer than :data:`MOUTH_REGION` a mouth's crop of ``pixels`` is, rounded up; at least 1."""
    return max(1, -(-pixels // MOUTH_REGION.pixels))


def face_unit(points: np.ndarray) -> float:
    """Size of a face in pixels that does not shrink when it turns: inter-ocular distance from the front."""
    eyes = float(tp.inter_ocular(points))
    height = float(np.linalg.norm(points[tp.FOREHEAD, :2] - points[2, :2]))
    return max(eyes, height / 1.1)


def region_center(points: np.ndarray, region: FaceRegion) -> np.ndarray:
    """Middle (x, y) of a region in pixels."""
    center: np.ndarray
    if region.code == MOUTH_REGION.code:  # of whatever size
        corners = points[list(tp.MOUTH_CORNERS), :2].mean(0)
        center = corners + 0.1 * face_unit(points) * down_axis(points)
    else:
        ring = tp.RIGHT_EYE if region.code == RIGHT_EYE_REGION.code else tp.LEFT_EYE
        center = points[ring[[0, 8]], :2].mean(0)
    return center


def down_axis(points: np.ndarray) -> np.ndarray:
    """Unit vector (2,) in the picture from the eyes towards the chin, across the line of the eyes."""
    axis = points[263, :2] - points[33, :2]
    axis = axis / max(float(np.linalg.norm(axis)), 1e-6)
    return np.array([-axis[1], axis[0]])


def region_matrix(points: np.ndarray, region: FaceRegion) -> np.ndarray:
    """Affine map (2, 3) from picture to crop pixels; the crop is upright along the eyes.

    The subject's left eye is mirrored so that both eyes look alike to a network.
    """
    down = down_axis(points)
    right = np.array([down[1], -down[0]])
    scale = region.pixels / (region.side * face_unit(points))
    linear = scale * np.stack([right, down])
    if region.code == LEFT_EYE_REGION.code:
        linear[0] = -linear[0]
    offset = np.full(2, (region.pixels - 1) / 2) - linear @ region_center(points, region)
    return np.concatenate([linear, offset[:, None]], 1)


def transform(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply an affine map to the x, y of points (V, 3); depth is scaled alike."""
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    flat = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    return np.concatenate([flat, points[:, 2:] * scale], 1).astype(np.float32)


def cut(image: np.ndarray, matrix: np.ndarray, pixels: int) -> np.ndarray:
    """Crop (pixels, pixels, C) of a picture; pixels are averaged where the picture is much finer."""
    step = 1 / max(float(np.sqrt(abs(np.linalg.det(matrix[:, :2])))), 1e-6)
    if step > 1.5:  # draw larger and average: warpAffine alone would alias
        factor = int(np.ceil(step))
        finer = matrix * factor
        finer[:, 2] += (factor - 1) / 2
        large = cv2.warpAffine(
            image, finer, (pixels * factor,) * 2, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return cv2.resize(large, (pixels, pixels), interpolation=cv2.INTER_AREA)
    return cv2.warpAffine(
        image, matrix, (pixels, pixels), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def paste(image: np.ndarray, layer: np.ndarray, matrix: np.ndarray) -> None:
    """Blend a crop's layer into a picture, in place: image (1 - a) + added, inside the crop's footprint.

    Args:
        image: (H, W, 3) uint8.
        layer: (h, w, 4) float32: what is added (0 to 255) and a.
        matrix: (2, 3) picture to crop pixels.
    """
    height, width = layer.shape[:2]
    inverse = cv2.invertAffineTransform(matrix)
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64)
    corners = corners @ inverse[:, :2].T + inverse[:, 2]
    low = np.maximum(np.floor(corners.min(0)).astype(int), 0)
    high = np.minimum(np.ceil(corners.max(0)).astype(int) + 1, image.shape[1::-1])
    if (high <= low).any():
        return
    local = matrix.copy()
    local[:, 2] += matrix[:, :2] @ low
    size = int(high[0] - low[0]), int(high[1] - low[1])
    moved = cv2.warpAffine(
        layer, local, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT
    )
    region = image[low[1] : high[1], low[0] : high[0]]
    blended = region * (1 - moved[..., 3:]) + moved[..., :3]
    np.clip(blended, 0, 255, out=blended)
    region[:] = (blended + 0.5).astype(np.uint8)
