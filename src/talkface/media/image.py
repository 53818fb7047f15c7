"""Pictures in and out, as (H, W, 3) uint8 RGB arrays."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from talkface.errors import UnreadableMedia
from talkface.media.files import check_input, open_media, replacing

logger = logging.getLogger(__name__)

MAX_PIXELS = 400_000_000
"""Larger pictures are refused: decoding one would take gigabytes."""

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_REDUCIBLE = {"L", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"}


def load_image(path: str | Path, max_side: int = 4096) -> np.ndarray:
    """Read any picture: upright, in sRGB, over white where transparent; the first frame of an animation.

    Args:
        path: The file.
        max_side: Longer side in pixels above which the picture is scaled down, if possible while decoding.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        UnreadableMedia: It is missing, a directory, empty, truncated, no picture, or over 400 megapixels.
    """
    path = check_input(path)
    try:
        with _any_size(), Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                size = f"{image.width} x {image.height} pixels, over {MAX_PIXELS // 10**6} megapixels"
                raise UnreadableMedia(f"{path} has {size}; scale it down first")
            orientation = _orientation(image)
            small = _fit(_decode(image, max_side), max_side)
            upright = small.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else small
            return np.ascontiguousarray(_srgb(upright, image.info.get("icc_profile")))
    except UnreadableMedia:
        raise
    except UnidentifiedImageError:
        return _load_otherwise(path, max_side)
    except Exception as error:  # Pillow's decoders raise errors of many kinds on damaged data
        raise UnreadableMedia(
            f"{path} is a damaged or truncated picture ({error}); get the file again"
        ) from error


def save_image(path: str | Path, image: np.ndarray) -> None:
    """Write a picture of the kind its suffix says; an existing file is replaced.

    Args:
        path: The file.
        image: (H, W, 3) uint8 RGB.

    Raises:
        OutputError: The file cannot be written, or Pillow knows no such suffix.
    """
    with replacing(path) as partial:
        try:
            Image.fromarray(image).save(partial, quality=95)
        except ValueError as error:
            raise OSError(None, f"{error}; use .png or .jpg") from error


@contextmanager
def _any_size() -> Iterator[None]:
    """Lift Pillow's limit of pixels, which is lower than ours, for the time of one picture."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a picture with damaged tags is still a picture
        return 1


def _decode(image: Image.Image, max_side: int) -> Image.Image:
    """Decode into L, RGB, RGBA or CMYK of 8 bits; a JPEG at a fraction of its size if that is enough."""
    larger = max(image.size)
    if larger > max_side:
        # draft() keeps both sides at least as large as asked.
        width, height = (max(1, side * max_side // larger) for side in image.size)
        image.draft(None, (width, height))
    image.load()
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_eight_bits(np.asarray(image), image.mode))
    if image.mode in ("PA", "La", "RGBa") or "transparency" in image.info:
        return image.convert("RGBA")
    return image if image.mode in _REDUCIBLE - {"YCbCr", "LAB"} else image.convert("RGB")


def _eight_bits(values: np.ndarray, mode: str) -> np.ndarray:
    """Scale 16-bit or floating-point grey (H, W) to 0..255."""
    if mode == "F":
        finite = np.nan_to_num(values, posinf=0.0, neginf=0.0)
        scale = 255.0 if finite.max(initial=0.0) <= 1.0 else 1.0
        grey: np.ndarray = np.clip(finite * scale + 0.5, 0, 255)
    else:  # Pillow's 32-bit integers come from 16-bit files
        grey = np.clip(values, 0, 65535).astype(np.uint16) >> 8
    return grey.astype(np.uint8)


def _fit(image: Image.Image, max_side: int) -> Image.Image:
    """Scale down to ``max_side``; roughly by whole factors first, which is fast and needs no large copy."""
    larger = max(image.size)
    if larger <= max_side:
        return image
    size = max(1, round(image.width * max_side / larger)), max(1, round(image.height * max_side / larger))
    logger.info("picture scaled down from %d x %d to %d x %d", *image.size, *size)
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert to RGB with the colours that the file's profile means, over white."""
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    if image.mode == "LA":
        image = image.convert("L")
    elif image.mode == "RGBA":
        image = image.convert("RGB")
    if profile and image.mode in ("RGB", "CMYK"):
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            if "sRGB" not in ImageCms.getProfileDescription(source):
                converted = ImageCms.profileToProfile(
                    image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
                )
                image = converted or image
        except (ImageCms.PyCMSError, OSError, ValueError) as error:
            logger.info("colour profile ignored: %s", error)
    image = image.convert("RGB")
    if alpha is None:
        return image
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image, mask=alpha)
    return white


def _load_otherwise(path: Path, max_side: int) -> np.ndarray:
    """Read what Pillow does not know, such as TIFF of 16-bit colours, or say what the file is instead."""
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) if _opencv_knows(path) else None
    if image is None:
        raise UnreadableMedia(_what_else(path))
    return np.asarray(_fit(Image.fromarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)), max_side))


def _opencv_knows(path: Path) -> bool:
    try:
        return bool(cv2.haveImageReader(str(path)))
    except cv2.error:
        return False


def _what_else(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        return f"{path} is a HEIC picture, which cannot be read; save it as JPEG or PNG"
    try:
        with open_media(path) as container:
            if container.streams.video and container.format.name not in ("tty", "image2"):
                return f"{path} is a video, not a picture; give a picture, such as JPEG or PNG"
            if container.streams.audio:
                return f"{path} is a sound file, not a picture; give a picture, such as JPEG or PNG"
    except UnreadableMedia:
        pass
    return f"{path} is not a picture that can be read; give one such as JPEG or PNG"
