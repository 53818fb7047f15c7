"""Encoding of pictures: codec, colours, timestamps and quality; shared by all writers."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from talkface.media.color import ColorTags

CODECS = {".mp4": "libx264", ".m4v": "libx264", ".mov": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9"}
"""The codec that files of a suffix are written with."""

# The inverse of the reader's conversion: unchanged pictures are written as read, to within one level.
_FROM_RGB = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP
_LEAST_TICKS = 10_000  # a second, for frames at any time
_HIGHEST_LIMIT = 200_000_000  # bits a second; above, as for raw video, there is no limit
_NEWER_CODECS = {"hevc", "vp9", "av1", "vvc"}


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How pictures are to be encoded.

    Attributes:
        codec: FFmpeg's name of the encoder.
        size: Width and height in pixels of the pictures given; odd ones get a pixel more, a copy of the edge.
        fps: Frames a second, on average if variable.
        time_base: Seconds of a tick, of which the times of frames are multiples.
        tags: Colours.
        crf: Constant rate factor: quality, less is better and larger.
        max_rate: Bits a second that are not exceeded for long, or None.
        preset: Speed of the H.264 encoder.
        threads: Threads; 0 is as many as there are cores.
    """

    codec: str
    size: tuple[int, int]
    fps: Fraction
    time_base: Fraction
    tags: ColorTags = field(default_factory=ColorTags)
    crf: int = 18
    max_rate: int | None = None
    preset: str = "veryfast"
    threads: int = 0

    @property
    def coded_size(self) -> tuple[int, int]:
        """Width and height in pixels of the video: even, as its chroma has half the size."""
        return self.size[0] + self.size[0] % 2, self.size[1] + self.size[1] % 2

    def ticks(self, time: float) -> int:
        """A time in seconds, in ticks."""
        return round(time / self.time_base)


class StreamFacts(Protocol):
    """What the encoder asks of the video that the pictures come from; ``SourceVideo`` tells it.

    Attributes:
        size: Width and height in pixels of the upright pictures.
        fps: Frames a second, on average if variable.
        variable: Whether frames come at other times than multiples of ``1 / fps``.
        time_base: Seconds of a tick, of which the times of frames are multiples.
        bit_rate: Bits a second of the pictures, or None if unknown.
        codec: FFmpeg's name of the codec.
        tags: Colour tags.
        stored_height: Lines of the stored pictures, before they are turned.
    """

    size: tuple[int, int]
    fps: Fraction
    variable: bool
    time_base: Fraction
    bit_rate: int | None
    codec: str
    tags: ColorTags
    stored_height: int


def encoding_for(
    path: Path,
    like: StreamFacts | None,
    size: tuple[int, int],
    fps: Fraction,
    variable: bool,
    crf: int,
    preset: str,
    threads: int,
) -> Encoding:
    """How the pictures of a file are to be encoded; the arguments are those of ``VideoWriter``."""
    return Encoding(
        codec=CODECS[path.suffix.lower()],
        size=size,
        fps=fps,
        time_base=fine_time_base(like) if variable else 1 / fps,
        tags=like.tags.as_written(like.stored_height, size[1]) if like else ColorTags(),
        crf=crf,
        max_rate=max_rate(like),
        preset=preset,
        threads=threads,
    )


def fine_time_base(source: StreamFacts | None) -> Fraction:
    """Seconds of a tick for frames at any time: those of the source are multiples of it."""
    base = source.time_base if source else Fraction(1, 90_000)
    return base / max(1, math.ceil(_LEAST_TICKS * base))


def max_rate(source: StreamFacts | None) -> int | None:
    """Bits a second that a video edited from a source need not exceed.

    At a constant rate factor of 18, no loss is visible, but where the source has a low bit rate, the encoder
    would spend up to ten times as many bits to reproduce the source's coding artefacts. A fast H.264 encoder
    keeps what there is within four times the source's rate. Codecs newer than H.264 need about half the bits
    for the same quality, so six times are allowed there.
    """
    if source is None or not source.bit_rate:
        return None
    limit = max(100_000, round(source.bit_rate * (6 if source.codec in _NEWER_CODECS else 4)))
    return limit if limit < _HIGHEST_LIMIT else None


class FrameEncoder:
    """Encodes pictures into a stream of a container.

    Args:
        container: The container, to which nothing has been written.
        encoding: How to encode.
    """

    def __init__(self, container: OutputContainer, encoding: Encoding) -> None:
        self.encoding = encoding
        self._container, self._reformatter = container, VideoReformatter()
        self._stream = self._add_stream()
        self._last = -1

    @property
    def end(self) -> Fraction:
        """Seconds at which the last frame ends."""
        begun = self._last * self.encoding.time_base
        return begun + 1 / self.encoding.fps if self._last >= 0 else Fraction(0)

    def encode(self, image: np.ndarray, ticks: int) -> None:
        """Add a picture.

        Args:
            image: (H, W, 3) uint8 RGB.
            ticks: When it begins; taken for at least a tick later than the one before.

        Raises:
            ValueError: The image has another size or type.
        """
        frame = self._frame(image)
        self._last = max(ticks, self._last + 1)
        frame.pts, frame.time_base = self._last, self.encoding.time_base
        frame.duration = max(1, self.encoding.ticks(float(1 / self.encoding.fps)))
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Write what the encoder still holds."""
        self._container.mux(self._stream.encode(None))

    def _frame(self, image: np.ndarray) -> av.VideoFrame:
        width, height = self.encoding.size
        if image.shape != (height, width, 3) or image.dtype != np.uint8:
            raise ValueError(f"frame is {image.dtype} {image.shape}, not uint8 {(height, width, 3)}")
        coded = self.encoding.coded_size
        if coded != (width, height):
            image = np.pad(image, ((0, coded[1] - height), (0, coded[0] - width), (0, 0)), mode="edge")
        rgb = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(image), format="rgb24")
        return self._reformatter.reformat(
            rgb,
            format="yuv420p",
            src_color_range=ColorRange.JPEG,
            dst_colorspace=self.encoding.tags.meant_matrix(coded[1]),
            dst_color_range=self.encoding.tags.range,
            interpolation=_FROM_RGB,
        )

    def _add_stream(self) -> VideoStream:
        stream = self._container.add_stream(
            self.encoding.codec, rate=self.encoding.fps, options=dict(self._options())
        )
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = self.encoding.coded_size
        stream.pix_fmt = "yuv420p"
        stream.thread_count = self.encoding.threads
        stream.codec_context.time_base = self.encoding.time_base
        stream.color_range = self.encoding.tags.range
        stream.colorspace = self.encoding.tags.matrix
        stream.color_primaries = self.encoding.tags.primaries
        stream.color_trc = self.encoding.tags.transfer
        return stream

    def _options(self) -> Iterator[tuple[str, str]]:
        limit = self.encoding.max_rate
        yield "crf", str(self.encoding.crf)
        if self.encoding.codec == "libx264":
            yield "preset", self.encoding.preset
            if limit:
                yield "maxrate", str(limit)
                yield "bufsize", str(4 * limit)  # seconds of movement may have more
        else:
            yield from {"deadline": "realtime", "cpu-used": "7", "row-mt": "1", "b": str(limit or 0)}.items()
