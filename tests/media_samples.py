"""Tiny real pictures, sounds and videos for the tests of the media room."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def gradient(width: int, height: int, shift: int = 0) -> np.ndarray:
    """A smooth picture (height, width, 3) uint8 whose corners all differ: red to the right, green down."""
    x = np.linspace(0, 200, width)[None].repeat(height, 0) + shift
    y = np.linspace(0, 200, height)[:, None].repeat(width, 1)
    return np.stack([x, y, np.full_like(x, 60)], -1).clip(0, 255).astype(np.uint8)


def tone(
    seconds: float, rate: int, channels: int = 1, level: float = 0.5, hertz: float = 440.0
) -> np.ndarray:
    """A sine in all channels (N, channels) float32."""
    time = np.arange(round(seconds * rate)) / rate
    return np.repeat(level * np.sin(2 * np.pi * hertz * time)[:, None], channels, 1).astype(np.float32)


def write_float_wav(path: Path, samples: np.ndarray, rate: int) -> Path:
    """Write (N, channels) float32 samples as they are, NaN and all."""
    data, channels = samples.astype("<f4").tobytes(), samples.shape[1]
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16),
        *(3, channels, rate, 4 * rate * channels, 4 * channels, 32, b"data", len(data)),
    )
    path.write_bytes(head + data)
    return path


LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1"}


def write_sound(path: Path, samples: np.ndarray, rate: int, codec: str) -> Path:
    """Encode (N, channels) float samples; the suffix says the container."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=LAYOUTS[samples.shape[1]])
        for packet in _encode_sound(stream, samples, rate):
            container.mux(packet)
    return path


def _encode_sound(stream: av.AudioStream, samples: np.ndarray, rate: int) -> list[av.Packet]:
    whole = (np.clip(samples, -1, 1) * 32767).astype("<i2").reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(whole, format="s16", layout=LAYOUTS[samples.shape[1]])
    frame.sample_rate, frame.pts = rate, 0
    return [*stream.encode(frame), *stream.encode(None)]


def write_video(
    path: Path,
    images: Sequence[np.ndarray],
    times: Sequence[float] | None = None,
    sound: np.ndarray | None = None,
    rate: int = 16000,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rotation: float = 0.0,
) -> Path:
    """Write pictures to be shown at ``times`` (25 a second by default), with AAC sound (N, channels)."""
    base = Fraction(1, 1000)
    times = times or [number / 25 for number in range(len(images))]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=1000)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt, stream.codec_context.time_base = pix_fmt, base
        if rotation:
            stream.set_display_rotation(rotation)
        voice = (
            container.add_stream("aac", rate=rate, layout=LAYOUTS[sound.shape[1]])
            if sound is not None
            else None
        )
        for image, time in zip(images, times, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base, frame.duration = round(time * 1000), base, 40
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if voice is not None and sound is not None:
            container.mux(_encode_sound(voice, sound, rate))
    return path


def packets(path: Path) -> list[bytes]:
    """The audio packets of a file as they are."""
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]
