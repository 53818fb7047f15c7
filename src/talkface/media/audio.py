"""Sound in, as mono float32 blocks; however long the file, memory stays the same."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer

from talkface.errors import AudioTooShort, InvalidOption, UnreadableMedia
from talkface.media.files import is_picture, open_media, replacing

logger = logging.getLogger(__name__)

SILENT_LUFS = -70.0
"""Loudness of silence: the absolute gate of BS.1770."""

USUAL_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
"""FFmpeg's name of the usual layout of so many channels."""

_GAP = 0.1  # seconds; less is rounding of timestamps
_EXACT_HEADERS = {"wav", "flac", "mov,mp4,m4a,3gp,3g2,mj2"}
_PIECE = 1 << 15  # samples handled at once; a container of raw samples may hold far larger frames


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
    mixer, meter = _Mixer(16000), LoudnessMeter()
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


def mix_to(paths: Sequence[str | Path], target: str | Path) -> Path:
    """Mix sounds, such as the voices of several people, into one file without loss.

    They begin together, and the longest says how long the mix is. It has the highest rate among them, and is
    mono if all are. Where they are too loud together, they are turned down for a moment; nothing is clipped.

    Args:
        paths: Sound files, or videos with sound.
        target: The file: ``.wav`` or ``.flac``, 24 bits a sample. It is replaced if it exists.

    Raises:
        UnreadableMedia: There is no such file, or no sound in it, or it is damaged or cut off.
        AudioTooShort: A file holds no samples.
        OutputError: The target cannot be written.
        InvalidOption: There is nothing to mix, or the target has another suffix.
    """
    codec = {".wav": "pcm_s24le", ".flac": "flac"}.get(Path(target).suffix.lower())
    if not paths or codec is None:
        raise InvalidOption("give sounds to mix, and a target that ends in .wav or .flac")
    rate, layout = _common_kind(paths)
    with replacing(target) as partial, av.open(str(partial.absolute()), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, AudioStream)
        stream.format = "s32"
        written = 0
        for samples in _mix(paths, rate, stream.layout.nb_channels):
            whole = np.clip(np.round(samples * 2**23), -(2**23), 2**23 - 1).astype(np.int32) << 8
            if whole.size:
                frame = av.AudioFrame.from_ndarray(whole.reshape(1, -1), format="s32", layout=layout)
                frame.sample_rate, frame.pts, frame.time_base = rate, written, Fraction(1, rate)
                written += len(whole)
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return Path(target)


def _common_kind(paths: Sequence[str | Path]) -> tuple[int, str]:
    """The highest rate, and the layout, for a mix of sounds."""
    rate, layouts = 0, set()
    for path in paths:
        with open_media(path) as container:
            stream = audio_stream(container, path)
            rate = max(rate, stream.codec_context.sample_rate)
            layouts.add(_mono_or_stereo(stream))
    return min(rate, 192_000), max(layouts)


def _mono_or_stereo(stream: AudioStream) -> str:
    return "mono" if stream.codec_context.layout.nb_channels == 1 else "stereo"


def _mix(paths: Sequence[str | Path], rate: int, channels: int) -> Iterator[np.ndarray]:
    """Blocks (N, channels) of all sounds added, in [-1, 1]."""
    limiter, over = _Limiter(rate, channels), np.zeros((0, 1), np.float32)
    for blocks in zip_longest(*(_blocks(path, rate) for path in paths), fillvalue=over):
        added = np.zeros((max(map(len, blocks)), channels))
        for block in blocks:
            added[: len(block)] += block  # a single channel goes to both
        yield limiter.push(added)
    yield limiter.flush()


def _blocks(path: str | Path, rate: int) -> Iterator[np.ndarray]:
    """(N, 1 or 2) samples of a sound, a second each but for the last."""
    held: list[np.ndarray] = []
    for frame in _resampled(path, rate):
        held.append(frame.to_ndarray().reshape(-1, frame.layout.nb_channels))
        if sum(map(len, held)) >= rate:
            whole = np.concatenate(held)
            end = len(whole) // rate * rate
            yield from np.split(whole[:end], end // rate)
            held = [whole[end:]]
    rest = np.concatenate(held) if held else np.zeros((0, 1), np.float32)
    if len(rest):
        yield rest


def _resampled(path: str | Path, rate: int) -> Iterator[av.AudioFrame]:
    with open_media(path) as container:
        resampler = Resampler(rate, _mono_or_stereo(audio_stream(container, path)), "flt")
        for frame in decode_audio(container, path):
            yield from resampler.push(frame)
    yield from resampler.flush()


class _Limiter:
    """Turns down what is above 1, beginning a little earlier, so that no wave loses its shape."""

    _REACH = 0.01  # seconds within which the gain changes

    def __init__(self, rate: int, channels: int) -> None:
        self._reach = max(1, round(self._REACH * rate))
        self._samples = np.zeros((0, channels))
        self._gains = np.ones(2 * self._reach)  # that are needed, from so many samples before those held

    def push(self, samples: np.ndarray) -> np.ndarray:
        """(N, channels) samples that are ready after some more."""
        self._samples = np.concatenate([self._samples, samples])
        self._gains = np.concatenate([self._gains, 1 / np.abs(samples).max(1, initial=1.0)])
        return self._ready(len(self._samples) - 2 * self._reach)

    def flush(self) -> np.ndarray:
        """The rest."""
        self._gains = np.concatenate([self._gains, np.ones(2 * self._reach)])
        return self._ready(len(self._samples))

    def _ready(self, count: int) -> np.ndarray:
        from scipy.ndimage import minimum_filter1d, uniform_filter1d

        if count <= 0:
            return self._samples[:0]
        # Where the mean of the smallest gains around is taken, each of them is at most the one needed there.
        reach, width = self._reach, 2 * self._reach + 1
        smallest = minimum_filter1d(self._gains[: count + 4 * reach], width)[reach:-reach]
        gains = uniform_filter1d(smallest, width)[reach:-reach]
        ready = self._samples[:count] * gains[:, None]
        self._samples, self._gains = self._samples[count:], self._gains[count:]
        return ready


class LoudnessMeter:
    """Gated loudness after ITU-R BS.1770-4 of 16 kHz mono sound, given piece by piece.

    The power of each block of 0.4 s is weighted in the frequency domain, where the K filter is a curve.
    What lies above 8 kHz is not heard.
    """

    _RATE, _BLOCK, _HOP = 16000, 6400, 1600

    def __init__(self) -> None:
        self._waiting: list[np.ndarray] = []
        self._powers: list[float] = []

    def push(self, samples: np.ndarray) -> None:
        """Listen to (N,) more samples."""
        self._waiting.append(samples)
        if sum(map(len, self._waiting)) >= 4 * self._BLOCK:  # several blocks at once are faster
            self._measure()

    def _measure(self) -> None:
        held = np.concatenate([np.zeros(0, np.float32), *self._waiting])
        if len(held) >= self._BLOCK:
            blocks = np.lib.stride_tricks.sliding_window_view(held, self._BLOCK)[:: self._HOP]
            self._powers += _weighted_power(blocks, np.hanning(self._BLOCK)).tolist()
            held = held[len(blocks) * self._HOP :]
        self._waiting = [held]

    def loudness(self) -> float:
        """Loudness so far in LUFS, at least -70."""
        self._measure()
        powers, rest = np.array(self._powers), self._waiting[0]
        if not len(powers) and len(rest):  # shorter than one block
            powers = _weighted_power(rest[None], np.ones(len(rest)))
        powers = powers[_lufs(powers) > SILENT_LUFS]
        if not len(powers):
            return SILENT_LUFS
        powers = powers[_lufs(powers) > _lufs(powers.mean()) - 10]  # 10 LU below what the first gate let pass
        return float(_lufs(powers.mean()))


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
    clock, damaged, said = _Clock(), 0, _said(container, stream, Path(path))
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
                left = round((said - clock.seconds) * frame.sample_rate)
                if left > 0 and container.format.name.startswith("mov"):
                    frame = first_samples(frame, left)  # the last packet is filled up with silence
                clock.tick(frame)
                yield from _pieces(_finite(frame))
    if damaged:
        logger.warning("%s: %d damaged audio packet(s) left out", path, damaged)
    _check_complete(path, clock.seconds, said, damaged)


def _said(container: InputContainer, stream: AudioStream, path: Path) -> Fraction:
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


def _check_complete(path: str | Path, seconds: Fraction, said: Fraction, damaged: int) -> None:
    """Refuse a stream of no samples, or of far fewer than its header says."""
    cut_off = f"{path} is truncated or damaged; get the file again, or save it anew in an audio editor"
    if not seconds and (said or damaged):
        raise UnreadableMedia(cut_off)
    if not seconds:
        raise AudioTooShort(f"{path} holds no sound (zero length); give some speech")
    if said - seconds > max(0.25, 0.02 * said):
        raise UnreadableMedia(f"{cut_off} ({float(seconds):.2f} of {float(said):.2f} s can be read)")


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
        if missing < -_GAP:  # timestamps that step back start anew
            self._shift = self.seconds - time
        if missing < _GAP:
            return
        logger.info("gap of %.2f s in the sound filled with silence", missing)
        samples = round(missing * frame.sample_rate)
        self.seconds += Fraction(samples, frame.sample_rate)
        channels, kind = frame.layout.nb_channels, frame.to_ndarray().dtype
        middle = 128 if kind == np.uint8 else 0
        for begin in range(0, samples, _PIECE):
            size = min(_PIECE, samples - begin)
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
    if frame.samples <= _PIECE:
        yield frame
        return
    values = frame.to_ndarray()
    width = 1 if frame.format.is_planar else frame.layout.nb_channels
    for begin in range(0, frame.samples, _PIECE):
        part = values[:, begin * width : (begin + _PIECE) * width]
        yield _frame(np.ascontiguousarray(part), frame)


class Resampler:
    """Turns frames of any rate, layout and format, even changing ones, into frames of one kind."""

    def __init__(self, rate: int, layout: str, sample_format: str = "fltp") -> None:
        self._kind = sample_format, layout, rate
        self._source: tuple[str, str, int] | None = None
        self._resampler: av.AudioResampler | None = None

    def push(self, frame: av.AudioFrame) -> list[av.AudioFrame]:
        """Frames that are ready after one more."""
        source, ready = (frame.format.name, frame.layout.name, frame.sample_rate), []
        if source != self._source:
            ready = self.flush()
            # Mixing down must not get louder: two equal channels mix into the same one.
            self._resampler = av.AudioResampler(*self._kind, options={"rematrix_maxval": "1"})
            self._source = source
        frame.pts = None
        assert self._resampler
        return ready + self._resampler.resample(frame)

    def flush(self) -> list[av.AudioFrame]:
        """The rest."""
        resampler, self._resampler, self._source = self._resampler, None, None
        return resampler.resample(None) if resampler else []


class _Mixer:
    """Mixes frames down to mono at one rate; the number of samples fits the duration of the frames."""

    def __init__(self, rate: int) -> None:
        self.seconds = Fraction(0)
        self._rate, self._given = rate, 0
        self._resampler = Resampler(rate, "mono")

    def push(self, frame: av.AudioFrame) -> np.ndarray:
        """(N,) float32 samples that are ready after one more frame."""
        self.seconds += Fraction(frame.samples, frame.sample_rate)
        return self._samples(self._resampler.push(frame))

    def flush(self) -> np.ndarray:
        """(N,) float32 samples of the rest."""
        given = self._given
        rest = self._samples(self._resampler.flush())
        wanted = max(0, round(self.seconds * self._rate) - given)
        return np.pad(rest[:wanted], (0, max(0, wanted - len(rest))))

    def _samples(self, frames: list[av.AudioFrame]) -> np.ndarray:
        parts = [frame.to_ndarray().reshape(-1) for frame in frames]
        samples = np.concatenate([np.zeros(0, np.float32), *parts])
        self._given += len(samples)
        return samples


def _mixed(path: str | Path, rate: int, stream: int) -> Iterator[np.ndarray]:
    mixer = _Mixer(rate)
    with open_media(path) as container:
        for frame in decode_audio(container, path, stream):
            yield mixer.push(frame)
    yield mixer.flush()


def _limited(samples: np.ndarray, gain: float) -> np.ndarray:
    return np.clip(samples * np.float32(gain), -1.0, 1.0).astype(np.float32)


def _weighted_power(blocks: np.ndarray, window: np.ndarray) -> np.ndarray:
    """K-weighted mean square (B,) of blocks (B, N) of 16 kHz sound."""
    size = blocks.shape[1]
    spectrum = np.abs(np.fft.rfft(blocks * window)) ** 2
    return spectrum @ _curve(size) / (size * (window**2).sum())


@lru_cache(maxsize=2)
def _curve(size: int) -> np.ndarray:
    """K weights of the bins of a real spectrum; each but the outermost stands for two frequencies."""
    both_sides = np.full(size // 2 + 1, 2.0)
    both_sides[0] = 1.0
    if size % 2 == 0:
        both_sides[-1] = 1.0
    return both_sides * _k_weighting(np.fft.rfftfreq(size, 1 / 16000))


def _k_weighting(hertz: np.ndarray) -> np.ndarray:
    """Squared gain of the K filter: a shelf for the head, then a high-pass (BS.1770-4, given for 48 kHz)."""
    z = np.exp(-2j * np.pi * hertz / 48000)
    shelf = np.polyval([1.19839281085285, -2.69169618940638, 1.53512485958697], z)
    shelf /= np.polyval([0.73248077421585, -1.69065929318241, 1.0], z)
    high_pass = (1 - z) ** 2 / np.polyval([0.99007225036621, -1.99004745483398, 1.0], z)
    return np.abs(shelf * high_pass) ** 2


def _lufs(power: np.ndarray) -> np.ndarray:
    return -0.691 + 10 * np.log10(np.maximum(power, 1e-12))
