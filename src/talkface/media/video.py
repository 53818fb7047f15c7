"""Video in and out, frame by frame; however long it is, memory stays the same. Times are seconds."""

import logging
import math
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

import av
import numpy as np
from av.container import OutputContainer

from talkface.errors import OutputError
from talkface.media.color import ColorTags
from talkface.media.decode import Frame, VideoDecoder, audio_offset, header_duration, video_stream
from talkface.media.encode import CODECS, Encoding, PictureEncoder, fine_time_base, max_rate
from talkface.media.files import Error, check_output, output_error, partial_path
from talkface.media.mux import AudioTrack, open_track

if TYPE_CHECKING:
    from talkface.media.source import SourceVideo

logger = logging.getLogger(__name__)

_NTSC = {Fraction(rate * 1000, 1001) for rate in (12, 15, 24, 30, 48, 60, 120, 240)}


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


class VideoReader:
    """Reads a video frame by frame, upright and in 8-bit RGB; iterate it as often as needed.

    Frames come at the times that the file gives them, at constant rate or not. Damaged ones are left out,
    interlaced ones deinterlaced; high dynamic range is made ordinary.

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
        self._decoder = VideoDecoder(self.path)
        self.size = self._decoder.size
        with self._decoder.open() as container:
            stream = video_stream(container, self.path)
            self.has_audio = bool(container.streams.audio)
            self.audio_offset = audio_offset(container, stream)
            rate = stream.average_rate or stream.guessed_rate
            length = header_duration(container, stream)
        if not rate or not length:
            count, length = self._count()
            rate = rate or Fraction(count / length).limit_denominator(1001)
        self.fps, self.duration = float(rate), float(length)
        self._decoder.fps = rate

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing stays open between iterations."""

    def __iter__(self) -> Iterator[Frame]:
        for decoded in self._decoder.frames():
            yield self._decoder.picture(decoded)

    def _count(self) -> tuple[int, float]:
        """Number of packets and seconds of a stream whose header does not say."""
        times = []
        with self._decoder.open() as container:
            for packet in container.demux(video_stream(container, self.path)):
                if packet.pts is not None:
                    times.append(float(packet.pts * packet.time_base))
        count = max(1, len(times))
        span = max(times) - min(times) if count > 1 else 0.0
        return count, span * count / (count - 1) if span else count / 25


class VideoWriter:
    """Writes a video frame by frame, with sound.

    The file grows beside its target and takes its place when complete; after an exception inside ``with``,
    nothing is left. The sound's packets are passed through unchanged if the container takes their codec, else
    encoded once. Sound that is over a frame longer than the pictures is cut.

    Args:
        path: The file: ``.mp4``, ``.m4v``, ``.mov``, ``.mkv`` (H.264) or ``.webm`` (VP9).
        size: Width and height in pixels; odd ones get a pixel more, a copy of the edge.
        fps: Frames a second; 23.976 and its like are taken for the exact fraction. On average, if variable.
        audio: A file with sound.
        metadata: Written into the container.
        overwrite: Replace an existing file.
        crf: Quality of the encoder; less is better and larger.
        preset: Speed of the H.264 encoder.
        threads: Threads of the encoder; 0 is as many as there are cores.
        audio_stream: Which audio stream of ``audio``.
        variable: Frames come at any times, not at multiples of ``1 / fps``.
        like: The video that the pictures come from: its colour tags are kept where 8 bits allow, and its bit
            rate is exceeded four or six times at most.

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
        variable: bool = False,
        like: "SourceVideo | None" = None,
    ) -> None:
        self.path, self.size, self.fps = check_video_output(path, overwrite), size, exact_fps(fps)
        self.frames = 0
        self._partial = partial_path(self.path)
        self._track: AudioTrack | None = None
        encoding = encoding_for(self.path, size, self.fps, variable, like, crf, preset, threads)
        if encoding.coded_size != size:
            logger.info("odd size %d x %d written as %d x %d", *size, *encoding.coded_size)
        try:
            self._container = open_output(self.path, self._partial)
        except Error as error:
            raise output_error(self.path, error) from error
        try:
            self._container.metadata.update(metadata or {})
            self._pictures = PictureEncoder(self._container, encoding)
            if audio is not None:
                self._track = open_track(self._container, audio, audio_stream, 1 / self.fps)
        except Error as error:
            self._abort()
            raise output_error(self.path, error) from error
        except BaseException:
            self._abort()
            raise

    def write(self, image: np.ndarray, time: float | None = None) -> None:
        """Add a frame.

        Args:
            image: (H, W, 3) uint8 RGB.
            time: Seconds at which it begins; by default a mean frame after the one before. Where the rate is
                constant, the nearest multiple of ``1 / fps`` is meant.

        Raises:
            OutputError: The disk is full or the like.
            ValueError: The image has another size or type.
        """
        try:
            begin = float(self._pictures.end) if time is None else time
            self._pictures.encode(image, self._pictures.encoding.ticks(begin))
            self.frames += 1
            if self._track:
                self._track.advance(self._pictures.end)
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
            self._pictures.finish()
            if self._track:
                self._track.finish(self._pictures.end)
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


def encoding_for(
    path: Path,
    size: tuple[int, int],
    fps: Fraction,
    variable: bool = False,
    like: "SourceVideo | None" = None,
    crf: int = 18,
    preset: str = "veryfast",
    threads: int = 0,
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


def open_output(path: Path, partial: Path) -> OutputContainer:
    """Open a partial file as what ``path`` is to become.

    Raises:
        OSError: The file cannot be written.
    """
    # The index goes to the front, for players that start before the end has come; own keys survive.
    mp4 = path.suffix.lower() in (".mp4", ".m4v", ".mov")
    options = {"movflags": "+faststart+use_metadata_tags"} if mp4 else {}
    return av.open(str(partial.absolute()), "w", options=options)


def check_video_output(path: str | Path, overwrite: bool = False) -> Path:
    """The path of a video that may be written.

    Raises:
        OutputError: It exists and ``overwrite`` is not set, cannot be written, or is no video we write.
    """
    path = Path(path)
    if path.suffix.lower() not in CODECS and not path.is_dir():
        raise OutputError(f"{path} is no video we can write; end it in {', '.join(CODECS)}")
    return check_output(path, overwrite)
