"""Writing a long video so that an interruption costs seconds: in segments, put together at the end."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream

from talkface.errors import OutputError
from talkface.media.audio import audio_stream as find_audio_stream
from talkface.media.encode import Encoding, FrameEncoder, StreamFacts, encoding_for
from talkface.media.files import open_media, output_error, partial_path
from talkface.media.mux import open_track
from talkface.media.writer import FrameWriter, discard, open_output

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Segment:
    """A finished segment.

    Attributes:
        name: The file.
        size: Its bytes.
        frames: How many frames it has.
        begin: Ticks at which its first frame begins.
        last: Ticks at which its last frame begins.
        delay: By how many places packets come before their turn to be shown.
    """

    name: str
    size: int
    frames: int
    begin: int
    last: int
    delay: int


class SegmentedWriter(FrameWriter):
    """Writes a video frame by frame, with sound; after an interruption it can go on where it was.

    Segments of some seconds are encoded, each by itself, into a hidden folder beside the target. At the end
    their packets are put together unchanged with the sound, as ``VideoWriter`` would, and the folder goes. A
    segment always begins at the same frame, so that a video in two runs is the same as in one.

    When the process is killed, or interrupted by the user, or the disk is full, the folder stays. After any
    other exception inside ``with`` nothing is left.

    Args:
        path: The file: ``.mp4``, ``.m4v``, ``.mov``, ``.mkv`` (H.264) or ``.webm`` (VP9).
        size: Width and height in pixels; by default those of ``like``, as the next two.
        fps: Frames a second; 23.976 and its like are taken for the exact fraction. On average, if variable.
        variable: Frames come at any times, not at multiples of ``1 / fps``.
        like: The video that the pictures come from; see ``VideoWriter``.
        audio: A file with sound.
        audio_stream: Which audio stream of ``audio``.
        metadata: Written into the container.
        overwrite: Replace an existing file.
        resume: Keep the segments of an interrupted run with the same fingerprint.
        fingerprint: Tells what the pictures are made from and how.
        segment_seconds: How long a segment is.
        duration: Seconds until the last frame ends; by default it is shown as long as a mean one.
        crf: Quality of the encoder; less is better and larger.
        preset: Speed of the H.264 encoder.
        threads: Threads of the encoder; 0 is as many as there are cores.

    Attributes:
        frames_done: How many frames were there when resuming, else 0; go on with the one after them.
        time_done: Seconds at which the last of them begins, None if there are none.
        frames: How many frames there are now.

    Raises:
        ValueError: Neither ``size`` and ``fps`` nor ``like`` are given.
        OutputError: The file exists, cannot be written, or has no suffix of the above.
        UnreadableMedia: ``audio`` has no sound that can be read, or no such stream.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        size: tuple[int, int] | None = None,
        fps: float | Fraction | None = None,
        variable: bool | None = None,
        like: StreamFacts | None = None,
        audio: str | Path | None = None,
        audio_stream: int = 0,
        metadata: dict[str, str] | None = None,
        overwrite: bool = False,
        resume: bool = False,
        fingerprint: str = "",
        segment_seconds: float = 10.0,
        duration: float | None = None,
        crf: int = 18,
        preset: str = "veryfast",
        threads: int = 0,
    ) -> None:
        size, fps = size or (like.size if like else None), fps or (like.fps if like else None)
        if size is None or fps is None:
            raise ValueError("either size and fps are given, or a video that the output is to be like")
        if variable is None:
            variable = like is not None and like.variable
        super().__init__(path, fps, overwrite)
        self.duration = duration
        self._encoding = encoding_for(self.path, like, size, self.fps, variable, crf, preset, threads)
        self._audio, self._audio_stream, self._metadata = audio, audio_stream, metadata or {}
        if audio is not None:
            with open_media(audio) as container:
                find_audio_stream(container, audio, audio_stream)
        self._length = self._encoding.ticks(segment_seconds)
        self._folder = self.path.with_name(f".{self.path.name}.parts")
        self._state = _State(self._folder, _hash(fingerprint, self._encoding, self._length))
        try:
            self._state.load() if resume else self._state.clear()
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise output_error(self.path, error) from error
        self._part: _Part | None = None
        done = self._state.segments
        self.frames = self.frames_done = sum(segment.frames for segment in done)
        self._last = done[-1].last if done else -1
        self.time_done = float(self._last * self._encoding.time_base) if done else None

    def close(self) -> None:
        """Put the segments together, give the file its name and remove the folder.

        Raises:
            OutputError: There are no frames, or the disk is full or the like.
        """
        super().close()
        self._state.clear()

    def _write(self, image: np.ndarray, time: float | None) -> None:
        ticks = self._last + self._encoding.ticks(float(1 / self.fps)) if self._last >= 0 else 0
        ticks = ticks if time is None else max(self._last + 1, self._encoding.ticks(time))
        if self._part and ticks // self._length != self._part.begin // self._length:
            self._finish_part()
        if self._part is None:
            self._part = _Part(self._folder, len(self._state.segments), ticks, self._encoding)
        self._part.write(image, ticks)
        self._last = ticks
        self.frames += 1

    def _finish(self) -> None:
        self._finish_part()
        self._join()

    def _abandon(self, error: BaseException) -> None:
        """Remove what has been written, but keep finished segments if a later run can go on after them."""
        if self._part:
            self._part.abort()
            self._part = None
        if not self._state.segments or not isinstance(error, KeyboardInterrupt | SystemExit | OutputError):
            self._state.clear()
            return
        done = sum(segment.frames for segment in self._state.segments)
        logger.warning("%d frames of %s are kept; set resume to go on after them", done, self.path)

    def _finish_part(self) -> None:
        if self._part:
            self._state.add(self._part.finish())
            self._part = None

    def _join(self) -> None:
        """Write packets of pictures and sound into the target."""
        partial = partial_path(self.path)
        output = open_output(self.path, partial)
        try:
            self._remux(output)
            output.close()
            partial.replace(self.path)
        except BaseException:
            discard(output, partial)
            raise

    def _remux(self, output: OutputContainer) -> None:
        output.metadata.update(self._metadata)
        segments, base = self._state.segments, self._encoding.time_base
        with av.open(str(self._folder / segments[0].name)) as first:
            stream = output.add_stream_from_template(first.streams.video[0])
        usual = self._encoding.ticks(float(1 / self.fps))
        end = max(self._last + 1, self._encoding.ticks(self.duration)) if self.duration else 0
        track = open_track(output, self._audio, self._audio_stream, 1 / self.fps) if self._audio else None
        try:
            for packet in _joined(self._folder, segments, base, usual, end or self._last + usual):
                packet.stream = stream
                reached = (packet.pts or 0) * base
                output.mux(packet)
                if track:
                    track.advance(reached)
            if track:
                track.finish((end or self._last + usual) * base)
        finally:
            if track:
                track.close()


class _Part:
    """A segment that is being written."""

    def __init__(self, folder: Path, number: int, begin: int, encoding: Encoding) -> None:
        self.begin = self._last = begin
        self._frames, self._encoding = 0, encoding
        # Ticks survive in MP4, and it takes both codecs.
        self._path = folder / f"{number:06d}.mp4"
        self._partial = partial_path(self._path)
        self._container = av.open(str(self._partial.absolute()), "w")
        self._pictures = FrameEncoder(self._container, encoding)

    def write(self, image: np.ndarray, ticks: int) -> None:
        self._pictures.encode(image, ticks - self.begin)
        self._last = ticks
        self._frames += 1

    def finish(self) -> _Segment:
        self._pictures.finish()
        self._container.close()
        self._partial.replace(self._path)
        with av.open(str(self._path)) as container:
            shown = [packet.pts or 0 for packet in container.demux(video=0) if packet.size]
        turns = {ticks: turn for turn, ticks in enumerate(sorted(shown))}
        delay = max(place - turns[ticks] for place, ticks in enumerate(shown))
        size = self._path.stat().st_size
        return _Segment(self._path.name, size, self._frames, self.begin, self._last, delay)

    def abort(self) -> None:
        discard(self._container, self._partial)


class _State:
    """The list of finished segments, which survives the process."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.segments: list[_Segment] = []
        self._folder, self._fingerprint, self._file = folder, fingerprint, folder / "state.json"

    def load(self) -> None:
        """Take over the segments of an earlier run, if they are of the same video; remove the rest."""
        with suppress(OSError, ValueError, TypeError, KeyError):
            state = json.loads(self._file.read_text(encoding="utf-8"))
            if state["fingerprint"] == self._fingerprint:
                for entry in state["segments"]:
                    segment = _Segment(**entry)
                    if (self._folder / segment.name).stat().st_size != segment.size:
                        break
                    self.segments.append(segment)
        if not self.segments:
            self.clear()
            return
        known = {segment.name for segment in self.segments}
        for path in self._folder.iterdir():
            if path.name not in known:
                path.unlink()
        self._save()

    def add(self, segment: _Segment) -> None:
        """Remember a finished segment."""
        self.segments.append(segment)
        self._save()

    def clear(self) -> None:
        """Remove everything."""
        self.segments = []
        if self._folder.is_dir():
            shutil.rmtree(self._folder)

    def _save(self) -> None:
        state = {"fingerprint": self._fingerprint, "segments": [asdict(one) for one in self.segments]}
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(state, indent=1), encoding="utf-8")
        os.replace(new, self._file)


def _hash(fingerprint: str, encoding: Encoding, length: int) -> str:
    """A fingerprint of the segments: their pictures, and how they are cut and encoded."""
    text = repr((fingerprint, encoding, length, av.library_versions))
    return hashlib.sha256(text.encode()).hexdigest()


def _joined(
    folder: Path, segments: list[_Segment], base: Fraction, usual: int, end: int
) -> Iterator["av.Packet[VideoStream]"]:
    """The packets of all segments on one clock.

    Encoders begin each segment with decoding times of before its first frame, which may be before the last
    ones of the segment before it where the rate is variable. So all are given anew: packets are decoded
    when the frames begin that are shown ``delay`` places earlier, which is what encoders do.

    Args:
        folder: Where the segments are.
        segments: In order.
        base: Seconds of a tick.
        usual: Ticks that a frame usually lasts.
        end: Ticks at which the last frame ends.
    """
    delay = max(segment.delay for segment in segments)
    earlier = [segments[0].begin - usual * ahead for ahead in range(delay, 0, -1)]
    for number, segment in enumerate(segments):
        after = segments[number + 1].begin if number + 1 < len(segments) else end
        with av.open(str(folder / segment.name)) as container:
            stream = container.streams.video[0]
            shown = sorted(_ticks(packet, base) for packet in container.demux(stream) if packet.size)
            shift = segment.begin - shown[0]
            shown = [ticks + shift for ticks in shown]
            lasts = dict(zip(shown, [*shown[1:], after], strict=True))
            times = earlier + shown
            container.seek(0)
            for place, packet in enumerate(p for p in container.demux(stream) if p.size):
                begin = _ticks(packet, base) + shift
                packet.pts, packet.dts, packet.duration = begin, times[place], lasts[begin] - begin
                packet.time_base = base
                yield packet
            earlier = times[len(times) - delay :]


def _ticks(packet: "av.Packet[VideoStream]", base: Fraction) -> int:
    assert packet.pts is not None
    return round(packet.pts * packet.time_base / base)
