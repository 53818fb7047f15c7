"""Pictures of every kind come out upright, in RGB, or are refused in one line."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from media_samples import gradient, tone, write_sound, write_video
from talkface.errors import OutputError, UnreadableMedia
from talkface.media.image import load_image, save_image

WIDTH, HEIGHT = 61, 47


@pytest.fixture
def picture() -> np.ndarray:
    return gradient(WIDTH, HEIGHT)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b).mean())


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tiff", ".gif", ".avif"])
def test_round_trip(tmp_path: Path, picture: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"a b'é{suffix}"
    save_image(path, picture)
    loaded = load_image(path)
    assert loaded.shape == picture.shape
    assert loaded.dtype == np.uint8
    assert difference(loaded, picture) < 6
    assert [child.name for child in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, picture: np.ndarray, orientation: int) -> None:
    turns: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: np.rot90,
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(turns[orientation](picture)))
    stored.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(load_image(tmp_path / "a.png"), picture)


def test_transparent_parts_are_white(tmp_path: Path, picture: np.ndarray) -> None:
    for image in (
        Image.fromarray(np.dstack([picture, np.zeros((HEIGHT, WIDTH), np.uint8)])),
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 2), np.uint8), "LA"),
    ):
        image.save(tmp_path / "a.png")
        assert (load_image(tmp_path / "a.png") == 255).all()
    palette = Image.fromarray(picture).quantize(16)
    palette.save(tmp_path / "a.gif", transparency=palette.getpixel((0, 0)))
    assert (load_image(tmp_path / "a.gif")[0, 0] == 255).all()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "key.png", transparency=(1, 2, 3))
    assert (load_image(tmp_path / "key.png") == 255).all()


def test_half_transparent(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (0, 0, 0, 128)).save(tmp_path / "a.png")
    assert (load_image(tmp_path / "a.png") == 127).all()


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "I;16", "F", "LAB"])
def test_modes(tmp_path: Path, picture: np.ndarray, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.tiff")
    grey = np.asarray(Image.fromarray(picture).convert("L"))
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray(grey.astype(np.float32) / 255)
    elif mode == "LAB":
        to_lab = ImageCms.buildTransform(
            ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
        )
        converted = ImageCms.applyTransform(Image.fromarray(picture), to_lab)
        assert converted is not None
        image = converted
    else:
        image = Image.fromarray(picture).convert(mode)
    image.save(path)
    loaded = load_image(path)
    expected = np.repeat(grey[..., None], 3, 2) if mode in ("L", "I;16", "F") else picture
    assert loaded.shape == picture.shape
    if mode not in ("1", "LAB"):
        assert difference(loaded, expected) < (20 if mode == "P" else 12)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_of_colour(tmp_path: Path, picture: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), picture[..., ::-1].astype(np.uint16) * 257)
    assert difference(load_image(path), picture) <= 1


def test_colour_profile_is_applied(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # A profile whose red is blue: its tags change names.
    swapped = profile.replace(b"rXYZ", b"tmp!").replace(b"bXYZ", b"rXYZ").replace(b"tmp!", b"bXYZ")
    swapped = swapped.replace("sRGB".encode("utf-16-be"), "xRGB".encode("utf-16-be"))
    for bytes_, expected in (
        (profile, (200, 10, 10)),
        (swapped, (10, 10, 200)),
        (b"no profile", (200, 10, 10)),
    ):
        Image.new("RGB", (8, 8), (200, 10, 10)).save(tmp_path / "a.png", icc_profile=bytes_)
        assert difference(load_image(tmp_path / "a.png"), np.array(expected)) < 3


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_first_frame_of_an_animation(tmp_path: Path, suffix: str) -> None:
    red, blue = (Image.new("RGB", (16, 16), color) for color in ("red", "blue"))
    red.save(tmp_path / f"a{suffix}", save_all=True, append_images=[blue], duration=100)
    assert difference(load_image(tmp_path / f"a{suffix}"), np.array([255, 0, 0])) < 3


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_hundred_megapixels(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), np.tile(gradient(10, 1), (10_000, 1_000, 1)), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert load_image(path, max_side=1000).shape == (1000, 1000, 3)


def test_too_many_pixels(tmp_path: Path) -> None:
    Image.new("1", (40_000, 11_000)).save(tmp_path / "a.png")
    with pytest.raises(UnreadableMedia, match="megapixels"):
        load_image(tmp_path / "a.png")


def test_scaled_down_keeps_its_shape(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", gradient(300, 100))
    scaled = load_image(tmp_path / "a.png", max_side=150)
    assert scaled.shape == (50, 150, 3)
    assert difference(scaled, gradient(150, 50)) < 2


def truncated(path: Path) -> None:
    save_image(path, np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:2000])


BAD: list[tuple[str, Callable[[Path], object], str]] = [
    ("missing.jpg", lambda path: None, "does not exist"),
    ("folder.jpg", lambda path: path.mkdir(), "directory"),
    ("empty.jpg", lambda path: path.write_bytes(b""), "empty"),
    ("text.jpg", lambda path: path.write_text("no picture"), "not a picture"),
    ("noise.png", lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)), "not a picture"),
    ("cut.jpg", truncated, "truncated"),
    ("cut.png", truncated, "truncated"),
    ("cut.webp", truncated, "truncated"),
    ("voice.wav", lambda path: write_sound(path, tone(0.2, 16000), 16000, "pcm_s16le"), "sound file"),
    ("film.mp4", lambda path: write_video(path, [gradient(64, 64)] * 3), "video"),
    ("phone.heic", lambda path: path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(100)), "HEIC"),
]


@pytest.mark.parametrize(("name", "make", "says"), BAD, ids=[name for name, _, _ in BAD])
def test_refused(tmp_path: Path, name: str, make: Callable[[Path], object], says: str) -> None:
    path = tmp_path / name
    make(path)
    with pytest.raises(UnreadableMedia, match=says) as caught:
        load_image(path)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_save_refused(tmp_path: Path, picture: np.ndarray) -> None:
    for path in (tmp_path / "nowhere" / "a.png", tmp_path, tmp_path / "a.docx", Path("/proc/a.png")):
        with pytest.raises(OutputError):
            save_image(path, picture)
    assert not list(tmp_path.iterdir())
