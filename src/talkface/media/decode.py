"""Decoding of video from any time on, into upright 8-bit RGB frames; shared by all readers."""

import logging
import math
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import av.filter
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from talkface.errors import UnreadableMedia
from talkface.media.color import UNSPECIFIED, ColorTags, tone_map_cube
from talkface.media.files import is_picture, open_media

logger = logging.getLogger(__name__)

TOLERANCE = 1e-3
"""Seconds that a timestamp may be off: many containers round to milliseconds."""

# By default swscale darkens pictures by a level on the way to RGB.
_TO_RGB = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
# Seconds before the wanted time to seek to, until a keyframe is found.
_SEEK_BACK = (0.0, 2.0, 10.0, math.inf)


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame of a video.

    Attributes:
        image: (H, W, 3) uint8 RGB, upright.
        time: Seconds since the first frame.
        source_time: Seconds at which it is shown in the video it comes from; None if that is ``time``.
    """

    image: np.ndarray
    time: float
    source_time: float | None = None

    @property
    def origin(self) -> float:
        """Seconds at which it is shown in the video it comes from."""
        return self.time if self.source_time is None else self.source_time


@dataclass(frozen=True, slots=True)
class Decoded:
    """A frame as decoded, which needs at most half the memory of its RGB picture, and its time in seconds."""

    frame: av.VideoFrame
    time: float


class VideoDecoder:
    """Decodes the video stream of a file, as often and from where it is asked to.

    Damaged frames are left out, interlaced ones deinterlaced, high dynamic range is made ordinary.

    Args:
        path: Any video file.

    Attributes:
        size: Width and height in pixels of the upright pictures.
        first: The first frame as decoded, neither filtered nor converted.
        origin: Seconds of the first frame on the file's own clock; times are counted from there.
        aspect: Width of a stored pixel by its height; pictures have square ones.
        tags: What the stored numbers mean.
        interlaced: Whether frames are deinterlaced.
        damaged: Timestamps of the damaged frames found so far.
        fps: Frames a second, for files that do not tell the times of frames; set by the reader once known.

    Raises:
        UnreadableMedia: There is no such file, or it is no video, or damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path, self.damaged = Path(path), set[int]()
        self._kept = threading.local()
        with self.open() as container:
            stream = video_stream(container, self.path)
            self.aspect = stream.sample_aspect_ratio or Fraction(1)
            rate = stream.average_rate or stream.guessed_rate or Fraction(25)
            fields = stream.codec_context.field_order
            first = next(self._decode(container, stream), None)
        if first is None:
            raise UnreadableMedia(f"{path} holds no frame that can be decoded: it is truncated or damaged")
        self.first, self.tags, self.fps = first, ColorTags.of(first), rate
        self.origin = None if first.pts is None else first.time
        self.interlaced = bool(first.interlaced_frame) or fields > 1
        self._filtered = self.interlaced or self.tags.hdr is not None
        # All frames are given the size of the first, should it change.
        width = first.width if self.aspect == 1 else 2 * max(1, round(first.width * self.aspect / 2))
        self._stored = width, first.height
        self.size = self._stored[::-1] if round(first.rotation / 90) % 2 else self._stored

    def open(self) -> InputContainer:
        """Open the file; close it after use."""
        return open_media(self.path)

    def frames(self, start: float = 0.0, sparse: bool = False) -> Iterator[Decoded]:
        """Decode from the frame that is shown at ``start`` seconds, or a little earlier, to the end.

        With ``sparse``, frames that no other frame refers to are left out: often half of them, in half the
        time.
        """
        for back in _SEEK_BACK:
            with self.open() as container:
                stream = video_stream(container, self.path)
                stream.codec_context.skip_frame = "NONREF" if sparse else "DEFAULT"
                target = start - back if self.origin is not None else -math.inf
                if target > 0:
                    self._seek(container, stream, target)
                frames = self._timed(self._filter(self._decode(container, stream, start)))
                first = next(frames, None)
                # Some files have no index, or one that does not say where decoding can begin.
                if target <= 0 or (first and first.time <= start + TOLERANCE):
                    if first:
                        yield first
                    yield from frames
                    return

    def near(self, time: float) -> Iterator[Decoded]:
        """Decode from the keyframe before ``time`` on, wherever the seek ends up."""
        with self.open() as container:
            stream = video_stream(container, self.path)
            if self.origin is not None and time > 0:
                self._seek(container, stream, time)
            yield from self._timed(self._filter(self._decode(container, stream, time)))

    def packet_times(self, start: float = -math.inf) -> Iterator[tuple[float, float]]:
        """Begin and duration (0 if unknown) of packets in seconds, from the keyframe before ``start`` on."""
        seekable = self.origin is not None and start > 0
        with self.open() as container, suppress(av.FFmpegError):  # where it is damaged, it ends
            stream = video_stream(container, self.path)
            if seekable:
                self._seek(container, stream, start)
            times = self._packet_times(container, stream)
            first = next(times, None)
            if not seekable or (first and first[0] <= start + TOLERANCE):
                if first:
                    yield first
                yield from times
                return
        yield from self.packet_times()  # no index, or one that does not say where the keyframes are

    def _packet_times(self, container: InputContainer, stream: VideoStream) -> Iterator[tuple[float, float]]:
        for number, packet in enumerate(container.demux(stream)):
            time = packet.pts if packet.pts is not None else packet.dts
            if not packet.size or packet.is_discard:
                continue
            if time is None or self.origin is None:
                yield float(number / self.fps), 0.0
            else:
                base = packet.time_base
                yield float(time * base) - self.origin, float((packet.duration or 0) * base)

    def image(self, frame: av.VideoFrame) -> np.ndarray:
        """Convert to RGB, with square pixels, upright: (H, W, 3) uint8."""
        # Kept, for it takes long to set up, but none may be used by two threads at once.
        if not hasattr(self._kept, "reformatter"):
            self._kept.reformatter = VideoReformatter()
        image = self._kept.reformatter.reformat(
            frame,
            *self._stored,
            format="rgb24",
            src_colorspace=ColorTags.of(frame).meant_matrix(frame.height),
            dst_color_range=ColorRange.JPEG,
            interpolation=_TO_RGB,
        ).to_ndarray()
        quarter_turns = round(frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(image, quarter_turns)) if quarter_turns else image

    def picture(self, decoded: Decoded, origin: float = 0.0) -> Frame:
        """Convert, with time counted from ``origin``."""
        return Frame(self.image(decoded.frame), max(0.0, decoded.time - origin))

    def _seek(self, container: InputContainer, stream: VideoStream, target: float) -> None:
        """Go to the last keyframe before a time, or to the beginning."""
        assert self.origin is not None
        assert stream.time_base
        try:
            container.seek(math.floor((self.origin + target) / stream.time_base), stream=stream)
        except av.FFmpegError:  # before the first place in the index, or beyond the last
            container.seek(0)

    def _timed(self, frames: Iterator[av.VideoFrame]) -> Iterator[Decoded]:
        last = -math.inf
        for frame in frames:
            time = -math.inf if frame.pts is None or self.origin is None else frame.time - self.origin
            if not time > last:  # no timestamps, or some that stand still or step back
                time = 0.0 if last == -math.inf else last + float(1 / self.fps)
            last = time
            yield Decoded(frame, last)

    def _decode(
        self, container: InputContainer, stream: VideoStream, start: float = 0.0
    ) -> Iterator[av.VideoFrame]:
        """Decode, leaving out damaged frames; those before ``start`` do not count: seeking may cause them."""
        known = len(self.damaged)
        base = stream.time_base or Fraction(1, 90_000)
        earliest = (start + (self.origin or 0.0)) / base if start > 0 else -math.inf
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:
                logger.warning("%s is damaged, its end is left out: %s", self.path, error)
                break
            if packet is None:
                break
            time = packet.pts if packet.pts is not None else packet.dts
            try:
                frames = packet.decode()
            except av.FFmpegError:
                if time is None or time >= earliest:
                    self.damaged.add(-len(self.damaged) - 1 if time is None else time)
                continue
            for frame in frames:
                if frame.pts is None:  # AVI files tell only when to decode
                    frame.pts = frame.dts
                if not frame.is_corrupt:
                    yield frame
                elif frame.pts is None or frame.pts >= earliest:
                    self.damaged.add(-len(self.damaged) - 1 if frame.pts is None else frame.pts)
        if len(self.damaged) > known:
            logger.warning("%s: %d damaged frame(s) left out", self.path, len(self.damaged))

    def _filter(self, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        """Deinterlace and tone-map; as many frames come out as go in."""
        if not self._filtered:
            yield from frames
            return
        kind, graph = None, None
        for frame in frames:
            if graph and kind != (frame.width, frame.height, frame.format.name):
                yield from _drain(graph)
                graph = None
            if graph is None:
                kind, graph = (frame.width, frame.height, frame.format.name), self._graph(frame)
            graph.push(frame)
            yield from _ready(graph)
        if graph:
            yield from _drain(graph)

    def _graph(self, frame: av.VideoFrame) -> av.filter.Graph:
        graph, known = av.filter.Graph(), self.tags.matrix != UNSPECIFIED
        chain = [
            graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
            )
        ]
        if self.interlaced:
            chain.append(graph.add("bwdif", mode="send_frame", deint="interlaced"))
        with tempfile.TemporaryDirectory() as folder:
            if self.tags.hdr:
                cube = Path(folder, "tone.cube")
                cube.write_text(tone_map_cube(self.tags.transfer))
                flags, matrix = "bilinear+accurate_rnd+full_chroma_int", "auto" if known else "bt2020"
                chain.append(graph.add("scale", flags=flags, in_color_matrix=matrix))
                chain.append(graph.add("format", pix_fmts="gbrpf32le"))
                chain.append(graph.add("lut3d", file=str(cube), interp="tetrahedral"))
                chain.append(graph.add("format", pix_fmts="rgb24"))
            chain.append(graph.add("buffersink"))
            for one, other in pairwise(chain):
                one.link_to(other)
            graph.configure()  # reads the table
        return graph


def _ready(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
    """Frames that a graph has ready."""
    while True:
        try:
            frame = graph.vpull()
        except (av.BlockingIOError, av.EOFError):
            return
        yield frame


def _drain(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
    """The rest of a graph's frames."""
    graph.push(None)
    yield from _ready(graph)


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The video stream of an open file.

    Raises:
        UnreadableMedia: There is none.
    """
    from av.stream import Disposition

    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        if container.streams.audio:
            raise UnreadableMedia(f"{path} is a sound file without pictures; give a video")
        raise UnreadableMedia(f"{path} has no video stream; give a video")
    if container.format.name.endswith(("_pipe", "image2")) and is_picture(path):
        raise UnreadableMedia(f"{path} is a picture, not a video; give a video")
    streams[0].thread_type = "AUTO"
    return streams[0]


def header_duration(container: InputContainer, stream: VideoStream) -> float:
    """Seconds that a video lasts as its header says, or 0."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else 0.0


def audio_offset(container: InputContainer, video: VideoStream, index: int = 0) -> float:
    """Seconds from the first frame to the start of the sound."""
    streams = container.streams.audio
    heard, shown = _start_time(streams[index]) if index < len(streams) else None, _start_time(video)
    return 0.0 if heard is None or shown is None else float(heard - shown)


def _start_time(stream: AudioStream | VideoStream) -> Fraction | None:
    """Seconds at which a stream starts on the file's own clock, if the header says so."""
    if stream.start_time is None or stream.time_base is None:
        return None
    return stream.start_time * stream.time_base
