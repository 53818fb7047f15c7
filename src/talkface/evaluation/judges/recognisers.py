"""Face recognisers: networks whose descriptors tell whether two pictures show one person."""

import logging
from collections.abc import Callable
from functools import cache
from typing import TypeVar

import cv2
import numpy as np
import torch

from talkface.errors import ModelUnavailable
from talkface.face.tfjs import TfjsGraph
from talkface.hub import model_path

logger = logging.getLogger(__name__)

Recogniser = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Descriptor (C,) of a face in an RGB picture (H, W, 3) uint8, with its mesh (478, 3)."""

Kind = TypeVar("Kind")

_CHIP_PIXELS = 150  # side of dlib's input
# Where a chip has outer and inner eye corners (left, right) and the nose's base, within a border.
_CHIP_LANDMARKS = np.array(
    [[0.85957, 0.21350], [0.64606, 0.22897], [0.12058, 0.21373], [0.33409, 0.22906], [0.49011, 0.62780]]
)
_CHIP_BORDER = 0.25
_CHIP_POINTS = _CHIP_PIXELS * (_CHIP_BORDER + _CHIP_LANDMARKS) / (1 + 2 * _CHIP_BORDER)
_CHIP_VERTICES = np.array([263, 362, 33, 133, 2])

_CROP_PIXELS = 112  # side of MobileFace's input, and where it has eyes, nose and corners of the mouth
_CROP_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
_CROP_VERTICES = ((33, 133), (263, 362), (1,), (61,), (291,))


def _aligned(image: np.ndarray, found: np.ndarray, wanted: np.ndarray, pixels: int) -> np.ndarray:
    """The picture moved so that the points ``found`` (N, 2) lie on those ``wanted``, (pixels, pixels, 3)."""
    matrix, _ = cv2.estimateAffinePartial2D(found.astype(np.float64), wanted, method=cv2.LMEDS)
    size = (pixels, pixels)
    return cv2.warpAffine(image, matrix, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)


class DlibRecogniser:
    """dlib's face descriptor (CC0), 128 numbers; two pictures of one person lie within 0.6 of each other.

    Most pairs within 0.6 have a cosine above 0.9, strangers one of 0.8 to 0.9: report both.

    Raises:
        ModelUnavailable: dlib is not installed, or its model cannot be fetched.
    """

    identity = "dlib_face_recognition_resnet_model_v1"

    def __init__(self) -> None:
        try:
            import dlib
        except ImportError as error:
            raise ModelUnavailable("likeness needs dlib: pip install 'talkface[eval]'") from error
        self._network = dlib.face_recognition_model_v1(str(model_path(f"{self.identity}.dat")))

    def __call__(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Descriptor (128,) of a face in an RGB picture (H, W, 3) uint8 with its mesh (478, 3)."""
        chip = _aligned(image, points[_CHIP_VERTICES, :2], _CHIP_POINTS, _CHIP_PIXELS)
        return np.array(self._network.compute_face_descriptor(np.ascontiguousarray(chip)))


class MobileFace:
    """MobileFace's descriptor (MIT), 256 numbers, whose cosine separates people as in published CSIMs.

    Of 150 people of the prepared data, the mean cosine of two pictures of one person is .61 (5th percentile
    .22), that of two strangers .02 (99th percentile .29).

    Raises:
        ModelUnavailable: It cannot be fetched.
    """

    identity = "mobileface"

    def __init__(self) -> None:
        paths = model_path("mobileface.json"), model_path("mobileface.bin")
        self._network = TfjsGraph(*paths, ("batchnorm0/add_1",))

    @torch.inference_mode()
    def __call__(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Descriptor (256,) of a face in an RGB picture (H, W, 3) uint8 with its mesh (478, 3)."""
        places = np.stack([points[list(group), :2].mean(0) for group in _CROP_VERTICES])
        crop = _aligned(image, places, _CROP_POINTS, _CROP_PIXELS)
        descriptor: np.ndarray = self._network(torch.from_numpy(crop).float()[None])[0][0].numpy()
        return descriptor


@cache
def dlib_recogniser() -> DlibRecogniser | None:
    """dlib's recogniser, or None where it is not installed: its figures are then left out of a report."""
    return _unless_missing(DlibRecogniser)


@cache
def mobileface_recogniser() -> MobileFace | None:
    """MobileFace, or None where it cannot be fetched: its figures are then left out of a report."""
    return _unless_missing(MobileFace)


def recognisers() -> dict[str, Recogniser]:
    """The recognisers at hand, by the suffix of their figures: "" for dlib's, "_mobileface"."""
    found: dict[str, Recogniser | None] = {"": dlib_recogniser(), "_mobileface": mobileface_recogniser()}
    return {suffix: describe for suffix, describe in found.items() if describe is not None}


def recognisers_used() -> dict[str, str | None]:
    """Which recognisers a report's figures are from, as its settings name them."""
    mobileface = mobileface_recogniser()
    return {"second_recogniser": mobileface.identity if mobileface else None, **dlib_used()}


def dlib_used() -> dict[str, str | None]:
    """The same for a report whose figures are from dlib's recogniser alone."""
    dlib = dlib_recogniser()
    return {"face_recogniser": dlib.identity if dlib else None}


def _unless_missing(kind: Callable[[], Kind]) -> Kind | None:
    try:
        return kind()
    except ModelUnavailable as error:
        logger.warning("figures of likeness are left out: %s", error)
        return None
