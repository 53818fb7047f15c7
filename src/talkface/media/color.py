"""Colours of video: what the numbers of a stream mean, and high dynamic range made ordinary.

The tags are those of ITU-T H.273, by number, as in FFmpeg.
"""

from dataclasses import dataclass
from functools import lru_cache

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

UNSPECIFIED = 2
HDR_NAMES = {int(ColorTrc.SMPTE2084): "PQ", int(ColorTrc.ARIB_STD_B67): "HLG"}
"""Transfer functions of high dynamic range, with the names that people know."""

WHITE_NITS = 203.0
"""Luminance of a white page in a picture of high dynamic range (ITU-R BT.2408)."""
PEAK_NITS = 1000.0
"""What becomes the brightest white of an ordinary picture; what is brighter still is cut."""
KNEE = 0.6
"""Up to this fraction of ``WHITE_NITS``, where faces are, tone mapping changes nothing."""

_BT601 = {5, 6}  # the matrices of 625 and 525 lines are the same
_WRITABLE = {1, 4, *_BT601, 7, 9}
_TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
_LUMA_BT2020 = np.array([0.2627, 0.6780, 0.0593])


@dataclass(frozen=True)
class ColorTags:
    """What the numbers of a video stream mean (ITU-T H.273); 2 is unspecified, and 0 for the range.

    Attributes:
        primaries: Chromaticities of red, green and blue.
        transfer: The transfer function from light to numbers.
        matrix: The matrix from RGB to luma and chroma.
        range: 1 if black is 16 and white 235 of 255, 2 if all numbers are used.
    """

    primaries: int = int(ColorPrimaries.BT709)
    transfer: int = int(ColorTrc.BT709)
    matrix: int = int(Colorspace.ITU709)
    range: int = int(ColorRange.MPEG)

    @classmethod
    def of(cls, tagged: av.VideoFrame | VideoCodecContext) -> "ColorTags":
        """The tags of a frame or stream."""
        return cls(
            int(tagged.color_primaries),
            int(tagged.color_trc),
            int(tagged.colorspace),
            int(tagged.color_range),
        )

    @property
    def hdr(self) -> str | None:
        """``"PQ"`` or ``"HLG"`` where the dynamic range is high, else None."""
        return HDR_NAMES.get(self.transfer)

    def meant_matrix(self, height: int) -> int:
        """The matrix, guessed as players do for pictures of ``height`` lines where it is not specified.

        Both matrices of BT.601 are 5, as swscale has it.
        """
        if self.matrix in _BT601:
            return int(Colorspace.ITU601)
        if self.matrix != UNSPECIFIED:
            return self.matrix
        return int(Colorspace.ITU709 if height >= 720 else Colorspace.ITU601)

    def as_written(self, stored_height: int, height: int) -> "ColorTags":
        """The tags for 8-bit Y'CbCr of the same look: the same, if such pictures can have them.

        Args:
            stored_height: Lines of the pictures that have these tags.
            height: Lines of the pictures to be written; other ones, players may take for another matrix.
        """
        if self.hdr:
            return ColorTags()
        primaries, transfer = _standard(self.primaries), _standard(self.transfer)
        matrix = self.meant_matrix(stored_height)
        if matrix not in _WRITABLE:  # RGB and rare ones
            return ColorTags(primaries, transfer)
        if self.matrix == UNSPECIFIED and self.meant_matrix(height) == matrix:
            matrix = UNSPECIFIED
        elif self.matrix != UNSPECIFIED:
            matrix = self.matrix
        return ColorTags(primaries, transfer, matrix, self.range or int(ColorRange.MPEG))


def _standard(tag: int) -> int:
    """The tag, or unspecified if it is reserved or not of H.273."""
    return tag if 0 < tag < 23 and tag != 3 else UNSPECIFIED


def tone_map(code: np.ndarray, transfer: int) -> np.ndarray:
    """Bring pictures of high dynamic range into the ordinary one, for a screen of BT.709 (BT.1886 gamma).

    The code is turned into the light of a screen (PQ: SMPTE ST 2084; HLG: BT.2100 with a peak of 1000 nits),
    BT.2020 into BT.709. Light up to 0.6 of reference white stays; above, an extended Reinhard curve of the
    largest of red, green and blue brings the peak to 1, so that hues stay. What BT.709 cannot show is cut.

    Args:
        code: (..., 3) R'G'B' of BT.2020 in [0, 1].
        transfer: 16 (PQ) or 18 (HLG).

    Returns:
        (..., 3) R'G'B' of BT.709 in [0, 1].
    """
    light = (_hlg_light(code) if transfer == ColorTrc.ARIB_STD_B67 else _pq_light(code)) / WHITE_NITS
    light = np.clip(light @ _TO_BT709.T, 0.0, None)
    largest = np.maximum(light.max(-1, keepdims=True), 1e-9)
    above = np.maximum(largest - KNEE, 0.0) / (1 - KNEE)
    peak = (PEAK_NITS / WHITE_NITS - KNEE) / (1 - KNEE)
    rolled = KNEE + (1 - KNEE) * above * (1 + above / peak**2) / (1 + above)
    light *= np.where(largest > KNEE, rolled, largest) / largest
    mapped: np.ndarray = np.clip(light, 0.0, 1.0) ** (1 / 2.4)
    return mapped


def _pq_light(code: np.ndarray) -> np.ndarray:
    """Nits (SMPTE ST 2084)."""
    root = np.clip(code, 0, 1) ** (32 / 2523)
    linear: np.ndarray = (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (8192 / 1305)
    return 10000 * linear


def _hlg_light(code: np.ndarray) -> np.ndarray:
    """Nits on a screen with a peak of 1000 (ITU-R BT.2100, system gamma 1.2)."""
    high = (np.exp((np.maximum(code, 0.5) - 0.55991073) / 0.17883277) + 0.28466892) / 12
    scene = np.where(code <= 0.5, code**2 / 3, high)
    luma = np.maximum(scene @ _LUMA_BT2020, 1e-9)[..., None]
    light: np.ndarray = PEAK_NITS * scene * luma**0.2
    return light


@lru_cache(maxsize=2)
def tone_map_cube(transfer: int, size: int = 33) -> str:
    """``tone_map`` as a table of size³ colours in the format of Adobe's ``.cube`` files, red the fastest."""
    steps = np.linspace(0, 1, size)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    colors = tone_map(np.stack([red, green, blue], -1), transfer).reshape(-1, 3)
    lines = [f"{r:.5f} {g:.5f} {b:.5f}" for r, g, b in colors.tolist()]
    return "\n".join([f"LUT_3D_SIZE {size}", *lines, ""])
