"""Sync judges: networks that embed 0.2 s of a face and of sound, and what they say about a video.

What is computed from the embeddings is the same for every judge, see ``embeddings.py``.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import nn

from talkface.evaluation.judges.embeddings import MAX_SHIFT, SyncScore, sync_accuracy, sync_distance
from talkface.evaluation.tracking import COMMON_FPS, ticks_within
from talkface.face.crop import cut
from talkface.face.tracker import FaceTrack
from talkface.media.audio import read_audio
from talkface.media.video import VideoReader
from talkface.speech.mel import SAMPLE_RATE

EMBEDDED_FRAMES = 5  # frames of one embedding
_CHUNK = 64  # embeddings at once
_LEAST_EMBEDDINGS = MAX_SHIFT + 5  # of the shortest clip that is scored


class SyncJudge(Protocol):
    """What a judge of sync must be able to do.

    Attributes:
        name: Prefix of its figures.
        identity: Tells its weights from others; part of the protocol.
        crop_pixels: Side of the crops that it is shown.
        padded: See :func:`~talkface.evaluation.judges.embeddings.sync_distance`.
    """

    name: str
    identity: str
    crop_pixels: int
    padded: bool

    def matrices(self, points: np.ndarray) -> np.ndarray:
        """Affine maps (T, 2, 3) from the video to the judge's crops, of meshes (T, 478, 3) at 25 fps."""
        ...

    def embed_crops(self, crops: np.ndarray) -> np.ndarray:
        """Embeddings (T - 4, C) of crops (T, crop_pixels, crop_pixels, 3) uint8 RGB at 25 fps."""
        ...

    def embed_sound(self, samples: np.ndarray) -> np.ndarray:
        """Embeddings (T - 4, C) of sound (N,) in [-1, 1] at 16 kHz; T is N / 640."""
        ...


@dataclass(frozen=True)
class Verdict:
    """What a judge says about a video.

    Attributes:
        score: Distance, confidence, offset.
        accuracy: Share of embeddings whose own sound is the nearest among +-15 frames, 0 to 1.
    """

    score: SyncScore
    accuracy: float

    def figures(self, name: str) -> dict[str, float]:
        """``<name>_d``, ``<name>_c``, ``<name>_offset`` and ``<name>_accuracy``."""
        score = self.score
        values = {"d": score.distance, "c": score.confidence, "offset": float(score.offset)}
        return {f"{name}_{key}": value for key, value in (values | {"accuracy": self.accuracy}).items()}


def verdict(judge: SyncJudge, path: Path, track: FaceTrack, sound: Path) -> Verdict | None:
    """How well a video and its sound fit, according to a judge.

    Args:
        judge: The judge.
        path: The video.
        track: Its face.
        sound: The file with its sound.

    Returns:
        None for clips shorter than a second.
    """
    video, start = embed_video(judge, path, track)
    # Counted from the first tracked frame: the sound begins there, too.
    samples = _samples(path, sound)[round(start * SAMPLE_RATE) :]
    enough = len(samples) >= 2 * EMBEDDED_FRAMES * SAMPLE_RATE / COMMON_FPS
    audio = judge.embed_sound(samples) if enough else video[:0]
    count = min(len(video), len(audio))
    if count < _LEAST_EMBEDDINGS:
        return None
    video, audio = video[:count], audio[:count]
    return Verdict(sync_distance(video, audio, padded=judge.padded), sync_accuracy(video, audio))


def _samples(video: Path, sound: Path) -> np.ndarray:
    """Samples (N,) of the sound, beginning with the video's first frame."""
    samples = read_audio(sound)
    with VideoReader(video) as reader:
        late = round(reader.audio_offset * SAMPLE_RATE) if sound == video else 0
    return samples[-late:] if late < 0 else np.pad(samples, (late, 0))


def embed_video(judge: SyncJudge, path: Path, track: FaceTrack) -> tuple[np.ndarray, float]:
    """Embeddings (T - 4, C) of a video's face at 25 fps, and the second at which the first begins."""
    held: list[np.ndarray] = []
    parts: list[np.ndarray] = []
    numbers = frames_at_ticks(track.times)
    matrices = judge.matrices(track.points[numbers])
    wanted = track.frames[numbers]
    for crop in _crops(judge, path, wanted, matrices):
        held.append(crop)
        if len(held) == _CHUNK + EMBEDDED_FRAMES - 1:
            parts.append(judge.embed_crops(np.stack(held)))
            held = held[_CHUNK:]
    if len(held) >= EMBEDDED_FRAMES:
        parts.append(judge.embed_crops(np.stack(held)))
    embedded = np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
    return embedded, ticks_within(float(track.times[0]), float(track.times[-1]))[0] / COMMON_FPS


def frames_at_ticks(times: np.ndarray) -> np.ndarray:
    """Which of the frames at ``times`` (T,) seconds is shown at each multiple of 1/25 s, indices (T',)."""
    first, last = ticks_within(float(times[0]), float(times[-1]))
    clock = np.arange(first, last + 1) / COMMON_FPS
    return np.clip(np.searchsorted(times, clock + 5e-4, side="right") - 1, 0, len(times) - 1)


def _crops(judge: SyncJudge, path: Path, wanted: np.ndarray, matrices: np.ndarray) -> Iterator[np.ndarray]:
    """The judge's crops of the frames ``wanted`` (T,), ascending numbers, which may repeat."""
    tick = 0
    with VideoReader(path) as reader:
        for number, frame in enumerate(reader):
            while tick < len(wanted) and wanted[tick] == number:
                yield cut(frame.image, matrices[tick], judge.crop_pixels)
                tick += 1
            if tick == len(wanted):
                return


def fingerprint(module: nn.Module) -> str:
    """Twelve hexadecimal digits of a hash of a network's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
