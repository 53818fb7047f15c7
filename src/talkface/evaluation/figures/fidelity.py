"""How close a generated video is to the video it was made from, frame by frame.

Both show the same head motion: a dubbed video and its source. Everything is measured at the video's own
resolution, in levels of 0 to 255, where the *source's* mesh says the mouth is.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np

from talkface.evaluation.figures.border import jump_ratio, jumps_beside_real, lower_face_border
from talkface.evaluation.figures.steadiness import face_square
from talkface.face import topology as tp
from talkface.face.crop import cut, face_unit, transform
from talkface.face.masks import lower_face_mask

MOUTH_BOX = 0.8  # side in inter-ocular distances: from the nose's base to below the chin, and both cheeks
_LEAST_BOX = 16  # pixels: smaller mouths tell nothing
_NOSE_BASE = 2
_FLOW_PIXELS = 160  # side of the face crop in which optical flow is computed


def psnr(mean_squared_error: float) -> float:
    """Peak signal-to-noise ratio in dB of 8-bit pictures; infinite where nothing differs."""
    return float(10 * np.log10(255**2 / mean_squared_error)) if mean_squared_error else float("inf")


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity of pictures (H, W, 3) uint8, at least 11 pixels wide; mean over the channels.

    The window is a Gaussian of 1.5 pixels. Equals scikit-image's with ``gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False``.
    """
    x, y = a.astype(np.float32), b.astype(np.float32)
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    variance_x, variance_y = _window_mean(x * x) - mean_x**2, _window_mean(y * y) - mean_y**2
    covariance = _window_mean(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float((likeness / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))).mean())


def _window_mean(values: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(values, (11, 11), 1.5)[5:-5, 5:-5]


def mouth_box(points: np.ndarray, size: tuple[int, int]) -> tuple[slice, slice] | None:
    """Rows and columns of the square around lips and chin of a mesh (478, 3), inside a picture.

    The square is upright in the picture. Its middle is half way from the nose's base to the chin, its side
    ``MOUTH_BOX`` inter-ocular distances of the face seen from the front.

    Returns:
        None if less than 16 pixels of it are inside ``size`` (width, height).
    """
    middle = points[[_NOSE_BASE, tp.CHIN], :2].mean(0)
    half = MOUTH_BOX * face_unit(points) / 2
    low = np.maximum(np.round(middle - half).astype(int), 0)
    high = np.minimum(np.round(middle + half).astype(int), size)
    if (high - low < _LEAST_BOX).any():
        return None
    return slice(low[1], high[1]), slice(low[0], high[0])


@dataclass
class FrameFidelity:
    """Takes pairs of frames in order of time and gives the figures of the clip.

    Args:
        same_words: Whether both videos say the same, so that the mouths should be alike, too.
    """

    same_words: bool = True
    _mouth: list[tuple[float, float]] = field(default_factory=list)
    _frame: list[float] = field(default_factory=list)
    _outside: list[float] = field(default_factory=list)
    _jumps: list[np.ndarray] = field(default_factory=list)
    _changes: list[tuple[float, float]] = field(default_factory=list)
    _before: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, real: np.ndarray, generated: np.ndarray, points: np.ndarray) -> None:
        """Take pictures (H, W, 3) uint8 of one size and the real face's mesh (478, 3)."""
        size = real.shape[1], real.shape[0]
        region = lower_face_mask(points, size)
        apart = np.abs(real.astype(np.int16) - generated)
        outside = region <= 0
        if outside.any():
            self._outside.append(float(apart[outside].mean()))
        if self.same_words:
            self._frame.append(float(np.square(apart, dtype=np.int32).mean()))
            if box := mouth_box(points, size):
                squared = float(np.square(apart[box], dtype=np.int32).mean())
                self._mouth.append((squared, ssim(real[box], generated[box])))
        self._jumps.append(jumps_beside_real(generated, real, lower_face_border(points), points))
        if self._before is not None:
            self._changes.append(_changes(self._before, (real, generated), points))
        self._before = real, generated

    def figures(self) -> dict[str, float]:
        """``mouth_psnr``, ``mouth_ssim``, ``frame_psnr``, ``outside_difference``, ``seam``, ``flicker``."""
        figures = {}
        if self._frame:
            figures["frame_psnr"] = psnr(float(np.mean(self._frame)))
        if self._mouth:
            squared, similar = np.mean(self._mouth, 0)
            figures |= {"mouth_psnr": psnr(float(squared)), "mouth_ssim": float(similar)}
        if self._outside:
            figures["outside_difference"] = float(np.mean(self._outside))
        if self._jumps:
            figures["seam"] = jump_ratio(self._jumps)
        if self._changes:
            made, true = np.sum(self._changes, 0)
            figures["flicker"] = float(made / true) if true else float("nan")
        return figures


def _changes(
    before: tuple[np.ndarray, np.ndarray], now: tuple[np.ndarray, np.ndarray], points: np.ndarray
) -> tuple[float, float]:
    """Change since the last frame, around the mouth, that motion does not explain: generated, real.

    The frames before are warped by the optical flow of the real video, which does not flicker.

    Args:
        before: Real and generated frame (H, W, 3) uint8.
        now: The same of the next frame.
        points: (478, 3) the real face's mesh now.
    """
    matrix = face_square(points, _FLOW_PIXELS)
    real_before, made_before = (cut(image, matrix, _FLOW_PIXELS) for image in before)
    real, made = (cut(image, matrix, _FLOW_PIXELS) for image in now)
    grey, grey_before = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (real, real_before))
    still = np.zeros((*grey.shape, 2), np.float32)
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(grey, grey_before, still)
    y, x = np.indices(grey.shape, np.float32)
    from_x, from_y = x + flow[..., 0], y + flow[..., 1]
    around = np.ones(grey.shape, bool)
    if box := mouth_box(transform(points, matrix), (_FLOW_PIXELS, _FLOW_PIXELS)):
        around[box] = False
    change = []
    for image, previous in ((made, made_before), (real, real_before)):
        moved = cv2.remap(previous, from_x, from_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        change.append(float(np.abs(image.astype(np.int16) - moved)[around].mean()))
    return change[0], change[1]
