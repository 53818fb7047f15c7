"""Video in and out, frame by frame; however long it is, memory stays the same. Times are seconds."""

import logging
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import (
    ColorPrimaries,
    ColorRange,
    Colorspace,
    ColorTrc,
    Interpolation,
    VideoReformatter,
)
from av.video.stream import VideoStream

from talkface.errors import OutputError, UnreadableMedia
from talkface.media.files import Error, check_output, is_picture, open_media, output_error, partial_path
from talkface.media.mux import AudioTrack, open_track

logger = logging.getLogger(__name__)

_NTSC = {Fraction(rate * 1000, 1001) for rate in (12, 15, 24, 30, 48, 60, 120, 240)}
_UNKNOWN_COLORS = 2  # AVCOL_SPC_UNSPECIFIED
# By default swscale darkens pictures by a level on the way to RGB.
_TO_RGB = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_FROM_RGB = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP
_CODECS = {".mp4": "libx264", ".m4v": "libx264", ".mov": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9"}


def frame_count(duration: float, fps: float | Fraction) -> int:
    """How many frames a video of so many seconds has: ``round(duration * fps)``."""
    return round(duration * exact_fps(fps))


def frame_times(count: int, fps: float | Fraction) -> np.ndarray:
    """Times in seconds (T,) at which frames of a constant rate begin."""
    rate = exact_fps(fps)
    return np.arange(count) * rate.denominator / rate.numerator


def resample_times(times: np.ndarray, fps: float | Fraction, duration: float | None = None) -> np.ndarray:
    """Which source frame to show at each frame of a constant rate: the last that has begun.

    Args:
        times: (T,) seconds at which the source's frames begin, ascending.
        fps: The constant rate.
        duration: Seconds of the result; by default until the last frame has been shown as long as the others.

    Returns:
        (T',) indices into ``times``.
    """
    if duration is None:
        usual = float(np.median(np.diff(times))) if len(times) > 1 else 1 / float(fps)
        duration = float(times[-1] - times[0]) + usual
    wanted = times[0] + frame_times(frame_count(duration, fps), fps)
    # Half a millisecond of tolerance: containers round times to that much.
    return np.clip(np.searchsorted(times, wanted + 5e-4, side="right") - 1, 0, len(times) - 1)


def exact_fps(fps: float | Fraction) -> Fraction:
    """The exact rate that is meant, for example 24000/1001 for 23.976.

    Raises:
        ValueError: The rate is not positive and finite.
    """
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"frame rate must be positive, not {fps}")
    if isinstance(fps, Fraction):
        return fps
    for rate in _NTSC:
        if abs(fps - float(rate)) < 0.004:
            return rate
    return Fraction(fps).limit_denominator(1001)


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame of a video.

    Attributes:
        image: (H, W, 3) uint8 RGB, upright.
        time: Seconds since the first frame.
    """

    image: np.ndarray
    time: float


class VideoReader:
    """Reads a video frame by frame, upright and in RGB; iterate it as often as needed.

    Frames come at the times that the file gives them, at constant rate or not. Damaged ones are left out.

    Args:
        path: Any video file.

    Attributes:
        size: Width and height in pixels of the upright frames.
        fps: Frames a second, on average.
        duration: Seconds.
        has_audio: Whether the file has sound.
        audio_offset: Seconds from the first frame to the start of the sound.

    Raises:
        UnreadableMedia: There is no such file, or it is no video, or damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._reformatter = VideoReformatter()  # kept, for it takes long to set up
        with self._open() as container:
            stream = _video_stream(container, self.path)
            self.has_audio = bool(container.streams.audio)
            aspect = stream.sample_aspect_ratio or Fraction(1)
            self.audio_offset = _audio_offset(container, stream)
            rate = stream.average_rate or stream.guessed_rate
            length = _header_duration(container, stream)
            first = next((frame for frame in _decode(container, stream, self.path)), None)
        if first is None:
            raise UnreadableMedia(f"{path} holds no frame that can be decoded: it is truncated or damaged")
        # All frames are given the size of the first, should it change.
        self._stored = max(1, round(first.width * aspect)), first.height
        image = self._image(first)
        self.size = image.shape[1], image.shape[0]
        if not rate or not length:
            count, length = self._count()
            rate = rate or Fraction(count / length).limit_denominator(1001)
        self.fps, self.duration = float(rate), float(length)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing stays open between iterations."""

    def __iter__(self) -> Iterator[Frame]:
        start, last = None, -math.inf
        with self._open() as container:
            stream = _video_stream(container, self.path)
            for frame in _decode(container, stream, self.path):
                time = frame.time if frame.pts is not None else None
                start = time if start is None else start
                since = last + 1 / self.fps if time is None or start is None else time - start
                if not since > last:  # timestamps that stand still or step back
                    since = last + 1 / self.fps
                last = max(0.0, since)
                yield Frame(self._image(frame), last)

    def _open(self) -> InputContainer:
        return open_media(self.path)

    def _image(self, frame: av.VideoFrame) -> np.ndarray:
        """Convert to RGB, with square pixels, upright."""
        colors = frame.colorspace
        if colors == _UNKNOWN_COLORS:
            colors = Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601
        image = self._reformatter.reformat(
            frame,
            *self._stored,
            format="rgb24",
            src_colorspace=colors,
            dst_color_range=ColorRange.JPEG,
            interpolation=_TO_RGB,
        ).to_ndarray()
        quarter_turns = round(frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(image, quarter_turns)) if quarter_turns else image

    def _count(self) -> tuple[int, float]:
        """Number of packets and seconds of a stream whose header does not say."""
        times = []
        with self._open() as container:
            for packet in container.demux(_video_stream(container, self.path)):
                if packet.pts is not None:
                    times.append(float(packet.pts * packet.time_base))
        count = max(1, len(times))
        span = max(times) - min(times) if count > 1 else 0.0
        return count, span * count / (count - 1) if span else count / 25


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
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


def _audio_offset(container: InputContainer, video: VideoStream) -> float:
    audio = next(iter(container.streams.audio), None)
    if audio is None or audio.start_time is None or video.start_time is None:
        return 0.0
    return float(audio.start_time * audio.time_base - video.start_time * video.time_base)  # type: ignore[operator]


def _header_duration(container: InputContainer, stream: VideoStream) -> float:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else 0.0


def _decode(container: InputContainer, stream: VideoStream, path: Path) -> Iterator[av.VideoFrame]:
    """Decode, leaving out what is damaged."""
    damaged, packets = 0, container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            logger.warning("%s is damaged, its end is left out: %s", path, error)
            break
        if packet is None:
            break
        try:
            frames = packet.decode()
        except av.FFmpegError:
            damaged += 1
            continue
        for frame in frames:
            if frame.is_corrupt:
                damaged += 1
            else:
                yield frame
    if damaged:
        logger.warning("%s: %d damaged frame(s) left out", path, damaged)


class VideoWriter:
    """Writes a video frame by frame, with sound.

    The file grows beside its target and takes its place when complete; after an exception inside ``with``,
    nothing is left. The sound's packets are passed through unchanged if the container takes their codec, else
    encoded once. Sound that is over a frame longer than the pictures is cut.

    Args:
        path: The file: ``.mp4``, ``.m4v``, ``.mov``, ``.mkv`` (H.264) or ``.webm`` (VP9).
        size: Width and height in pixels; odd ones get a pixel more, a copy of the edge.
        fps: Frames a second; 23.976 and its like are taken for the exact fraction.
        audio: A file with sound.
        metadata: Written into the container.
        overwrite: Replace an existing file.
        crf: Quality of the encoder; less is better and larger.
        preset: Speed of the H.264 encoder.
        threads: Threads of the encoder; 0 is as many as there are cores.
        audio_stream: Which audio stream of ``audio``.

    Raises:
        OutputError: The file exists, cannot be written, or has no suffix of the above.
        UnreadableMedia: ``audio`` has no sound that can be read.
    """

    def __init__(
        self,
        path: str | Path,
        size: tuple[int, int],
        fps: float | Fraction,
        audio: str | Path | None = None,
        metadata: dict[str, str] | None = None,
        overwrite: bool = False,
        crf: int = 18,
        preset: str = "veryfast",
        threads: int = 0,
        audio_stream: int = 0,
    ) -> None:
        self.path, self.size, self.fps = check_video_output(path, overwrite), size, exact_fps(fps)
        self.frames = 0
        self._partial = partial_path(self.path)
        self._reformatter = VideoReformatter()
        self._track: AudioTrack | None = None
        self._coded = size[0] + size[0] % 2, size[1] + size[1] % 2
        if self._coded != size:
            logger.info("odd size %d x %d written as %d x %d", *size, *self._coded)
        try:
            # The index goes to the front, for players that start before the end has come; own keys survive.
            mp4 = self.path.suffix.lower() in (".mp4", ".m4v", ".mov")
            options = {"movflags": "+faststart+use_metadata_tags"} if mp4 else {}
            self._container = av.open(str(self._partial.absolute()), "w", options=options)
        except Error as error:
            raise output_error(self.path, error) from error
        try:
            self._container.metadata.update(metadata or {})
            self._stream = self._add_stream(crf, preset, threads)
            if audio is not None:
                self._track = open_track(self._container, audio, audio_stream, 1 / self.fps)
        except Error as error:
            self._abort()
            raise output_error(self.path, error) from error
        except BaseException:
            self._abort()
            raise

    def write(self, image: np.ndarray) -> None:
        """Add a frame.

        Args:
            image: (H, W, 3) uint8 RGB.

        Raises:
            OutputError: The disk is full or the like.
            ValueError: The image has another size or type.
        """
        if image.shape != (self.size[1], self.size[0], 3) or image.dtype != np.uint8:
            raise ValueError(f"frame is {image.dtype} {image.shape}, not uint8 {(*self.size[::-1], 3)}")
        if self._coded != self.size:
            extra = self._coded[1] - self.size[1], self._coded[0] - self.size[0]
            image = np.pad(image, ((0, extra[0]), (0, extra[1]), (0, 0)), mode="edge")
        rgb = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(image), format="rgb24")
        frame = self._reformatter.reformat(
            rgb,
            format="yuv420p",
            src_color_range=ColorRange.JPEG,
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            interpolation=_FROM_RGB,
        )
        frame.pts, frame.time_base = self.frames, 1 / self.fps
        try:
            self._container.mux(self._stream.encode(frame))
            self.frames += 1
            if self._track:
                self._track.advance(self.frames / self.fps)
        except Error as error:
            raise output_error(self.path, error) from error

    def close(self) -> None:
        """Finish the file and give it its name.

        Raises:
            OutputError: The disk is full or the like.
        """
        try:
            if not self.frames:
                raise OutputError(f"{self.path} is not written: there are no frames")
            self._container.mux(self._stream.encode(None))
            if self._track:
                self._track.finish(self.frames / self.fps)
                self._track.close()
            self._container.close()
            self._partial.replace(self.path)
        except Error as error:
            self._abort()
            raise output_error(self.path, error) from error
        except BaseException:
            self._abort()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        if kind is None:
            self.close()
        else:
            self._abort()
        return False

    def _abort(self) -> None:
        """Remove what has been written."""
        # Gone before it is closed, the file need not be rearranged, which takes long for a large one.
        for attempt in (self._unlink, self._container.close, self._unlink):
            with suppress(*Error, ValueError):
                attempt()
        if self._track:
            self._track.close()

    def _unlink(self) -> None:
        self._partial.unlink(missing_ok=True)

    def _add_stream(self, crf: int, preset: str, threads: int) -> VideoStream:
        codec = _CODECS[self.path.suffix.lower()]
        options = {"crf": str(crf)}
        if codec == "libx264":
            options |= {"preset": preset}
        else:
            options |= {"deadline": "realtime", "cpu-used": "7", "row-mt": "1", "b": "0"}
        stream = self._container.add_stream(codec, rate=self.fps, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = self._coded
        stream.pix_fmt = "yuv420p"
        stream.thread_count = threads
        stream.codec_context.time_base = 1 / self.fps
        stream.color_range = ColorRange.MPEG
        stream.colorspace = Colorspace.ITU709
        stream.color_primaries = ColorPrimaries.BT709
        stream.color_trc = ColorTrc.BT709
        return stream


def check_video_output(path: str | Path, overwrite: bool = False) -> Path:
    """The path of a video that may be written.

    Raises:
        OutputError: It exists and ``overwrite`` is not set, cannot be written, or is no video we write.
    """
    path = Path(path)
    if path.suffix.lower() not in _CODECS and not path.is_dir():
        raise OutputError(f"{path} is no video we can write; end it in {', '.join(_CODECS)}")
    return check_output(path, overwrite)
