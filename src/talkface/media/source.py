"""A video that is to be edited: what it is, and its frames from one time to another."""

import logging
import math
import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from talkface.errors import InvalidOption, UnreadableMedia
from talkface.media.audio import stream_audio
from talkface.media.decode import (
    TOLERANCE,
    Decoded,
    Frame,
    VideoDecoder,
    audio_offset,
    header_duration,
    video_stream,
)
from talkface.media.rate import exact_fps

logger = logging.getLogger(__name__)

_RATE_PACKETS = 300  # packets at the beginning from which the frame rate is judged
_LOOK_BACK = (2.0, 20.0, math.inf)  # seconds before the end to look for the last frame, one after another
_DISORDER = 2.0  # seconds by which packets may be out of order
_REVERSE_BYTES = 128 << 20  # of decoded frames held while playing backwards
_SHORT_VIDEO = 1000  # frames; so many are decoded in a few seconds
_SPARSE_FACTOR = 3  # with so many times the wanted frames, those that no other refers to can be left out
_SCAN_FRAMES, _SCAN_STEP = 4, 6  # of a fast scan: frames taken at one place, and how many frames apart


def parse_time(text: str) -> float:
    """Seconds of a time such as ``12.5``, ``00:10`` or ``1:02:03.5``.

    Raises:
        InvalidOption: It is no such time.
    """
    match = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)", text.strip(), re.ASCII)
    hours, minutes, seconds = match.groups() if match else ("", "", "60")
    if (minutes and float(seconds) >= 60) or (hours and float(minutes) >= 60) or not match:
        raise InvalidOption(
            f"{text!r} is no time; write seconds (12.5), minutes:seconds (00:10) or hours:minutes:seconds"
        )
    return 3600 * float(hours or 0) + 60 * float(minutes or 0) + float(seconds)


class SourceVideo:
    """A video that is to be edited, or a stretch of it; iterate it as often as needed.

    Frames are upright 8-bit RGB with square pixels and come at the file's own times, at constant rate or not.
    Damaged ones are left out, and the others keep their times.

    Args:
        path: Any video file.
        start: Seconds since the first frame; frames that begin earlier are left out.
        stop: Frames that begin at this time or later are left out; None for all.
        audio_stream: Which audio stream of the file is its speech.

    Attributes:
        size: Width and height in pixels of the upright frames.
        fps: Frames a second, the exact fraction; the average if variable.
        variable: Whether frames come at other times than multiples of ``1 / fps``.
        duration: Seconds that the stretch lasts, until its last frame ends.
        last: Seconds since the first frame at which the last one begins.
        frame_count: How many frames there are: exact for constant rates, unless some are damaged or missing.
        time_base: Seconds of a tick of the file, of which frame times are multiples.
        bit_rate: Bits a second of the pictures, or None.
        codec: FFmpeg's name of the codec.
        bit_depth: Bits a sample.
        tags: Colour tags of the file.
        stored_height: Lines of the stored pictures, before they are turned.
        rotation: Degrees by which players turn the stored pictures, against the clock: 0, 90, 180 or 270.
        interlaced: Whether frames are deinterlaced.
        has_audio: Whether the file has sound.
        audio_streams: How many audio streams the file has.
        audio_offset: Seconds from the first frame of the file to the start of the sound.
        notes: A short sentence for each conversion that the user should know of.

    Raises:
        UnreadableMedia: There is no such file, or it is no video, or damaged, or has no such audio stream.
        InvalidOption: ``start`` or ``stop`` is outside the video.
    """

    def __init__(
        self, path: str | Path, start: float = 0.0, stop: float | None = None, audio_stream: int = 0
    ) -> None:
        self.path, self.start, self.stop = Path(path), start, stop
        if not (math.isfinite(start) and start >= 0):
            raise InvalidOption(f"start is {start:g}; choose a time in seconds of at least 0")
        if stop is not None and not stop > start:
            raise InvalidOption(f"stop, {stop:g} s, must be later than start, {start:g} s")
        self._decoder, self._missing = VideoDecoder(self.path), 0
        first = self._decoder.first
        self.size, self.tags, self.stored_height = self._decoder.size, self._decoder.tags, first.height
        self.rotation, self.interlaced = round(first.rotation) % 360, self._decoder.interlaced
        self.bit_depth = max(component.bits for component in first.format.components)
        with self._decoder.open() as container:
            stream = video_stream(container, self.path)
            self.codec = stream.codec_context.name
            self.bit_rate = _bit_rate(container, stream, self.path)
            self.time_base = stream.time_base or Fraction(1, 90_000)
            self._read_audio(container, stream, audio_stream)
            self._read_times(container, stream)
        self.notes = list(self._conversions())

    def __iter__(self) -> Iterator[Frame]:
        return self.frames()

    @property
    def damaged(self) -> int:
        """How many frames have been found damaged or missing so far."""
        return max(len(self._decoder.damaged), self._missing)

    def frames(self, begin: float = 0.0) -> Iterator[Frame]:
        """The frames that begin at ``begin`` seconds since the first selected one, or later."""
        count = 0
        for decoded in self._selected(begin, math.inf):
            count += 1
            yield self._picture(decoded)
        if begin == 0 and not self.variable and self.frame_count - count > self.damaged:
            self._missing = self.frame_count - count
            logger.warning(
                "%s: %d of %d frames are damaged or missing", self.path, self._missing, self.frame_count
            )

    def backwards(self, end: float) -> Iterator[Frame]:
        """The frames that begin before ``end``, from the last to the first; few are held at a time."""
        frame = self._decoder.first
        size = sum(plane.buffer_size for plane in frame.planes)
        length = min(1.0, max(1, _REVERSE_BYTES // size) / float(self.fps))
        while end > TOLERANCE:
            begin = max(0.0, end - length)
            for decoded in reversed(list(self._selected(begin, end))):
                yield self._picture(decoded)
            end = begin

    def nearest(self, times: Iterable[float]) -> Iterator[Frame]:
        """For each time, ascending, the frame that begins nearest to it."""
        wanted = iter(times)
        first = next(wanted, None)
        if first is None:
            return
        frames = self._from(first, math.inf)
        shown, after = next(frames), next(frames, None)
        for time in chain([self._origin + first], (self._origin + time for time in wanted)):
            while after and after.time - time < time - shown.time:
                shown, after = after, next(frames, None)
            yield self._picture(shown)

    def sparse(self, count: int = 32) -> Iterator[Frame]:
        """Up to ``count`` frames spread over the video, for a fast look at all of it.

        A short video is decoded and frames at even distances taken. In a longer one, places at even distances
        are looked up, and a few frames are taken from the keyframe at each on, so that the time it takes does
        not depend on the length. Where a file cannot be searched, frames come only from its beginning.
        """
        if self.frame_count <= _SHORT_VIDEO:
            yield from self._spread(count)
            return
        places, after = max(1, count // _SCAN_FRAMES), -math.inf
        for place in range(places):
            target = self._origin + self.duration * place / places
            for decoded in islice(self._decoder.near(target), 0, _SCAN_FRAMES * _SCAN_STEP, _SCAN_STEP):
                if decoded.time > after and self._first - TOLERANCE <= decoded.time < self._limit:
                    after = decoded.time
                    yield self._picture(decoded)

    def _spread(self, count: int) -> Iterator[Frame]:
        """Up to ``count`` frames, one after each of as many times at even distances, decoded in one go."""
        step, due = self.duration / count, 0.0
        for decoded in self._from(0.0, math.inf, sparse=self.frame_count >= _SPARSE_FACTOR * count):
            if decoded.time - self._origin >= due - TOLERANCE:
                yield self._picture(decoded)
                due = max(due + step, decoded.time - self._origin)

    def speech(self, sample_rate: int = 16000, block_seconds: float = 4.0) -> Iterator[np.ndarray]:
        """The original sound beside the frames: (N,) float32 mono in [-1, 1], as long as the frames last.

        Raises:
            UnreadableMedia: There is no sound, or it is damaged.
        """
        wanted = round(self.duration * sample_rate)
        begin = self._origin - self.audio_offset
        silence = min(wanted, max(0, round(-begin * sample_rate)))
        if silence:
            yield np.zeros(silence, np.float32)
            wanted -= silence
        for block in stream_audio(
            self.path, sample_rate, block_seconds, start=max(0.0, begin), stream=self.audio_stream
        ):
            yield block[:wanted]
            wanted -= min(wanted, len(block))
            if not wanted:
                return
        if wanted:
            yield np.zeros(wanted, np.float32)

    def _selected(self, begin: float, end: float) -> Iterator[Decoded]:
        """Decoded frames that begin between two times, counted from the first selected frame."""
        for decoded in self._from(begin, end):
            if max(decoded.time - self._origin, 0.0) >= begin - TOLERANCE:
                yield decoded

    def _from(self, begin: float, end: float, sparse: bool = False) -> Iterator[Decoded]:
        """Selected frames from the one that is shown at ``begin``, or an earlier one, on."""
        limit = min(self._limit, self._origin + end) - TOLERANCE
        for decoded in self._decoder.frames(self._origin + begin, sparse):
            if decoded.time >= limit:
                return
            if decoded.time >= self._first - TOLERANCE:
                yield decoded

    def _picture(self, decoded: Decoded) -> Frame:
        return self._decoder.picture(decoded, self._origin)

    def _read_audio(self, container: InputContainer, stream: VideoStream, index: int) -> None:
        self.audio_streams, self.audio_stream = len(container.streams.audio), index
        self.has_audio = self.audio_streams > 0
        if index and not 0 <= index < self.audio_streams:
            raise UnreadableMedia(
                f"{self.path} has {self.audio_streams} audio stream(s), counted from 0: no number {index}"
            )
        self.audio_offset = audio_offset(container, stream, index)

    def _read_times(self, container: InputContainer, stream: VideoStream) -> None:
        decoder, whole = self._decoder, self.start == 0 and self.stop is None
        head = np.sort([time for time, _ in islice(decoder.packet_times(), _RATE_PACKETS)])
        rates = [rate for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate]
        self.fps, self.variable = _judge_rate(head[head > -TOLERANCE], rates)
        length = header_duration(container, stream)
        # MP4 has an index of all frames; what lies before the first that can be decoded is not counted on.
        at_once = bool(len(head)) and head[0] > -TOLERANCE
        counted = len(stream.index_entries) if stream.frames and at_once else 0
        if counted and length and abs(counted - length * self.fps) > 1.5:
            self.variable = True  # frames are missing further on, or the rate changes
        if self.variable and counted and length:
            self.fps = exact_fps(counted / length)
        decoder.fps = self.fps
        self._limit = math.inf if self.stop is None else self.stop
        self._first, self._origin = self._first_time()
        last, end = self._last_time(length)
        if not whole and last < self._first:
            raise InvalidOption(f"{self.path} has no frame between {self.start:g} s and {self._limit:g} s")
        if abs(last * self.fps - round(last * self.fps)) > 2 * TOLERANCE * self.fps:
            self.variable = True
        self.last = max(0.0, last - self._origin)
        self.frame_count = round(self.last * self.fps) + 1
        self.duration = float(self.frame_count / self.fps)
        if self.variable:
            self.duration = end - self._origin
            self.frame_count = max(1, self._count(stream, counted, whole))

    def _first_time(self) -> tuple[float, float]:
        """When the first selected frame begins, and what time 0 is; seconds since the file's first frame.

        At variable rate, a frame may be shown for long: the one that is shown at the start is the first.
        """
        if self.start == 0:
            return 0.0, 0.0
        shown, first = -math.inf, math.inf
        for time, _ in self._decoder.packet_times(self.start):
            if time < self.start + TOLERANCE:
                shown = max(shown, time)
            if time >= self.start - TOLERANCE:
                first = min(first, time)
            if time > first + _DISORDER:
                break
        if first == math.inf:
            raise InvalidOption(f"{self.path} is over before {self.start:g} s; start earlier")
        return (shown, self.start) if self.variable and shown > -math.inf else (first, first)

    def _last_time(self, length: float) -> tuple[float, float]:
        """When the last selected frame begins and ends, in seconds since the file's first frame."""
        limit, usual = self._limit - TOLERANCE, float(1 / self.fps)
        for back in _LOOK_BACK:
            last, end, after = -math.inf, 0.0, math.inf
            for time, duration in self._decoder.packet_times(min(limit, length) - back if length else -back):
                if last < time < limit:
                    last, end = time, time + (duration if duration > usual / 4 else usual)
                elif time >= limit:
                    after = min(after, time)
                    if time > limit + _DISORDER:
                        break
            if last > -math.inf:
                break
        if self.stop is None or after == math.inf:
            if self.stop is not None and self.stop > end + usual:
                logger.warning("%s ends at %.2f s, before %g s", self.path, end, self.stop)
            return max(0.0, last), end
        return last, min(after, self.stop)  # at variable rate, until the next frame begins

    def _count(self, stream: VideoStream, counted: int, whole: bool) -> int:
        """How many frames are selected, by the file's index or else the average rate."""
        if whole and counted:
            return counted
        index = stream.index_entries
        if counted and self._decoder.origin is not None:
            begin, end = (
                index.search_timestamp(round((self._decoder.origin + time) / self.time_base), any_frame=True)
                for time in (self._first, self._origin + self.last)
            )
            return end - begin + 1
        return round(self.duration * self.fps)

    def _conversions(self) -> Iterator[str]:
        """Sentences about the conversions of the pictures."""
        stored = self._decoder.first.format
        if self.tags.hdr:
            yield f"{self.bit_depth}-bit HDR ({self.tags.hdr}) is tone-mapped to 8-bit BT.709"
        elif self.bit_depth > 8:
            yield f"{self.bit_depth}-bit colour is written with 8 bits"
        if not stored.name.startswith(("yuv420", "yuvj420", "nv12", "p010", "gray")):
            yield f"{stored.name} pictures are written with chroma of half the size (4:2:0)"
        if self.interlaced:
            yield "interlaced video is deinterlaced"
        if self.rotation:
            yield f"a video that players turn by {self.rotation} degrees is written upright"
        if self._decoder.aspect != 1:
            yield f"pixels that are not square ({self._decoder.aspect}) are written square"
        if self.size[0] % 2 or self.size[1] % 2:
            even = self.size[0] + self.size[0] % 2, self.size[1] + self.size[1] % 2
            yield f"the odd size {self.size[0]} x {self.size[1]} is written as {even[0]} x {even[1]}"


def _bit_rate(container: InputContainer, stream: VideoStream, path: Path) -> int | None:
    """Bits a second of the pictures, as the header says or by the size of the file."""
    if stream.codec_context.bit_rate:
        return stream.codec_context.bit_rate
    length = header_duration(container, stream)
    whole = container.bit_rate or (path.stat().st_size * 8 / length if length else 0)
    sound = sum(audio.codec_context.bit_rate or 0 for audio in container.streams.audio)
    return round(whole - sound) if whole > sound else None


def _judge_rate(times: np.ndarray, rates: list[Fraction]) -> tuple[Fraction, bool]:
    """The frame rate that times (T,) show, and whether it is variable, with rates that the header gives."""
    known = [exact_fps(float(rate)) for rate in rates if 0.1 < rate < 1000]
    if len(times) < 2 or times[-1] <= 0:
        return (known or [Fraction(25)])[0], False
    mean = (len(times) - 1) / times[-1]
    near = Fraction(round(mean)) if round(mean) and abs(mean - round(mean)) < 0.004 else exact_fps(mean)
    for rate in [*known, near]:
        places = np.round(times * float(rate))
        late = np.abs(times - places / float(rate)).max()
        if late <= 1.5 * TOLERANCE and (np.diff(places) == 1).all():
            return rate, False
    return (known or [near])[0], True
