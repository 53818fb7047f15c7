"""LSE-D, LSE-C and offset, computed from embeddings of pictures and sound (Chung and Zisserman 2016)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

MAX_SHIFT = 15  # frames to either side within which the offset is sought


@dataclass(frozen=True)
class SyncScore:
    """How well picture and sound fit.

    Attributes:
        distance: LSE-D, the mean distance at the best shift; less is better.
        confidence: LSE-C, by how much the median over all shifts exceeds it; more is better.
        offset: The best shift in frames; positive: the lips are late.
        curve: (2 * max_shift + 1,) mean distance at each shift.
    """

    distance: float
    confidence: float
    offset: int
    curve: np.ndarray


def sync_distance(
    video: np.ndarray, audio: np.ndarray, max_shift: int = MAX_SHIFT, padded: bool = False
) -> SyncScore:
    """Distance, confidence and offset of embeddings.

    Args:
        video: (N, C) of the pictures, not normalised.
        audio: (N, C) of the sound at the same times.
        max_shift: Frames by which the sound is shifted to either side, less than N.
        padded: Pad the sound with zeros beyond its ends, as SyncNet's released code does; by default only
            the overlap is compared.

    Raises:
        ValueError: The embeddings differ in shape, or there are no more than ``max_shift``.
    """
    if video.shape != audio.shape or len(video) <= max_shift:
        raise ValueError(f"embeddings {video.shape} and {audio.shape} with shifts of up to {max_shift}")
    curve = np.zeros(2 * max_shift + 1)
    for index, distances in enumerate(_shifted_distances(video, audio, max_shift, padded)):
        curve[index] = distances.mean()
    best = int(curve.argmin())
    return SyncScore(float(curve[best]), float(np.median(curve) - curve[best]), best - max_shift, curve)


def _shifted_distances(
    video: np.ndarray, audio: np.ndarray, max_shift: int, padded: bool
) -> Iterator[np.ndarray]:
    """For each shift, distances between pictures and the sound ``shift`` frames earlier."""
    count = len(video)
    if padded:
        audio = np.pad(audio, ((max_shift, max_shift), (0, 0)))
    for shift in range(-max_shift, max_shift + 1):
        if padded:
            begin = max_shift - shift
            yield np.linalg.norm(video - audio[begin : begin + count], axis=1)
        else:
            sound = audio[max(0, -shift) : count - max(0, shift)]
            yield np.linalg.norm(video[max(0, shift) : count + min(0, shift)] - sound, axis=1)


def sync_accuracy(
    video: np.ndarray, audio: np.ndarray, max_shift: int = MAX_SHIFT, tolerance: int = 1
) -> float:
    """Share of pictures whose nearest sound among +-``max_shift`` frames is theirs, within ``tolerance``.

    Args:
        video: (N, C) embeddings of the pictures.
        audio: (N, C) of the sound at the same times.
        max_shift: Frames to either side; pictures nearer to an end are left out.
        tolerance: Frames.

    Returns:
        0 to 1; not a number for N of ``2 * max_shift`` or less. Chance is about 3 in 31.
    """
    inner = np.arange(max_shift, len(video) - max_shift)
    if not len(inner):
        return float("nan")
    shifts = np.arange(-max_shift, max_shift + 1)
    apart = [np.linalg.norm(video[inner] - audio[inner + shift], axis=1) for shift in shifts]
    return float((np.abs(shifts[np.argmin(apart, 0)]) <= tolerance).mean())
