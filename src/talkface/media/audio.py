"""Sound read as mono float32 blocks, in constant memory, and probed for its length and loudness."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer

from talkface.errors import AudioTooShort, UnreadableMedia
from talkface.media.files import is_picture, open_media
from talkface.media.loudness import SILENT_LUFS, LoudnessMeter
from talkface.media.resample import MonoMixer

logger = logging.getLogger(__name__)

USUAL_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
"""FFmpeg's name of the usual layout of so many channels."""

_LEAST_GAP = 0.1  # seconds; less is rounding of timestamps
_EXACT_HEADERS = {"wav", "flac", "mov,mp4,m4a,3gp,3g2,mj2"}  # formats whose headers tell the exact length
_PIECE_SAMPLES = 1 << 15  # samples handled at once; a container of raw samples may hold far larger frames


@dataclass(frozen=True)
class AudioInfo:
    """What a full pass over an audio stream found.

    Attributes:
        duration: Seconds, exact: counted in samples.
        sample_rate: Hz.
        channels: Number of channels.
        codec: FFmpeg's name of the codec.
        loudness_lufs: Gated loudness (BS.1770) of the 16 kHz mono mix; -70 for silence.
    """

    duration: float
    sample_rate: int
    channels: int
    codec: str
    loudness_lufs: float

    def gain(self, target_lufs: float = -23.0, limit: float = 30.0) -> float:
        """Factor that brings the sound to a loudness; 1 for silence, at most ``limit``."""
        if self.loudness_lufs <= SILENT_LUFS:
            return 1.0
        return min(10 ** ((target_lufs - self.loudness_lufs) / 20), limit)


def probe_audio(path: str | Path, stream: int = 0) -> AudioInfo:
    """Decode an audio stream once, to know how long and how loud it is.

    Args:
        path: Any sound file, or a video with sound.
        stream: Which audio stream of the file.

    Raises:
        UnreadableMedia: There is no such file or stream, or it is damaged or cut off.
        AudioTooShort: The stream holds no samples.
    """
    mixer, meter = MonoMixer(16000), LoudnessMeter()
    rate = channels = 0
    with open_media(path) as container:
        codec = audio_stream(container, path, stream).codec_context.name
        for frame in decode_audio(container, path, stream):
            rate, channels = rate or frame.sample_rate, max(channels, frame.layout.nb_channels)
            meter.push(mixer.push(frame))
        meter.push(mixer.flush())
    return AudioInfo(float(mixer.seconds), rate, channels, codec, meter.loudness())


def stream_audio(
    path: str | Path,
    sample_rate: int = 16000,
    block_seconds: float = 4.0,
    gain: float = 1.0,
    start: float = 0.0,
    stream: int = 0,
) -> Iterator[np.ndarray]:
    """Decode, mix down and resample an audio stream block by block.

    All blocks together are ``round((duration - start) * sample_rate)`` samples, to within one. Gaps in the
    stream's timestamps are filled with silence.

    Args:
        path: Any sound file, or a video with sound.
        sample_rate: Hz of the blocks.
        block_seconds: Length of each block but the last.
        gain: Factor on the samples, before they are limited to [-1, 1].
        start: Seconds to leave out at the beginning.
        stream: Which audio stream of the file.

    Yields:
        (N,) float32 mono in [-1, 1]; what was not a number is 0.

    Raises:
        UnreadableMedia: There is no such file or stream, or it is damaged or cut off.
        AudioTooShort: The stream holds no samples.
    """
    size = max(1, round(block_seconds * sample_rate))
    skip, held = round(start * sample_rate), np.zeros(0, np.float32)
    for part in _mixed(path, sample_rate, stream):
        skipped = min(skip, len(part))
        skip -= skipped
        held = np.concatenate([held, part[skipped:]])
        while len(held) >= size:
            yield _limited(held[:size], gain)
            held = held[size:]
    if len(held):
        yield _limited(held, gain)


def read_audio(path: str | Path, sample_rate: int = 16000, stream: int = 0) -> np.ndarray:
    """Decode a whole audio stream, which has to fit into memory.

    Returns:
        (N,) float32 mono in [-1, 1].

    Raises:
        UnreadableMedia: There is no such file or stream, or it is damaged or cut off.
        AudioTooShort: The stream holds no samples.
    """
    return np.concatenate(list(stream_audio(path, sample_rate, stream=stream)))


def audio_stream(container: InputContainer, path: str | Path, index: int = 0) -> AudioStream:
    """An audio stream of an open file.

    Raises:
        UnreadableMedia: The file has no such stream.
    """
    streams = container.streams.audio
    if index < len(streams):
        return streams[index]
    if streams:
        raise UnreadableMedia(f"{path} has {len(streams)} audio stream(s), no number {index}")
    if is_picture(Path(path)):
        raise UnreadableMedia(f"{path} is a picture, not sound; give a sound file, or a video with sound")
    kind = "is a video without" if container.streams.video else "has no"
    raise UnreadableMedia(f"{path} {kind} audio stream; give a sound file, or a video with sound")


def decode_audio(container: InputContainer, path: str | Path, index: int = 0) -> Iterator[av.AudioFrame]:
    """Decode an audio stream into frames of finite samples, one after another in time.

    Damaged packets are left out and gaps filled with silence.

    Raises:
        UnreadableMedia: The file has no such stream, or it is damaged or cut off.
        AudioTooShort: The stream holds no samples.
    """
    stream = audio_stream(container, path, index)
    clock, damaged, stated = _Clock(), 0, _stated_duration(container, stream, Path(path))
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            logger.warning("%s is damaged after %.2f s: %s", path, clock.seconds, error)
            break
        if packet is None:
            break
        try:
            frames = packet.decode()
        except av.FFmpegError:
            damaged += 1
            continue
        for frame in frames:
            if frame.samples:
                yield from clock.gap(frame)
                left = round((stated - clock.seconds) * frame.sample_rate)
                padded = left > 0 and container.format.name.startswith("mov")  # the last packet, with silence
                heard = first_samples(frame, left) if padded else frame
                clock.tick(heard)
                yield from _pieces(_finite(heard))
    if damaged:
        logger.warning("%s: %d damaged audio packet(s) left out", path, damaged)
    _check_complete(path, clock.seconds, stated, damaged)


def _stated_duration(container: InputContainer, stream: AudioStream, path: Path) -> Fraction:
    """Seconds that a stream should last, if headers of its kind are exact, else 0."""
    if container.format.name not in _EXACT_HEADERS or not stream.duration or not stream.time_base:
        return Fraction(0)
    seconds = stream.duration * stream.time_base
    if container.format.name == "wav":
        # FFmpeg goes by the size of the file, and hides that a WAV file has been cut off.
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8)[4:], "little") + 8
        if size < 1 << 31:  # larger ones are placeholders of recorders that could not go back
            seconds *= max(Fraction(1), Fraction(size, path.stat().st_size))
    return seconds


def _check_complete(path: str | Path, seconds: Fraction, stated: Fraction, damaged: int) -> None:
    """Refuse a stream of no samples, or of far fewer than its header says."""
    cut_off = f"{path} is truncated or damaged; get the file again, or save it anew in an audio editor"
    if not seconds and (stated or damaged):
        raise UnreadableMedia(cut_off)
    if not seconds:
        raise AudioTooShort(f"{path} holds no sound (zero length); give some speech")
    if stated - seconds > max(0.25, 0.02 * stated):
        raise UnreadableMedia(f"{cut_off} ({float(seconds):.2f} of {float(stated):.2f} s can be read)")


class _Clock:
    """Follows the timestamps of a stream, to notice where something is missing."""

    def __init__(self) -> None:
        self.seconds = Fraction(0)  # of sound so far
        self._shift: Fraction | None = None  # from the stream's timestamps to ours

    def gap(self, frame: av.AudioFrame) -> Iterator[av.AudioFrame]:
        """Silence, if there is a gap before a frame."""
        if frame.pts is None or frame.time_base is None:
            return
        time = frame.pts * frame.time_base
        if self._shift is None:
            self._shift = self.seconds - time
        missing = time + self._shift - self.seconds
        if missing < -_LEAST_GAP:  # timestamps that step back start anew
            self._shift = self.seconds - time
        if missing < _LEAST_GAP:
            return
        logger.info("gap of %.2f s in the sound filled with silence", missing)
        samples = round(missing * frame.sample_rate)
        self.seconds += Fraction(samples, frame.sample_rate)
        channels, kind = frame.layout.nb_channels, frame.to_ndarray().dtype
        middle = 128 if kind == np.uint8 else 0
        for begin in range(0, samples, _PIECE_SAMPLES):
            size = min(_PIECE_SAMPLES, samples - begin)
            shape = (channels, size) if frame.format.is_planar else (1, channels * size)
            yield _frame(np.full(shape, middle, kind), frame)

    def tick(self, frame: av.AudioFrame) -> None:
        """Count a frame."""
        self.seconds += Fraction(frame.samples, frame.sample_rate)


def _frame(values: np.ndarray, like: av.AudioFrame) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(values, format=like.format.name, layout=_layout(like))
    frame.sample_rate = like.sample_rate
    return frame


def first_samples(frame: av.AudioFrame, count: int) -> av.AudioFrame:
    """The first ``count`` samples of a frame; the frame itself if it has no more."""
    if frame.samples <= count:
        return frame
    width = 1 if frame.format.is_planar else frame.layout.nb_channels
    return _frame(np.ascontiguousarray(frame.to_ndarray()[:, : count * width]), frame)


def _layout(frame: av.AudioFrame) -> str:
    """The frame's layout, or the usual one of as many channels where the file does not say."""
    name, count = frame.layout.name, frame.layout.nb_channels
    return USUAL_LAYOUTS.get(count, name) if name == f"{count} channels" else name


def _finite(frame: av.AudioFrame) -> av.AudioFrame:
    """The frame with what is not a number set to 0, lest the resampler smear it over its neighbours."""
    if not frame.format.name.startswith(("flt", "dbl")):
        return frame
    values = frame.to_ndarray()
    if np.abs(values).max() <= 8.0:  # false if anything is NaN
        return frame
    return _frame(np.clip(np.nan_to_num(values, nan=0.0), -8.0, 8.0), frame)


def _pieces(frame: av.AudioFrame) -> Iterator[av.AudioFrame]:
    """Cut a very large frame, such as a whole WAV may be, into small ones."""
    if frame.samples <= _PIECE_SAMPLES:
        yield frame
        return
    values = frame.to_ndarray()
    width = 1 if frame.format.is_planar else frame.layout.nb_channels
    for begin in range(0, frame.samples, _PIECE_SAMPLES):
        part = values[:, begin * width : (begin + _PIECE_SAMPLES) * width]
        yield _frame(np.ascontiguousarray(part), frame)


def _mixed(path: str | Path, rate: int, stream: int) -> Iterator[np.ndarray]:
    mixer = MonoMixer(rate)
    with open_media(path) as container:
        for frame in decode_audio(container, path, stream):
            yield mixer.push(frame)
    yield mixer.flush()


def _limited(samples: np.ndarray, gain: float) -> np.ndarray:
    limited: np.ndarray = np.clip(samples * np.float32(gain), -1.0, 1.0)
    return limited.astype(np.float32)
