"""Tiny real pictures, sounds and videos for the tests of the media room."""

import struct
import tempfile
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream

from talkface.media.color import ColorTags
from talkface.media.source import SourceVideo
from talkface.media.video import Frame, VideoWriter


def gradient(width: int, height: int, shift: int = 0) -> np.ndarray:
    """A smooth picture (height, width, 3) uint8 whose corners all differ: red to the right, green down."""
    x = np.linspace(0, 200, width)[None].repeat(height, 0) + shift
    y = np.linspace(0, 200, height)[:, None].repeat(width, 1)
    return np.stack([x, y, np.full_like(x, 60)], -1).clip(0, 255).astype(np.uint8)


BITS = 10


def numbered(number: int, width: int = 80, height: int = 32) -> np.ndarray:
    """A picture (height, width, 3) uint8 that says its number below 1024 in stripes of black and white."""
    stripes = np.array([number >> bit & 1 for bit in range(BITS)], np.uint8) * 200 + 20
    columns = stripes[np.arange(width) * BITS // width]
    return np.repeat(np.repeat(columns[None, :, None], height, 0), 3, 2)


def number_of(image: np.ndarray) -> int:
    """The number that a picture says."""
    width = image.shape[1]
    middles = image[image.shape[0] // 2, [(2 * bit + 1) * width // (2 * BITS) for bit in range(BITS)], 1]
    return sum(int(value > 120) << bit for bit, value in enumerate(middles))


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
        assert isinstance(stream, AudioStream)
        for packet in _encode_sound(stream, samples, rate):
            container.mux(packet)
    return path


def _encode_sound(stream: AudioStream, samples: np.ndarray, rate: int) -> "list[av.Packet[AudioStream]]":
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
    options: dict[str, str] | None = None,
    interlaced: bool = False,
) -> Path:
    """Write pictures to be shown at ``times`` (25 a second by default), with AAC sound (N, channels)."""
    base = Fraction(1, 1000)
    times = times or [number / 25 for number in range(len(images))]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=1000, options=options or {})
        assert isinstance(stream, VideoStream)
        if interlaced:
            stream.codec_context.flags |= av.codec.context.Flags.interlaced_dct
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt, stream.codec_context.time_base = pix_fmt, base
        if rotation:
            stream.set_display_rotation(rotation)
        layout = LAYOUTS[sound.shape[1]] if sound is not None else "mono"
        voice = container.add_stream("aac", rate=rate, layout=layout) if sound is not None else None
        for image, time in zip(images, times, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base, frame.duration = round(time * 1000), base, 40
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if voice is not None and sound is not None:
            container.mux(_encode_sound(voice, sound, rate))
    return path


def write_film(
    path: Path,
    images: Iterable[np.ndarray],
    fps: Fraction,
    sounds: Sequence[np.ndarray] = (),
    tags: ColorTags | None = None,
    keyframes: int = 250,
    pix_fmt: str = "yuv420p",
    crf: int = 18,
) -> Path:
    """Write pictures at a constant rate, with colours as tagged, and tracks of 16 kHz sound (N, 1)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": str(crf), "preset": "ultrafast"})
        stream.codec_context.gop_size = keyframes
        voices = [container.add_stream("aac", rate=16000, layout="mono") for _ in sounds]
        for number, image in enumerate(images):
            if not number:
                stream.height, stream.width, stream.pix_fmt = *image.shape[:2], pix_fmt
                if tags:
                    stream.color_primaries, stream.color_trc = tags.primaries, tags.transfer
                    stream.colorspace, stream.color_range = tags.matrix, tags.range
            frame = _converted(image, tags or ColorTags(matrix=5), pix_fmt)
            frame.pts, frame.time_base = number, 1 / fps
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for voice, sound in zip(voices, sounds, strict=True):
            container.mux(_encode_sound(voice, sound, 16000))
    return path


def _converted(image: np.ndarray, tags: ColorTags, pix_fmt: str) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
        format=pix_fmt,
        src_color_range=2,
        dst_color_range=tags.range or 1,
        dst_colorspace=tags.meant_matrix(image.shape[0]),
        interpolation=Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP,
    )


def write_codes(path: Path, codes: np.ndarray, tags: ColorTags, count: int = 3) -> Path:
    """Write a 10-bit grey video (25 frames a second) of stripes with given luma codes (S,), 0 to 1023."""
    width = 16 * len(codes)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = width, 32, "yuv420p10le"
        stream.color_primaries, stream.color_trc = tags.primaries, tags.transfer
        stream.colorspace, stream.color_range = tags.matrix, tags.range
        for number in range(count):
            frame = av.VideoFrame(width, 32, "yuv420p10le")
            for plane, row in zip(frame.planes, [codes.repeat(16), None, None], strict=True):
                rows = np.full((plane.height, plane.line_size // 2), 512, "<u2")
                if row is not None:
                    rows[:, : len(row)] = row
                plane.update(rows.tobytes())
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def damage(path: Path, numbers: Sequence[int]) -> Path:
    """Overwrite the packets of the video stream with these numbers."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for number in numbers:
        place, size = places[number]
        assert place is not None
        data[place : place + size] = np.random.default_rng(number).bytes(size)
    path.write_bytes(data)
    return path


def packets(path: Path) -> list[bytes]:
    """The audio packets of a file as they are."""
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def apart(one: np.ndarray, two: np.ndarray) -> float:
    """Mean difference of two pictures in levels of 255."""
    return float(np.abs(one.astype(int) - two).mean())


def copied(video: Path) -> list[Frame]:
    """The frames of a video after the encoder that dub writes with, when nothing else is done to them."""
    source = SourceVideo(video)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "copy.mp4"
        with VideoWriter(path, source.size, source.fps, like=source) as writer:
            times = []
            for frame in source:
                writer.write(frame.image)
                times.append(frame.time)
        return [Frame(frame.image, time) for frame, time in zip(SourceVideo(path), times, strict=True)]
