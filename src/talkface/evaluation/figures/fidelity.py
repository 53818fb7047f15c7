"""How close a generated video is to the video it was made from, frame by frame.

Both show the same head motion: a dubbed video and its source. Everything is measured at the video's own
resolution, in levels of 0 to 255, where the *source's* mesh says the mouth is.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np

from talkface.face import topology as tp
from talkface.face.crop import cut, face_unit, transform
from talkface.face.masks import lower_face_mask, lower_face_outline

MOUTH_BOX = 0.8  # side in inter-ocular distances: from the nose's base to below the chin, and both cheeks
_LEAST_BOX = 16  # pixels: smaller mouths tell nothing
_NOSE_BASE = 2
_PLACES = 96  # along the border of the changed region
_INSIDE = 0.04  # inter-ocular distances from the outline of what changes to the middle of its soft edge
_STEP = 0.02  # inter-ocular distances from one side of the border to the other, half of it
_FLAT = 1.0  # levels: jumps below are counted as this much
_FLOW_PIXELS = 160  # side of the face in which motion is followed


def psnr(mean_squared_error: float) -> float:
    """Peak signal-to-noise ratio in dB of 8-bit pictures; infinite where nothing differs."""
    return float(10 * np.log10(255**2 / mean_squared_error)) if mean_squared_error else float("inf")


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity of pictures (H, W, 3) uint8, at least 11 pixels wide.

    Of a Gaussian window of 1.5 pixels,
    As scikit-image has it with ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False``, the mean
    over the colour channels.
    """
    x, y = a.astype(np.float32), b.astype(np.float32)
    blur = lambda z: cv2.GaussianBlur(z, (11, 11), 1.5)[5:-5, 5:-5]  # noqa: E731
    mean_x, mean_y = blur(x), blur(y)
    variance_x, variance_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float((likeness / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))).mean())


def mouth_box(points: np.ndarray, size: tuple[int, int]) -> tuple[slice, slice] | None:
    """Rows and columns of the square around lips and chin of a mesh (478, 3), inside a picture.

    The square is upright in the picture, its middle half way from the nose's base to the chin, its side
    ``MOUTH_BOX`` inter-ocular distances as they are from the front.

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
    """Takes frames one after the other, gives figures of the clip.

    Args:
        same_words: whether both videos say the same, so that the mouths should be alike, too.
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
        border, step = border_of(points), max(1.0, _STEP * face_unit(points))
        self._jumps.append(np.stack([border_jumps(picture, *border, step) for picture in (generated, real)]))
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
            figures["seam"] = _seam(np.stack(self._jumps))
        if self._changes:
            made, true = np.sum(self._changes, 0)
            figures["flicker"] = float(made / true) if true else float("nan")
        return figures


def border_of(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The middle of the soft border of the lower face of a mesh (478, 3).

    Returns:
        Places (96, 2), the same ones of the face in every frame, and outward directions (96, 2).
    """
    outline = lower_face_outline(points).astype(np.float64)
    closed = np.concatenate([outline, outline[:1]])
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    wanted = np.linspace(0, along[-1], _PLACES, endpoint=False)
    places = np.stack([np.interp(wanted, along, closed[:, axis]) for axis in (0, 1)], -1)
    tangent = np.roll(places, -1, 0) - np.roll(places, 1, 0)
    outward = np.stack([tangent[:, 1], -tangent[:, 0]], -1)
    outward *= np.sign((outward * (places - places.mean(0))).sum() or 1.0)
    outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-6)
    return places - _INSIDE * face_unit(points) * outward, outward


def border_jumps(image: np.ndarray, places: np.ndarray, outward: np.ndarray, step: float) -> np.ndarray:
    """How much a picture (H, W, 3) changes across a line.

    Returns:
        (2, P) levels at each place: of colour, from one side to the other; of the gradient likewise.
    """
    at = places + step * np.array([-2, -1, 1, 2])[:, None, None] * outward  # (4, P, 2)
    x, y = at[..., 0].astype(np.float32), at[..., 1].astype(np.float32)
    values = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    colour = np.abs(values[2] - values[1]).mean(-1)
    gradient = np.abs((values[3] - values[2]) - (values[1] - values[0])).mean(-1)
    return np.stack([colour, gradient])


def _seam(jumps: np.ndarray) -> float:
    """Mean over places of generated over real jumps (T, 2, 2, P), each the mean over time.

    Place by place, lest a few strong edges of the picture, where no seam is seen, outweigh smooth skin.
    """
    generated, real = np.maximum(jumps.mean(0), _FLAT)
    return float((generated / real).mean())


def _changes(
    before: tuple[np.ndarray, np.ndarray], now: tuple[np.ndarray, np.ndarray], points: np.ndarray
) -> tuple[float, float]:
    """What motion does not explain of the change since the last frame, around the mouth: generated, real.

    Both are warped by the real video's optical flow, which knows no flicker.
    """
    matrix = _face_matrix(points)
    crop = lambda image: cut(image, matrix, _FLOW_PIXELS)  # noqa: E731
    (real_before, made_before), (real, made) = (tuple(map(crop, pair)) for pair in (before, now))
    grey, grey_before = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (real, real_before))
    still = np.zeros((*grey.shape, 2), np.float32)
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(grey, grey_before, still)
    y, x = np.indices(grey.shape, np.float32)
    around = np.ones(grey.shape, bool)
    if box := mouth_box(transform(points, matrix), (_FLOW_PIXELS, _FLOW_PIXELS)):
        around[box] = False
    change = []
    for image, previous in ((made, made_before), (real, real_before)):
        moved = cv2.remap(
            previous, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        change.append(float(np.abs(image.astype(np.int16) - moved)[around].mean()))
    return change[0], change[1]


def _face_matrix(points: np.ndarray) -> np.ndarray:
    """Affine map (2, 3) to an upright square around the face."""
    scale = _FLOW_PIXELS / (2.2 * face_unit(points))
    offset = _FLOW_PIXELS / 2 - scale * points[tp.NOSE_TIP, :2]
    return np.array([[scale, 0, offset[0]], [0, scale, offset[1]]])
