"""Several sounds mixed into one file."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream

from talkface.errors import InvalidOption
from talkface.media.audio import audio_stream, decode_audio
from talkface.media.files import open_media, replacing
from talkface.media.loudness import Limiter
from talkface.media.resample import Resampler


def mix_to(paths: Sequence[str | Path], target: str | Path) -> Path:
    """Mix sounds, such as the voices of several people, into one file without loss.

    They begin together, and the mix lasts as long as the longest. It has the highest sample rate among them,
    and is mono if all are. Where the sum is too loud, it is turned down for a moment; nothing is clipped.

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
    """Sample rate and layout of a mix of sounds."""
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
    """Blocks (N, channels) of the sum of all sounds, in [-1, 1]."""
    limiter, over = Limiter(rate, channels), np.zeros((0, 1), np.float32)
    for blocks in zip_longest(*(_blocks(path, rate) for path in paths), fillvalue=over):
        added = np.zeros((max(map(len, blocks)), channels))
        for block in blocks:
            added[: len(block)] += block  # a single channel goes to both
        yield limiter.push(added)
    yield limiter.flush()


def _blocks(path: str | Path, rate: int) -> Iterator[np.ndarray]:
    """Blocks (N, 1 or 2) of a sound, a second each except the last."""
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
