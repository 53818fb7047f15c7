"""Likeness of faces by their descriptors, and sharpness of mouths."""

import cv2
import numpy as np

from talkface.face import topology as tp
from talkface.face.crop import MOUTH_REGION, cut, region_matrix, transform


def likeness(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """``csim``, the cosine, and ``face_distance``, the Euclidean distance, of two descriptors (C,)."""
    return {"csim": cosine(a, b), "face_distance": float(np.linalg.norm(a - b))}


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of two descriptors (C,)."""
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def mean_likeness(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Means of :func:`likeness` over pairs of descriptors; empty without pairs."""
    alike = [likeness(a, b) for a, b in pairs]
    return {name: float(np.mean([each[name] for each in alike])) for name in (alike[0] if alike else {})}


def mouth_sharpness(image: np.ndarray, points: np.ndarray) -> float:
    """Mean absolute Laplacian of grey values around the lips, in the aligned mouth crop.

    Args:
        image: (H, W, 3) uint8 RGB.
        points: (478, 3) the face's mesh.
    """
    matrix = region_matrix(points, MOUTH_REGION)
    grey = cv2.cvtColor(cut(image, matrix, MOUTH_REGION.pixels), cv2.COLOR_RGB2GRAY).astype(np.float32)
    lips = cv2.convexHull(transform(points, matrix)[tp.LIPS_OUTER, :2].astype(np.int32))
    mask = cv2.dilate(cv2.fillConvexPoly(np.zeros(grey.shape, np.uint8), lips, 1), np.ones((9, 9), np.uint8))
    return float(np.abs(cv2.Laplacian(grey, cv2.CV_32F))[mask > 0].mean())
