"""The inside of the mouth as the refiner is given it: a plate that is fixed to the skull, as upper teeth are.

Warped lips tell nothing about teeth. Behind them hangs a plate: what the portrait shows of its own mouth and,
where it shows nothing, the mean mouth of the training people in the portrait's light. It turns with the head
and stays where it is when the lips open; the refiner draws the mouth from it.

The mean mouth always has the density of the usual crop: a mean of people is blurred, enlarging it loses
nothing, and a refiner's weights hold it in one shape. The plate of a finer refiner is as fine as its crop, so
that the portrait's own teeth on it stay sharp.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from talkface.face import topology as tp
from talkface.face.crop import MOUTH

PLATE_HEIGHT, PLATE_WIDTH = 64, 96  # pixels of a plate, as dense as the mouth's usual crop
_DENSITY = MOUTH.pixels / MOUTH.side  # pixels per canonical unit
_ABOVE = 0.14  # canonical units from the plate's top to the line where the lips meet
_BEHIND = 0.05  # and from the lips back to the teeth
_SKIN = np.array([50, 280, 205, 425, 187, 411, 36, 266])  # vertices on the cheeks
_CORNERS = np.array([[0, 0], [PLATE_WIDTH, 0], [0, PLATE_HEIGHT]], np.float32)
_SHOWS = 0.02  # opening over inter-ocular distance from which a picture shows something of the mouth


def plate_corners(neutral: np.ndarray) -> np.ndarray:
    """Upper left, upper right and lower left corner (3, 3) of a face's plate, canonical units.

    Args:
        neutral: (478, 3) the person's canonical mesh with the mouth closed.
    """
    middle = neutral[tp.LIPS_INNER].mean(0)
    start = middle + np.array([-PLATE_WIDTH / 2 / _DENSITY, -_ABOVE, _BEHIND])
    return (start + np.pad(_CORNERS / _DENSITY, ((0, 0), (0, 1)))).astype(np.float32)


def plate_matrix(corners: np.ndarray, finer: int = 1) -> np.ndarray:
    """Affine map (2, 3) from plate pixels to the picture in which its ``corners`` (3, 2 or 3) are.

    ``finer`` is how many times the plate's PLATE_HEIGHT and PLATE_WIDTH are taken.
    """
    return cv2.getAffineTransform(finer * _CORNERS, np.ascontiguousarray(corners[:, :2], np.float32))


def skin_tone(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Mean colour (3,) of the cheeks, 0 to 255, of a picture (H, W, 3) with the mesh ``points``."""
    height, width = image.shape[:2]
    x, y = np.clip(points[_SKIN, :2].round().astype(int), 0, [width - 1, height - 1]).T
    return np.maximum(8.0, image[y, x].astype(np.float32).mean(0))


def visible_mouth(
    image: np.ndarray, points: np.ndarray, corners: np.ndarray, finer: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """What a picture shows of the inside of a mouth, on its plate.

    Args:
        image: (H, W, 3) uint8.
        points: (478, 3) its mesh, pixels.
        corners: (3, 3) of the plate in the picture.
        finer: how many times as fine as usual the plate is.

    Returns:
        The picture on the plate (h, w, 3) float32, 0 to 255, and a soft mask (h, w, 1) of where that is
        inside the lips; h and w are ``finer`` times PLATE_HEIGHT and PLATE_WIDTH.
    """
    matrix, height, width = plate_matrix(corners, finer), finer * PLATE_HEIGHT, finer * PLATE_WIDTH
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    seen = cv2.warpAffine(image, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    mask = np.zeros((height, width), np.float32)
    if tp.aperture(points) > _SHOWS:
        back = cv2.invertAffineTransform(matrix)
        contour = points[tp.LIPS_INNER, :2] @ back[:, :2].T + back[:, 2]
        cv2.fillPoly(mask, [np.round(contour * 16).astype(np.int32)], 1.0, cv2.LINE_8, 4)
        edge = np.ones((2 * finer + 1, 2 * finer + 1), np.uint8)
        mask[:] = cv2.GaussianBlur(cv2.erode(mask, edge), (0, 0), float(finer))
    return seen.astype(np.float32), mask[..., None]


@dataclass
class MeanMouth:
    """Gathers the mean mouth of people, each counted once, relative to the colour of their skin."""

    total: np.ndarray
    weight: np.ndarray

    @classmethod
    def empty(cls) -> "MeanMouth":
        """Nothing gathered yet."""
        return cls(np.zeros((PLATE_HEIGHT, PLATE_WIDTH, 3)), np.zeros((PLATE_HEIGHT, PLATE_WIDTH, 1)))

    def add(self, seen: np.ndarray, mask: np.ndarray, tone: np.ndarray) -> None:
        """Add what :func:`visible_mouth` gave and the picture's :func:`skin_tone`."""
        self.total += seen / tone * mask
        self.weight += mask

    def merge(self, person: "MeanMouth", most: float = 20.0) -> None:
        """Add a person's pictures, as at most ``most`` of them."""
        share = np.minimum(1.0, most / np.maximum(person.weight, 1e-6))
        self.total += share * person.total
        self.weight += share * person.weight

    def mean(self) -> np.ndarray:
        """(PLATE_HEIGHT, PLATE_WIDTH, 3) float32; where nobody's mouth was seen, the nearest that was."""
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
    """The plate (finer PLATE_HEIGHT, finer PLATE_WIDTH, 3) uint8 of a portrait.

    Args:
        image: (H, W, 3) uint8.
        points: (478, 3) its mesh, pixels.
        corners: (3, 3) of the plate in the picture.
        mean_mouth: (PLATE_HEIGHT, PLATE_WIDTH, 3) relative to the skin's colour.
        finer: how many times as fine as usual the plate is.
    """
    seen, mask = visible_mouth(image, points, corners, finer)
    guess = _enlarged(mean_mouth, finer) * skin_tone(image, points)
    return np.clip(mask * seen + (1 - mask) * guess + 0.5, 0, 255).astype(np.uint8)


def _enlarged(mean_mouth: np.ndarray, finer: int) -> np.ndarray:
    """The mean mouth (h, w, 3) on a plate ``finer`` times as fine: their first pixels' centres coincide."""
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
    return (crop * (1 - alpha) + drawn * alpha + 0.5).astype(np.uint8)
