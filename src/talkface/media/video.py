"""Video read and written frame by frame, in constant memory; times are in seconds."""

import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Self

import numpy as np

from talkface.media.decode import Frame, VideoDecoder, audio_offset, header_duration, video_stream
from talkface.media.encode import FrameEncoder, StreamFacts, encoding_for
from talkface.media.files import MEDIA_ERRORS, output_error, partial_path
from talkface.media.mux import AudioTrack, open_track
from talkface.media.writer import FrameWriter, discard, open_output

__all__ = ["Frame", "VideoReader", "VideoWriter"]

logger = logging.getLogger(__name__)


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


class VideoWriter(FrameWriter):
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
        like: StreamFacts | None = None,
    ) -> None:
        super().__init__(path, fps, overwrite)
        self.size = size
        self._partial = partial_path(self.path)
        self._track: AudioTrack | None = None
        encoding = encoding_for(self.path, like, size, self.fps, variable, crf, preset, threads)
        if encoding.coded_size != size:
            logger.info("odd size %d x %d written as %d x %d", *size, *encoding.coded_size)
        try:
            self._container = open_output(self.path, self._partial)
        except MEDIA_ERRORS as error:
            raise output_error(self.path, error) from error
        try:
            self._container.metadata.update(metadata or {})
            self._pictures = FrameEncoder(self._container, encoding)
            if audio is not None:
                self._track = open_track(self._container, audio, audio_stream, 1 / self.fps)
        except BaseException as error:
            self._abandon(error)
            if isinstance(error, MEDIA_ERRORS):
                raise output_error(self.path, error) from error
            raise

    def _write(self, image: np.ndarray, time: float | None) -> None:
        begin = float(self._pictures.end) if time is None else time
        self._pictures.encode(image, self._pictures.encoding.ticks(begin))
        self.frames += 1
        if self._track:
            self._track.advance(self._pictures.end)

    def _finish(self) -> None:
        self._pictures.finish()
        if self._track:
            self._track.finish(self._pictures.end)
            self._track.close()
        self._container.close()
        self._partial.replace(self.path)

    def _abandon(self, error: BaseException) -> None:
        """Remove what has been written."""
        discard(self._container, self._partial)
        if self._track:
            self._track.close()
