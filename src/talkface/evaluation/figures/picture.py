"""Is it the same person, and as sharp?"""

import logging
from collections.abc import Callable
from functools import cache
from typing import TypeVar

import cv2
import numpy as np
import torch

from talkface.errors import ModelUnavailable
from talkface.evaluation.figures.motion import frechet
from talkface.face import topology as tp
from talkface.face.crop import MOUTH, cut, part_matrix, transform
from talkface.face.tfjs import TfjsGraph
from talkface.hub import model_path

logger = logging.getLogger(__name__)

_CHIP = 150  # pixels of the recogniser's input
# Where a chip has outer and inner eye corners (left, right) and the nose's base, within a border.
_LANDMARKS = np.array(
    [[0.85957, 0.21350], [0.64606, 0.22897], [0.12058, 0.21373], [0.33409, 0.22906], [0.49011, 0.62780]]
)
_BORDER = 0.25
LEAST_FACES = 192  # descriptors that tell a covariance
_CHIP_POINTS = _CHIP * (_BORDER + _LANDMARKS) / (1 + 2 * _BORDER)
_MESH_POINTS = np.array([263, 362, 33, 133, 2])
_CROP = 112  # pixels of the second recogniser's input, and where it has eyes, nose and corners of the mouth
_FIVE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
_FIVE = ((33, 133), (263, 362), (1,), (61,), (291,))


class FaceRecogniser:
    """dlib's face descriptor (CC0), 128 numbers; two pictures of one person lie within 0.6 of each other.

    Cosines lie above 0.9 for most pairs within 0.6 and between 0.8 and 0.9 for strangers: print both.

    Raises:
        ModelUnavailable: dlib is not installed, or its model cannot be fetched.
    """

    def __init__(self) -> None:
        try:
            import dlib
        except ImportError as error:
            raise ModelUnavailable("likeness needs dlib: pip install 'talkface[eval]'") from error
        self._network = dlib.face_recognition_model_v1(
            str(model_path("dlib_face_recognition_resnet_model_v1.dat"))
        )

    def __call__(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Descriptor (128,) of a face in an RGB picture (H, W, 3) uint8 with its mesh (478, 3)."""
        matrix, _ = cv2.estimateAffinePartial2D(
            points[_MESH_POINTS, :2].astype(np.float64), _CHIP_POINTS, method=cv2.LMEDS
        )
        chip = cv2.warpAffine(
            image, matrix, (_CHIP, _CHIP), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE
        )
        return np.array(self._network.compute_face_descriptor(np.ascontiguousarray(chip)))


class MobileFace:
    """MobileFace's descriptor (MIT), 256 numbers, whose cosine is the CSIM that papers report.

    Of 150 people of the prepared data, two pictures of one are at .61 (one in twenty below .22), strangers
    at .02 (one in a hundred above .29).

    Raises:
        ModelUnavailable: it cannot be fetched.
    """

    def __init__(self) -> None:
        paths = model_path("mobileface.json"), model_path("mobileface.bin")
        self._network = TfjsGraph(*paths, ("batchnorm0/add_1",))

    @torch.inference_mode()
    def __call__(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Descriptor (256,) of a face in an RGB picture (H, W, 3) uint8 with its mesh (478, 3)."""
        places = np.stack([points[list(group), :2].mean(0) for group in _FIVE])
        matrix, _ = cv2.estimateAffinePartial2D(places.astype(np.float64), _FIVE_POINTS, method=cv2.LMEDS)
        size = (_CROP, _CROP)
        crop = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
        return self._network(torch.from_numpy(crop).float()[None])[0][0].numpy()


Recogniser = TypeVar("Recogniser")


@cache
def _available(kind: Callable[[], Recogniser]) -> Recogniser | None:
    try:
        return kind()
    except ModelUnavailable as error:
        logger.warning("no likeness by one recogniser: %s", error)
        return None


def recogniser() -> FaceRecogniser | None:
    """dlib's recogniser, or None where it is not installed: its likeness is then left out of a report."""
    return _available(FaceRecogniser)


def second_recogniser() -> MobileFace | None:
    """The recogniser that tells strangers apart, or None where it cannot be fetched."""
    return _available(MobileFace)


def likeness(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Cosine (CSIM) and distance of two descriptors."""
    cosine = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    return {"csim": cosine, "face_distance": float(np.linalg.norm(a - b))}


def frechet_of_faces(clips: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """``fd_dlib128``: Frechet distance of the descriptors of real and generated frames.

    The part of FID with this project's pinned extractor: figures of other extractors are on other scales.

    Args:
        clips: descriptors (N, 128) of real frames and of generated ones, of each clip.

    Returns:
        Empty for fewer frames than tell a covariance of 128 numbers.
    """
    if min(sum(len(pair[which]) for pair in clips) for which in (0, 1)) < LEAST_FACES:
        return {}
    real, generated = (np.concatenate(part) for part in zip(*clips, strict=True))
    return {"fd_dlib128": frechet(generated, real)}


def mouth_sharpness(image: np.ndarray, points: np.ndarray) -> float:
    """Mean absolute Laplacian of grey values around the lips, in the aligned crop of an RGB picture."""
    matrix = part_matrix(points, MOUTH)
    grey = cv2.cvtColor(cut(image, matrix, MOUTH.pixels), cv2.COLOR_RGB2GRAY).astype(np.float32)
    lips = cv2.convexHull(transform(points, matrix)[tp.LIPS_OUTER, :2].astype(np.int32))
    mask = cv2.dilate(cv2.fillConvexPoly(np.zeros(grey.shape, np.uint8), lips, 1), np.ones((9, 9), np.uint8))
    return float(np.abs(cv2.Laplacian(grey, cv2.CV_32F))[mask > 0].mean())
