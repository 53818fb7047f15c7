"""LSE-D, LSE-C and offset: how far picture and sound are apart in the eyes of a sync expert.

Experts embed five frames of a mouth and the sound at the same time. What is measured with the embeddings is
the same for each of them: SyncNet's distance, confidence and offset (Chung and Zisserman 2016).
"""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn

from talkface.errors import ModelUnavailable
from talkface.evaluation.figures.performance import RATE
from talkface.face.crop import MOUTH, cut, part_matrix
from talkface.face.tracker import FaceTrack
from talkface.media.audio import read_audio
from talkface.media.video import VideoReader
from talkface.speech.mel import SAMPLE_RATE

logger = logging.getLogger(__name__)

REACH = 15  # frames to either side in which the offset is sought
WINDOW = 5  # frames of an embedding
_CHUNK = 64  # embeddings at once
_LEAST = REACH + 5  # embeddings of the shortest clip that is scored


@dataclass(frozen=True)
class SyncScore:
    """How well picture and sound fit.

    Attributes:
        distance: LSE-D, the mean distance at the best shift; less is better.
        confidence: LSE-C, by how much the median over all shifts exceeds it; more is better.
        offset: The best shift in frames; positive: the lips are late.
        curve: (2 * reach + 1,) mean distance at each shift.
    """

    distance: float
    confidence: float
    offset: int
    curve: np.ndarray


def sync_distance(
    video: np.ndarray, audio: np.ndarray, reach: int = REACH, padded: bool = False
) -> SyncScore:
    """Distance, confidence and offset of embeddings.

    Args:
        video: (N, C) of the pictures, not normalised.
        audio: (N, C) of the sound at the same times.
        reach: Shifts in frames to try to either side, less than N.
        padded: Beyond the ends of the sound there are zeros, as in SyncNet's released code; by default only
            what overlaps is compared.

    Raises:
        ValueError: The embeddings differ in shape or are no more than ``reach``.
    """
    if video.shape != audio.shape or len(video) <= reach:
        raise ValueError(f"embeddings {video.shape} and {audio.shape} with a reach of {reach}")
    curve = np.zeros(2 * reach + 1)
    for index, distances in enumerate(_shifted(video, audio, reach, padded)):
        curve[index] = distances.mean()
    best = int(curve.argmin())
    return SyncScore(float(curve[best]), float(np.median(curve) - curve[best]), best - reach, curve)


def _shifted(video: np.ndarray, audio: np.ndarray, reach: int, padded: bool) -> Iterator[np.ndarray]:
    """Distances of pictures from the sound ``shift`` frames before them, for each shift."""
    count = len(video)
    if padded:
        audio = np.pad(audio, ((reach, reach), (0, 0)))
    for shift in range(-reach, reach + 1):
        if padded:
            yield np.linalg.norm(video - audio[reach - shift : reach - shift + count], axis=1)
        else:
            sound = audio[max(0, -shift) : count - max(0, shift)]
            yield np.linalg.norm(video[max(0, shift) : count + min(0, shift)] - sound, axis=1)


def sync_accuracy(video: np.ndarray, audio: np.ndarray, reach: int = REACH, tolerance: int = 1) -> float:
    """Share of pictures whose nearest sound among +-``reach`` frames is the right one, within ``tolerance``.

    Args:
        video: (N, C) embeddings of the pictures.
        audio: (N, C) of the sound at the same times.
        reach: Frames to either side; pictures nearer to an end are left out.
        tolerance: Frames.

    Returns:
        0 to 1; not a number for N of ``2 * reach`` or less. Chance is about 3 in 31.
    """
    inner = np.arange(reach, len(video) - reach)
    if not len(inner):
        return float("nan")
    shifts = np.arange(-reach, reach + 1)
    apart = [np.linalg.norm(video[inner] - audio[inner + shift], axis=1) for shift in shifts]
    return float((np.abs(shifts[np.argmin(apart, 0)]) <= tolerance).mean())


class SyncExpert(Protocol):
    """What a judge of sync must be able to do.

    Attributes:
        name: Prefix of its figures.
        identity: Tells its weights from others; part of the protocol.
        pixels: Side of the pictures it looks at.
        padded: See :func:`sync_distance`.
    """

    name: str
    identity: str
    pixels: int
    padded: bool

    def matrices(self, points: np.ndarray) -> np.ndarray:
        """Affine maps (T, 2, 3) from the video to the expert's pictures, of meshes (T, 478, 3) at 25 fps."""
        ...

    def visual(self, pictures: np.ndarray) -> np.ndarray:
        """Embeddings (T - 4, C) of pictures (T, pixels, pixels, 3) uint8 RGB at 25 fps."""
        ...

    def audio(self, samples: np.ndarray) -> np.ndarray:
        """Embeddings (T - 4, C) of sound (N,) in [-1, 1], 16 kHz; T is N / 640."""
        ...


@dataclass(frozen=True)
class Verdict:
    """What an expert says about a video.

    Attributes:
        score: Distance, confidence, offset.
        accuracy: Share of single windows whose right sound is found among +-15 frames, 0 to 1.
    """

    score: SyncScore
    accuracy: float

    def figures(self, name: str) -> dict[str, float]:
        """``<name>_d``, ``<name>_c``, ``<name>_offset`` and ``<name>_accuracy``."""
        score = self.score
        values = {"d": score.distance, "c": score.confidence, "offset": float(score.offset)}
        return {f"{name}_{key}": value for key, value in (values | {"accuracy": self.accuracy}).items()}


def judge(expert: SyncExpert, path: Path, track: FaceTrack, sound: Path) -> Verdict | None:
    """How a video and its sound fit in the eyes of an expert.

    Args:
        expert: The judge.
        path: The video.
        track: Its face.
        sound: The file with its sound.

    Returns:
        None for clips shorter than a second.
    """
    video, start = embed_pictures(expert, path, track)
    # Counted from the first tracked frame: the sound begins there, too.
    samples = _sound(path, sound)[round(start * SAMPLE_RATE) :]
    audio = expert.audio(samples) if len(samples) >= 2 * WINDOW * SAMPLE_RATE / RATE else video[:0]
    count = min(len(video), len(audio))
    if count < _LEAST:
        return None
    video, audio = video[:count], audio[:count]
    return Verdict(sync_distance(video, audio, padded=expert.padded), sync_accuracy(video, audio))


def _sound(video: Path, sound: Path) -> np.ndarray:
    """Samples (N,) of the sound, beginning with the video's first frame."""
    samples = read_audio(sound)
    with VideoReader(video) as reader:
        late = round(reader.audio_offset * SAMPLE_RATE) if sound == video else 0
    return samples[-late:] if late < 0 else np.pad(samples, (late, 0))


def embed_pictures(expert: SyncExpert, path: Path, track: FaceTrack) -> tuple[np.ndarray, float]:
    """Embeddings (T - 4, C) of a video's face at 25 fps, and the second at which the first begins."""
    held: list[np.ndarray] = []
    parts: list[np.ndarray] = []
    numbers = ticks(track.times)
    matrices = expert.matrices(track.points[numbers])
    wanted = track.frames[numbers]
    for picture in _pictures(expert, path, wanted, matrices):
        held.append(picture)
        if len(held) == _CHUNK + WINDOW - 1:
            parts.append(expert.visual(np.stack(held)))
            held = held[_CHUNK:]
    if len(held) >= WINDOW:
        parts.append(expert.visual(np.stack(held)))
    embedded = np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
    return embedded, float(np.ceil(track.times[0] * RATE - 1e-6) / RATE)


def ticks(times: np.ndarray) -> np.ndarray:
    """Which of the frames at ``times`` (T,) seconds is shown at each tick of 25 a second, indices (T',)."""
    clock = np.arange(np.ceil(times[0] * RATE - 1e-6), np.floor(times[-1] * RATE + 1e-6) + 1) / RATE
    return np.clip(np.searchsorted(times, clock + 5e-4, side="right") - 1, 0, len(times) - 1)


def _pictures(
    expert: SyncExpert, path: Path, wanted: np.ndarray, matrices: np.ndarray
) -> Iterator[np.ndarray]:
    """The expert's pictures of frames by ascending number, one a tick."""
    tick = 0
    with VideoReader(path) as reader:
        for number, frame in enumerate(reader):
            while tick < len(wanted) and wanted[tick] == number:
                yield cut(frame.image, matrices[tick], expert.pixels)
                tick += 1
            if tick == len(wanted):
                return


# -- this project's expert ---------------------------------------------------------------------------


class EvaluationExpert:
    """This project's expert for evaluations: of another architecture, and trained on other clips, than the
    one in the generator's loss.

    Args:
        name_or_path: The shipped weights, or others of a directory or hub id.

    Raises:
        ModelUnavailable: There are none.
    """

    name, pixels, padded = "lse", 96, False

    def __init__(self, name_or_path: str = "sync-evaluation") -> None:
        from talkface.speech.features import ContentEncoder, FeatureStream
        from talkface.systems.g4g.experts import SyncExpert as Network

        self._network = Network.from_pretrained(name_or_path)
        self._listen = FeatureStream(ContentEncoder.from_pretrained())
        self.identity = f"{name_or_path} {fingerprint(self._network)}"

    def matrices(self, points: np.ndarray) -> np.ndarray:
        """The mouth, upright along the eyes."""
        return np.stack([part_matrix(mesh, MOUTH) * (self.pixels / MOUTH.pixels) for mesh in points])

    @torch.inference_mode()
    def visual(self, pictures: np.ndarray) -> np.ndarray:
        """See :class:`SyncExpert`."""
        mouths = torch.from_numpy(pictures).movedim(-1, 1).float() / 255
        return self._network.embed_video(mouths[None])[0].numpy()

    @torch.inference_mode()
    def audio(self, samples: np.ndarray) -> np.ndarray:
        """See :class:`SyncExpert`."""
        stretches = list(self._listen([samples]))
        content = torch.cat([stretch.content for stretch in stretches])
        level = torch.cat([stretch.level for stretch in stretches])
        whole = len(level) // 2 * 2
        return self._network.embed_audio(content[None, :whole], level[None, :whole])[0].numpy()


@cache
def evaluation_expert() -> EvaluationExpert | None:
    """The project's expert, or None where there are no weights: its figures are then left out of a report."""
    try:
        return EvaluationExpert()
    except (ModelUnavailable, ImportError) as error:
        logger.warning("no LSE-D and LSE-C: %s", error)
        return None


def experts(syncnet: Path | None = None) -> list[SyncExpert]:
    """The judges at hand: this project's, and SyncNet's original weights if the user has them.

    Args:
        syncnet: Their file.

    Raises:
        ModelUnavailable: The file does not hold them.
    """
    from talkface.evaluation.judges.syncnet import OriginalSyncNet

    original = [OriginalSyncNet(syncnet)] if syncnet else []
    ours = evaluation_expert()
    return [*([ours] if ours else []), *original]


def fingerprint(module: nn.Module) -> str:
    """Twelve digits of a network's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
