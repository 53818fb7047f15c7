"""Colours of edited videos: more than 8 bits, high dynamic range, and tags."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from media_samples import write_codes, write_film, write_video
from talkface.media.color import WHITE_NITS, ColorTags, tone_map
from talkface.media.source import SourceVideo
from talkface.media.video import VideoWriter


def test_ten_bits(tmp_path: Path) -> None:
    levels = np.array([64, 200, 400, 500, 700, 940])
    source = SourceVideo(write_codes(tmp_path / "a.mp4", levels, ColorTags()))
    assert source.bit_depth == 10
    assert source.notes == ["10-bit colour is written with 8 bits"]
    image = next(iter(source)).image
    assert image[16, 8::16, 1].tolist() == pytest.approx((levels - 64) / 876 * 255, abs=1.01)


def pq_code(nits: np.ndarray) -> np.ndarray:
    """Luma codes of 10 bits (SMPTE ST 2084)."""
    root = (nits / 10000) ** 0.1593017578125
    return np.round(64 + 876 * ((0.8359375 + 18.8515625 * root) / (1 + 18.6875 * root)) ** 78.84375)


def hlg_code(nits: np.ndarray) -> np.ndarray:
    """Luma codes of 10 bits (ITU-R BT.2100) for a screen with a peak of 1000 nits."""
    scene = (nits / 1000) ** (1 / 1.2)
    high = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.round(64 + 876 * np.where(scene <= 1 / 12, np.sqrt(3 * scene), high))


@pytest.mark.parametrize(("transfer", "name", "code"), [(16, "PQ", pq_code), (18, "HLG", hlg_code)])
def test_high_dynamic_range(
    tmp_path: Path, transfer: int, name: str, code: Callable[[np.ndarray], np.ndarray]
) -> None:
    nits = np.array([0.0, 5.0, 20.0, 60.0, 100.0, 121.0, 203.0, 400.0, 999.0])
    tags = ColorTags(primaries=9, transfer=transfer, matrix=9)
    source = SourceVideo(write_codes(tmp_path / "a.mp4", code(nits), tags, count=5))
    assert source.notes == [f"10-bit HDR ({name}) is tone-mapped to 8-bit BT.709"]
    frames = list(source)
    assert len(frames) == 5
    shown = frames[0].image[16, 8::16].astype(int)
    assert (shown == shown[:, :1]).all()  # grey stays grey
    # Faces are as bright as they were; white is a little below the brightest.
    faces = slice(1, 6)
    expected = 255 * (nits[faces] / WHITE_NITS) ** (1 / 2.4)
    assert shown[faces, 1].tolist() == pytest.approx(expected.tolist(), abs=3)
    assert (shown[0, 1], shown[-1, 1]) == (0, 255)
    assert 220 < shown[6, 1] < shown[7, 1] < 252
    path = tmp_path / "out.mp4"
    with VideoWriter(path, source.size, source.fps, like=source) as writer:
        for frame in source:
            writer.write(frame.image, frame.time)
    written = SourceVideo(path)
    assert (written.tags, written.bit_depth, written.notes) == (ColorTags(), 8, [])
    assert np.abs(next(iter(written)).image[16, 8::16].astype(int) - shown).max() <= 2


def test_rotated_high_dynamic_range(tmp_path: Path) -> None:
    """What telephones record."""
    flat, turned = tmp_path / "a.mp4", tmp_path / "b.mp4"
    write_codes(flat, np.array([64.0, 300.0, 500.0, 700.0, 900.0]), ColorTags(9, 18, 9, 1))
    with av.open(str(flat)) as source, av.open(str(turned), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(90)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    upright = SourceVideo(turned)
    assert (upright.size, upright.rotation, len(upright.notes)) == ((32, 80), 90, 2)
    assert np.array_equal(next(iter(upright)).image, np.rot90(next(iter(SourceVideo(flat))).image))


@given(code=st.tuples(*[st.floats(0, 1)] * 3), transfer=st.sampled_from([16, 18]))
def test_tone_mapping_keeps_the_range_and_the_order_of_light(
    code: tuple[float, float, float], transfer: int
) -> None:
    mapped = tone_map(np.array(code), transfer)
    brighter = tone_map(np.minimum(np.array(code) * 1.01, 1.0), transfer)
    assert ((mapped >= 0) & (mapped <= 1)).all()
    assert brighter.max() >= mapped.max() - 1e-6


TAGS = {
    "709": ColorTags(1, 1, 1, 1),
    "601 of 525 lines": ColorTags(6, 6, 6, 1),
    "601 of 625 lines": ColorTags(5, 6, 5, 1),
    "nothing said": ColorTags(2, 2, 2, 0),
    "all numbers used": ColorTags(1, 1, 1, 2),
    "sRGB of 601": ColorTags(1, 13, 6, 2),
    "2020": ColorTags(9, 14, 9, 1),
}


@pytest.mark.parametrize("tags", TAGS.values(), ids=TAGS)
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_colours_survive(tmp_path: Path, suffix: str, tags: ColorTags) -> None:
    colours = np.array(
        [[200, 40, 40], [40, 180, 60], [30, 60, 210], [128, 128, 128], [235, 200, 180], [0] * 3]
    )
    image = np.repeat(np.repeat(colours[None], 32, 1), 32, 0).astype(np.uint8)
    path = write_film(tmp_path / f"a.{suffix}", [image] * 3, Fraction(25), tags=tags, crf=1)
    source = SourceVideo(path)
    assert source.tags == tags
    read = next(iter(source)).image
    assert np.abs(read[16, 16::32].astype(int) - colours).max() <= 3
    copy = tmp_path / f"copy.{suffix}"
    with VideoWriter(copy, source.size, source.fps, like=source, crf=1) as writer:
        for frame in source:
            writer.write(frame.image, frame.time)
    again = SourceVideo(copy)
    assert replace(again.tags, range=again.tags.range or 1) == replace(tags, range=tags.range or 1)
    assert np.abs(next(iter(again)).image[16, 16::32].astype(int) - read[16, 16::32]).max() <= 2
    assert np.abs(next(iter(again)).image.astype(int) - read).mean() <= 1.5


def test_upright_pictures_of_unsaid_colours_say_theirs(tmp_path: Path) -> None:
    """Players guess by the height, which is another one when the picture is upright."""
    image = np.full((640, 720, 3), (200, 40, 40), np.uint8)
    path = write_video(tmp_path / "a.mp4", [image] * 2, rotation=90)
    source = SourceVideo(path)
    copy = tmp_path / "b.mp4"
    with VideoWriter(copy, source.size, 25, like=source) as writer:
        writer.write(next(iter(source)).image)
    assert (source.tags.matrix, SourceVideo(copy).tags.matrix) == (2, 5)
    difference = next(iter(SourceVideo(copy))).image[300, 300].astype(int) - (200, 40, 40)
    assert np.abs(difference).max() <= 4
