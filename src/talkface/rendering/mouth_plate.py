"""The mouth plate: a small picture of the inside of the mouth, fixed to the skull as the upper teeth are.

Warped lips hold no teeth. The plate lies behind them in the refiner's input: it shows what the portrait shows
of its own mouth and, where that is nothing, the mean mouth of the training people in the portrait's light. It
moves with the head and not with the lips; the refiner draws the mouth from it.

The mean mouth always has the resolution of the usual crop: a mean of people is blurred anyway, and a
refiner's weights hold it in one shape. The plate of a refiner with larger crops has their resolution, so that
the portrait's own teeth stay sharp.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from talkface.face import topology as tp
from talkface.face.crop import MOUTH_REGION

PLATE_HEIGHT, PLATE_WIDTH = 64, 96  # pixels, at the resolution of the mouth's usual crop
_DENSITY = MOUTH_REGION.pixels / MOUTH_REGION.side  # pixels per canonical unit
_ABOVE = 0.14  # canonical units from the plate's top to the line where the lips meet
_BEHIND = 0.05  # canonical units from the lips back to the teeth
_SKIN = np.array([50, 280, 205, 425, 187, 411, 36, 266])  # vertices on the cheeks
_CORNERS = np.array([[0, 0], [PLATE_WIDTH, 0], [0, PLATE_HEIGHT]], np.float32)
_LEAST_OPENING = 0.02  # inter-ocular distances between the lips from which the inside of a mouth shows


def plate_corners(neutral: np.ndarray) -> np.ndarray:
    """Upper left, upper right and lower left corner (3, 3) of a face's plate, canonical units.

    Args:
        neutral: (478, 3) the person's canonical mesh with the mouth closed.
    """
    middle = neutral[tp.LIPS_INNER].mean(0)
    start = middle + np.array([-PLATE_WIDTH / 2 / _DENSITY, -_ABOVE, _BEHIND])
    corners: np.ndarray = start + np.pad(_CORNERS / _DENSITY, ((0, 0), (0, 1)))
    return corners.astype(np.float32)


def plate_matrix(corners: np.ndarray, finer: int = 1) -> np.ndarray:
    """Affine map (2, 3) from the pixels of a plate to those of a picture.

    Args:
        corners: (3, 2 or 3) of the plate in the picture, in pixels.
        finer: resolution of the plate relative to the usual one.
    """
    matrix: np.ndarray = cv2.getAffineTransform(
        finer * _CORNERS, np.ascontiguousarray(corners[:, :2], np.float32)
    )
    return matrix


def skin_tone(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Mean colour (3,) of the cheeks, 0 to 255, of a picture (H, W, 3) with the mesh ``points``."""
    height, width = image.shape[:2]
    x, y = np.clip(points[_SKIN, :2].round().astype(int), 0, [width - 1, height - 1]).T
    tone: np.ndarray = np.maximum(8.0, image[y, x].astype(np.float32).mean(0))
    return tone


def visible_mouth(
    image: np.ndarray, points: np.ndarray, corners: np.ndarray, finer: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """The inside of a mouth as a picture shows it, in the pixels of the plate.

    Args:
        image: (H, W, 3) uint8.
        points: (478, 3) its mesh, pixels.
        corners: (3, 3) of the plate in the picture.
        finer: resolution of the plate relative to the usual one.

    Returns:
        The picture resampled to the plate (h, w, 3) float32, 0 to 255, and a soft mask (h, w, 1), 1 inside
        the lips; h and w are ``finer`` times PLATE_HEIGHT and PLATE_WIDTH.
    """
    matrix, height, width = plate_matrix(corners, finer), finer * PLATE_HEIGHT, finer * PLATE_WIDTH
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    seen = cv2.warpAffine(image, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    mask = np.zeros((height, width), np.float32)
    if tp.aperture(points) > _LEAST_OPENING:
        back = cv2.invertAffineTransform(matrix)
        contour = points[tp.LIPS_INNER, :2] @ back[:, :2].T + back[:, 2]
        cv2.fillPoly(mask, [np.round(contour * 16).astype(np.int32)], 1.0, cv2.LINE_8, 4)
        edge = np.ones((2 * finer + 1, 2 * finer + 1), np.uint8)
        mask[:] = cv2.GaussianBlur(cv2.erode(mask, edge), (0, 0), float(finer))
    return seen.astype(np.float32), mask[..., None]


@dataclass
class MeanMouth:
    """Accumulates a mean mouth, relative to the colour of the skin.

    Attributes:
        total: (PLATE_HEIGHT, PLATE_WIDTH, 3) sum of the plates under their masks.
        weight: (PLATE_HEIGHT, PLATE_WIDTH, 1) sum of the masks.
    """

    total: np.ndarray
    weight: np.ndarray

    @classmethod
    def empty(cls) -> "MeanMouth":
        """No mouth yet."""
        return cls(np.zeros((PLATE_HEIGHT, PLATE_WIDTH, 3)), np.zeros((PLATE_HEIGHT, PLATE_WIDTH, 1)))

    def add(self, seen: np.ndarray, mask: np.ndarray, tone: np.ndarray) -> None:
        """Add a mouth: what :func:`visible_mouth` gave, and the picture's :func:`skin_tone`."""
        self.total += seen / tone * mask
        self.weight += mask

    def merge(self, person: "MeanMouth", most: float = 20.0) -> None:
        """Add a person's mean, which counts as many times as it has pictures, at most ``most`` times."""
        share = np.minimum(1.0, most / np.maximum(person.weight, 1e-6))
        self.total += share * person.total
        self.weight += share * person.weight

    def mean(self) -> np.ndarray:
        """The mean (PLATE_HEIGHT, PLATE_WIDTH, 3) float32; unseen pixels take the nearest that was seen."""
        known = (self.weight > 0.05 * self.weight.max()).astype(np.uint8)[..., 0]
        mean = self.total / np.maximum(self.weight, 1e-6)
        _, nearest = cv2.distanceTransformWithLabels(
            1 - known, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        lookup = np.zeros((int(nearest.max()) + 1, 3))
        lookup[nearest[known == 1]] = mean[known == 1]
        return np.where(known[..., None] == 1, mean, lookup[nearest]).astype(np.float32)


def mouth_plate(
    image: np.ndarray, points: np.ndarray, corners: np.ndarray, mean_mouth: np.ndarray, finer: int = 1
) -> np.ndarray:
    """The plate of a portrait, (finer * PLATE_HEIGHT, finer * PLATE_WIDTH, 3) uint8.

    Args:
        image: (H, W, 3) uint8.
        points: (478, 3) its mesh, pixels.
        corners: (3, 3) of the plate in the picture.
        mean_mouth: (PLATE_HEIGHT, PLATE_WIDTH, 3) relative to the skin's colour.
        finer: resolution of the plate relative to the usual one.
    """
    seen, mask = visible_mouth(image, points, corners, finer)
    initial = _enlarged(mean_mouth, finer) * skin_tone(image, points)
    plate: np.ndarray = np.clip(mask * seen + (1 - mask) * initial + 0.5, 0, 255)
    return plate.astype(np.uint8)


def _enlarged(mean_mouth: np.ndarray, finer: int) -> np.ndarray:
    """The mean mouth (h, w, 3) at ``finer`` times its resolution; first pixels' centres coincide."""
    if finer == 1:
        return mean_mouth
    height, width = mean_mouth.shape[:2]
    return cv2.warpAffine(
        mean_mouth, finer * np.eye(2, 3), (finer * width, finer * height), borderMode=cv2.BORDER_REPLICATE
    )


def draw_plate(crop: np.ndarray, plate: np.ndarray, corners: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Draw a plate between the lips of a crop.

    Args:
        crop: (P, P, 3) uint8.
        plate: (h, w, 3) uint8 from :func:`mouth_plate`.
        corners: (3, 3) of the plate in the crop.
        inside: (h, w) float32, 1 inside the lips.

    Returns:
        (P, P, 3) uint8.
    """
    size = crop.shape[1], crop.shape[0]
    matrix = plate_matrix(corners, len(plate) // PLATE_HEIGHT)
    drawn = cv2.warpAffine(plate, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.resize(inside, size, interpolation=cv2.INTER_LINEAR)[..., None]
    shown: np.ndarray = (crop * (1 - alpha) + drawn * alpha + 0.5).astype(np.uint8)
    return shown
