"""Sound of a video being written: packets passed through unchanged, or the samples encoded once."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer

from talkface.media.audio import USUAL_LAYOUTS, audio_stream, decode_audio, first_samples
from talkface.media.files import open_media
from talkface.media.resample import Resampler

logger = logging.getLogger(__name__)

_MP4 = {"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"}
_PCM = {"pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_u8"}
# Codecs that each container takes unchanged.
_UNCHANGED = {
    "mp4": _MP4,
    "mov": {"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le"},
    "matroska": _MP4 | _PCM | {"vorbis", "mp2", "dts", "truehd"},
    "webm": {"opus", "vorbis"},
}
_AAC_RATES = {96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000}
_AAC_LAYOUTS = {"mono", "stereo", "3.0", "4.0", "5.0", "5.1", "7.1"}
_OPUS_LAYOUTS = {"mono", "stereo", "5.1"}


class AudioTrack(ABC):
    """The audio stream of a video being written, interleaved with its pictures, so that little is held."""

    def __init__(self, source: InputContainer, output: OutputContainer, frame: Fraction) -> None:
        self._source, self._output, self._frame = source, output, frame

    @abstractmethod
    def advance(self, time: Fraction) -> None:
        """Write the sound up to ``time`` in seconds, the end of the pictures so far."""

    @abstractmethod
    def finish(self, end: Fraction) -> None:
        """Write the rest: up to ``end``, or all of it if it is at most a frame longer."""

    def close(self) -> None:
        """Close the file that the sound comes from."""
        self._source.close()


def open_track(output: OutputContainer, path: str | Path, index: int, frame: Fraction) -> AudioTrack:
    """Add an audio stream to a video being written.

    Args:
        output: The video's container, to which nothing has been written.
        path: The file with the sound.
        index: Which of its audio streams.
        frame: Seconds that a picture lasts.

    Raises:
        UnreadableMedia: The file has no sound that can be read.
    """
    source = open_media(path)
    try:
        codec = audio_stream(source, path, index).codec_context.name
        codec = {"mp3float": "mp3", "libopus": "opus", "libvorbis": "vorbis"}.get(codec, codec)
        kind = output.format.name
        if codec in _UNCHANGED.get(kind, set()):
            return _Remuxed(source, output, path, index, frame)
        logger.info("%s cannot hold %s sound as it is; encoding it", kind, codec)
        return _Encoded(source, output, path, index, frame)
    except BaseException:
        source.close()
        raise


class _Remuxed(AudioTrack):
    """Packets as they are, on the pictures' timeline."""

    def __init__(
        self, source: InputContainer, output: OutputContainer, path: str | Path, index: int, frame: Fraction
    ) -> None:
        super().__init__(source, output, frame)
        stream = audio_stream(source, path, index)
        self._stream = output.add_stream_from_template(stream)
        self._timed = self._read(stream, _first_time(path, index))
        self._next = next(self._timed, None)
        self._last = -(1 << 62)

    def advance(self, time: Fraction) -> None:
        while self._next and self._next.end <= time:
            self._write(self._next)

    def finish(self, end: Fraction) -> None:
        waiting = []
        while self._next and self._next.begin < end + self._frame:
            waiting.append(self._next)
            self._next = next(self._timed, None)
        longer = self._next or (waiting and waiting[-1].end > end + self._frame)
        for timed in waiting:
            if longer and timed.begin >= end:
                break
            if longer and timed.end > end:
                # Its bytes stay, but players are told to stop within it.
                timed.packet.duration = max(1, round((end - timed.begin) / timed.packet.time_base))
            self._write(timed)

    def _read(self, stream: AudioStream, start: Fraction) -> "Iterator[_Timed]":
        """Packets with their times from the first sample that is heard."""
        reached = Fraction(-(1 << 32))
        try:
            for packet in self._source.demux(stream):
                if not packet.size or packet.pts is None:
                    continue
                begin = packet.pts * packet.time_base - start
                if begin < reached - Fraction(1, 10):  # timestamps that step back start anew
                    start -= reached - begin
                    begin = reached
                packet.pts = round(begin / packet.time_base)
                reached = begin + (packet.duration or 0) * packet.time_base
                yield _Timed(packet, begin, reached)
        except av.FFmpegError as error:
            logger.warning("the sound is damaged after %.2f s: %s", float(reached), error)

    def _write(self, timed: "_Timed") -> None:
        packet = timed.packet
        packet.dts = packet.pts = self._last = max(packet.pts or 0, self._last + 1)
        packet.stream = self._stream
        if timed is self._next:
            self._next = next(self._timed, None)
        self._output.mux(packet)


class _Timed(NamedTuple):
    packet: "av.Packet[AudioStream]"
    begin: Fraction
    end: Fraction


def _first_time(path: str | Path, index: int) -> Fraction:
    """The time at which a stream is first heard: encoders begin with samples that are to be left out."""
    with open_media(path) as container:
        stream = audio_stream(container, path, index)
        with suppress(av.FFmpegError):
            for packet in container.demux(stream):
                for frame in packet.decode():
                    if frame.pts is not None and frame.time_base is not None:
                        return frame.pts * frame.time_base
    return Fraction(0)


class _Encoded(AudioTrack):
    """Decoded and encoded to AAC, or to Opus where the container wants that."""

    def __init__(
        self, source: InputContainer, output: OutputContainer, path: str | Path, index: int, frame: Fraction
    ) -> None:
        super().__init__(source, output, frame)
        context = audio_stream(source, path, index).codec_context
        opus = output.format.name == "webm"
        layout = USUAL_LAYOUTS.get(context.layout.nb_channels, "stereo")
        layout = layout if layout in (_OPUS_LAYOUTS if opus else _AAC_LAYOUTS) else "stereo"
        self._rate = context.sample_rate if context.sample_rate in _AAC_RATES and not opus else 48000
        stream = output.add_stream("libopus" if opus else "aac", rate=self._rate, layout=layout)
        assert isinstance(stream, AudioStream)
        channels = stream.layout.nb_channels
        # AAC has no use for more than so many bits a sample.
        stream.bit_rate = min(96_000 * max(2, channels), 5 * self._rate * channels)
        self._stream = stream
        self._frames = self._resampled(decode_audio(source, path, index), layout)
        self._next = next(self._frames, None)
        self._written = 0

    def advance(self, time: Fraction) -> None:
        while self._next and Fraction(self._written + self._next.samples, self._rate) <= time:
            frame, self._next = self._next, next(self._frames, None)
            self._write(frame)

    def finish(self, end: Fraction) -> None:
        waiting, samples = [], self._written
        while self._next and Fraction(samples, self._rate) <= end + self._frame:
            waiting.append(self._next)
            samples += self._next.samples
            self._next = next(self._frames, None)
        longer = self._next or Fraction(samples, self._rate) > end + self._frame
        wanted = round(end * self._rate) if longer else samples
        for frame in waiting:
            if self._written < wanted:
                self._write(first_samples(frame, wanted - self._written))
        self._output.mux(self._stream.encode(None))

    def _resampled(self, frames: Iterator[av.AudioFrame], layout: str) -> Iterator[av.AudioFrame]:
        resampler = Resampler(self._rate, layout)
        for frame in frames:
            yield from resampler.push(frame)
        yield from resampler.flush()

    def _write(self, frame: av.AudioFrame) -> None:
        frame.pts, frame.time_base = self._written, Fraction(1, self._rate)
        self._written += frame.samples
        self._output.mux(self._stream.encode(frame))
