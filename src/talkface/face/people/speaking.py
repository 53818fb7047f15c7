"""Who speaks in a video: whose lips move with the sound."""

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from talkface.face import topology as tp
from talkface.face.crop import face_unit
from talkface.face.model import FaceModel
from talkface.face.motion import FaceMotion
from talkface.face.people.follower import Sighting

if TYPE_CHECKING:
    from talkface.media.decode import Frame

logger = logging.getLogger(__name__)

_LAG = 0.12  # seconds by which lips and sound may be apart
_TRUST = 0.2  # least correlation that tells a speaker


@dataclass(frozen=True)
class Speaking:
    """Whose lips moved with the sound: ``number`` of the person; ``scores`` of everybody, -1 to 1."""

    number: int
    scores: dict[int, float]


def speaking(
    followed: "Iterable[tuple[Frame, dict[int, Sighting]]]",
    face: FaceModel,
    speech: FaceMotion | None,
    start: float = 0.0,
) -> Speaking:
    """Tell whose lips moved with the sound, from a stretch of a video; 20 s are plenty.

    The mouth opening of each person is compared with the one that the sound predicts.

    Args:
        followed: The stretch, as :meth:`Follower.follow` gives it.
        face: The face model.
        speech: What the sound would make lips do, as ``SpeechToMotion`` gives it; None if there is no sound.
        start: Time of ``speech``'s first frame in the video, seconds.

    Returns:
        The main person, with a warning, when there is no sound or nobody's lips move with it.
    """
    seen: dict[int, list[tuple[float, float]]] = {}
    frames = 0
    for frame, sightings in followed:
        frames += 1
        for number, sighting in sightings.items():
            seen.setdefault(number, []).append((frame.time, _opening(sighting.points)))
    if speech is None or not len(speech):
        logger.warning("the video has no sound that tells who speaks: the main person is taken")
        return Speaking(0, {})
    upper, lower = tp.INNER_LIPS
    predicted = speech.beta_mouth @ (face.mouth[:, lower, 1] - face.mouth[:, upper, 1])
    times = start + np.arange(len(predicted)) / speech.fps
    scores = {
        number: _agreement(np.array(track), times, predicted) * math.sqrt(len(track) / frames)
        for number, track in sorted(seen.items())
    }
    best = max(scores, key=lambda number: scores[number], default=0)
    if scores.get(best, 0.0) < _TRUST:
        logger.warning("nobody's lips follow the sound: the main person is taken")
        best = 0
    return Speaking(best, scores)


def _opening(points: np.ndarray) -> float:
    upper, lower = tp.INNER_LIPS
    return float(np.linalg.norm(points[upper, :2] - points[lower, :2])) / face_unit(points)


def _agreement(track: np.ndarray, times: np.ndarray, predicted: np.ndarray) -> float:
    """Correlation of openings (T, 2: seconds, opening) with the predicted ones at the best lag."""
    best = 0.0
    for lag in np.linspace(-_LAG, _LAG, 13):
        at = track[:, 0] + lag
        inside = (at >= times[0]) & (at <= times[-1])
        if inside.sum() < 10:
            continue
        a, b = track[inside, 1], np.interp(at[inside], times, predicted)
        if a.std() > 1e-4 and b.std() > 1e-6:
            best = max(best, float(np.corrcoef(a, b)[0, 1]))
    return best
