"""What somebody looks like, to know them again after a cut in the same video.

The face is laid flat along its mesh, so that pose and expression matter little, and its pattern is projected
onto directions in which people differ more than the views of one person. Colours of skin and clothes are
added. This tells the people of a video apart; it does not identify anybody among thousands.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch

from talkface.face import topology as tp
from talkface.face.arrays import load_arrays, state_of
from talkface.face.crop import face_unit

WIDTH, HEIGHT = 32, 40  # samples of the flattened face
_UNIT = 32  # pixels of the crop per inter-ocular distance
_CROP = (4 * _UNIT, 5 * _UNIT)  # width and height of the crop, with the shoulders
_CENTER = np.array([2 * _UNIT, 2 * _UNIT])
_CLOTHES = slice(104, 144), slice(32, 96)  # rows and columns of the crop
_BINS = 8  # of each channel of the clothes' histogram
# Log-odds of being the same person: weights of what two descriptors have in common, fitted on pairs of one
# and of four views from the same corpus, whose people the projection had not been learned from.
_BIAS, _FACE, _TINT, _LIGHT, _CLOTHING = -5.6, 9.4, -0.011, -0.027, 7.1


@dataclass(frozen=True)
class Appearance:
    """A descriptor, of one view or the mean of several.

    Attributes:
        face: (D,) pattern of the face.
        skin: (3,) mean colour of the face, CIELAB in 0 to 255.
        clothes: (C,) histogram of the colours below the chin; sums to ``clothed``.
        clothed: Part of the views in which there was something to see below the chin, 0 to 1.
    """

    face: np.ndarray
    skin: np.ndarray
    clothes: np.ndarray
    clothed: float

    @classmethod
    def mean(cls, views: Sequence["Appearance"]) -> "Appearance":
        """The mean of several views."""
        return cls(
            face=np.mean([view.face for view in views], 0),
            skin=np.mean([view.skin for view in views], 0),
            clothes=np.mean([view.clothes for view in views], 0),
            clothed=float(np.mean([view.clothed for view in views])),
        )

    def likeness(self, other: "Appearance") -> float:
        """Log-odds that both are the same person: above 0 when that is the likelier."""
        features = self.compare(other)
        return float(features @ np.array([_FACE, _TINT, _LIGHT, _CLOTHING]) + _BIAS)

    def compare(self, other: "Appearance") -> np.ndarray:
        """What :meth:`likeness` weighs, (4,): likeness of face, differences of tint and light, clothes."""
        length = float(np.linalg.norm(self.face) * np.linalg.norm(other.face))
        light, a, b = np.abs(self.skin - other.skin)
        clothes = 0.0
        if min(self.clothed, other.clothed) > 0.3:
            common = np.sqrt(self.clothes * other.clothes).sum() / np.sqrt(self.clothed * other.clothed)
            clothes = float(common) - 0.5
        return np.array([self.face @ other.face / max(length, 1e-6), np.hypot(a, b), light, clothes])


class AppearanceModel:
    """Describes faces.

    Args:
        corners: (P, 3) vertices of the mesh between which each sample of the flat face lies.
        weights: (P, 3) where between them; 0 outside the face.
        area: (P,) twice the area of that triangle in a face seen from the front, inter-ocular distances.
        mean: (P,) the mean flat face, and ``projection`` (D, P) what is kept of the difference from it.
    """

    def __init__(
        self,
        corners: np.ndarray,
        weights: np.ndarray,
        area: np.ndarray,
        mean: np.ndarray,
        projection: np.ndarray,
    ) -> None:
        self.corners, self.weights, self.area = corners, weights, area
        self.mean, self.projection = mean, projection

    @classmethod
    @lru_cache(maxsize=2)
    def from_pretrained(cls, name_or_path: str = "appearance") -> "AppearanceModel":
        """Load the shipped model, or one from a directory or hub id."""
        return cls(**load_arrays(name_or_path))

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors to save."""
        return state_of(self, ("corners", "weights", "area", "mean", "projection"))

    def __call__(self, image: np.ndarray, points: np.ndarray) -> Appearance:
        """Describe the face with mesh (478, 3), pixels, in an RGB picture (H, W, 3) uint8."""
        matrix = _matrix(points)
        crop, inside = _crop(image, matrix)
        lab = cv2.cvtColor(crop, cv2.COLOR_RGB2LAB)
        flat, seen = self._flatten(lab, points[:, :2] @ matrix[:, :2].T + matrix[:, 2])
        weight = seen * _centred()
        skin = (weight / max(float(weight.sum()), 1e-6)).ravel() @ flat.reshape(-1, 3)
        clothes, clothed = _histogram(lab[_CLOTHES], inside[_CLOTHES])
        return Appearance(
            self.projection @ (_pattern(flat[..., 0], seen) - self.mean), skin, clothes, clothed
        )

    def _flatten(self, crop: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The face (H, W, C) float32 laid flat along its mesh (478, 2), and how well it is seen (H, W)."""
        triangles = points[self.corners]
        place = (self.weights[..., None] * triangles).sum(1).astype(np.float32).reshape(HEIGHT, WIDTH, 2)
        x, y = place[..., 0], place[..., 1]
        flat = cv2.remap(crop, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        # A part that is turned away covers less of the picture, or is the wrong way round.
        shown = twice_area(triangles) / (self.area * _UNIT**2)
        on_face = self.weights.any(1)
        return flat.astype(np.float32), np.clip(np.where(on_face, shown, 0.0), 0, 1).reshape(HEIGHT, WIDTH)


def twice_area(triangles: np.ndarray) -> np.ndarray:
    """Twice the signed area (P,) of triangles (P, 3, 2)."""
    a, b = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    area: np.ndarray = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    return area


def _matrix(points: np.ndarray) -> np.ndarray:
    """Affine map (2, 3) from the picture to the upright crop of head and shoulders."""
    right = points[263, :2] - points[33, :2]
    right = right / max(float(np.linalg.norm(right)), 1e-6)
    linear = _UNIT / max(face_unit(points), 1.0) * np.array([right, [-right[1], right[0]]])
    offset = _CENTER - linear @ points[tp.RIGID, :2].mean(0)
    return np.concatenate([linear, offset[:, None]], 1)


def _crop(image: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The crop (h, w, 3) uint8, and which of its pixels lie in the picture, (h, w) bool."""
    width, height = _CROP
    corners = np.array([[[0, 0], [width, 0], [0, height], [width, height]]], np.float64)
    corners = cv2.transform(corners, cv2.invertAffineTransform(matrix))[0]
    size = np.array(image.shape[1::-1])
    low = np.clip(np.floor(corners.min(0)).astype(int), 0, size - 1)
    high = np.clip(np.ceil(corners.max(0)).astype(int), low + 1, size)
    part = image[low[1] : high[1], low[0] : high[0]]
    matrix = matrix.copy()
    matrix[:, 2] += matrix[:, :2] @ low
    step = 1 / float(np.hypot(*matrix[0, :2]))
    if step > 2:  # large faces: average first, for warpAffine alone would alias
        small = np.maximum(1, np.round((high - low) * 2 / step)).astype(int)
        ratio = (high - low) / small
        part = cv2.resize(part, (int(small[0]), int(small[1])), interpolation=cv2.INTER_AREA)
        matrix[:, 2] += matrix[:, :2] @ ((ratio - 1) / 2)
        matrix[:, :2] *= ratio
    crop = cv2.warpAffine(part, matrix, _CROP, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(np.full(part.shape[:2], 255, np.uint8), matrix, _CROP)
    return crop, inside > 127


@lru_cache(maxsize=1)
def _centred() -> np.ndarray:
    """Weight (H, W) that leaves out the rim of the flat face, where hair and background begin."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    weight: np.ndarray = np.exp(-(((x - 15.5) / 13) ** 4) - ((y - 18) / 17) ** 4).astype(np.float32)
    return weight


def _pattern(flat: np.ndarray, seen: np.ndarray, radius: float = 4.0) -> np.ndarray:
    """Local contrast (P,) of the flat face (H, W), free of light; unseen parts are the other side's."""
    detail = flat - cv2.GaussianBlur(flat, (0, 0), radius)
    detail = detail / np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), radius) + 9.0)
    mirrored = np.clip(1 - 2 * seen, 0, 1) * seen[:, ::-1]
    filled = (detail * seen + detail[:, ::-1] * mirrored) / np.maximum(seen + mirrored, 0.3)
    pattern: np.ndarray = (filled * _centred()).ravel()
    return pattern


def _histogram(lab: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, float]:
    """Colours (C,) of the pixels inside the picture, and 1.0; zeros and 0.0 where hardly any are."""
    if inside.mean() < 0.15:
        return np.zeros(_BINS**3), 0.0
    bins = lab[inside].astype(int) * _BINS // 256
    count = np.bincount(np.ravel_multi_index(tuple(bins.T), (_BINS,) * 3), minlength=_BINS**3)
    return count / count.sum(), 1.0
