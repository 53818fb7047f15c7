"""One person's face through one shot, as far as it has been followed."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from talkface.face import topology as tp
from talkface.face.crop import face_unit
from talkface.face.detection import Detection
from talkface.face.people.appearance import Appearance
from talkface.face.people.smoothing import SMOOTHING_REACH, PosedFace

if TYPE_CHECKING:
    from talkface.media.decode import Frame

FILLED_GAP = 0.2  # seconds without a face that are interpolated
ACCEPTED = -1.0  # log-odds from which a face is taken for the likeliest person of the video
_STRAY = 0.12  # inter-ocular distances by which a face leaves its course when a track hops to another one
_JUMP = 0.35  # inter-ocular distances from frame to frame; more is no motion


@dataclass(frozen=True)
class HeldFrame:
    """A frame that waits for what comes after it.

    ``time`` in seconds grows even if the video runs backwards; ``step`` is that since the frame before.
    """

    index: int
    time: float
    step: float
    frame: "Frame"
    shot: int


@dataclass
class Moment:
    """Where a face was found in a frame, as tracked; ``face`` is the same, pose and expression apart."""

    time: float
    points: np.ndarray
    center: np.ndarray
    unit: float
    face: PosedFace | None = None

    def jumps_to(self, later: "Moment") -> bool:
        """Whether the face moves or grows too much for a motion until then."""
        frames = max(1.0, (later.time - self.time) / 0.04)
        moved = float(np.linalg.norm(later.center - self.center)) / self.unit
        return max(moved, abs(math.log(later.unit / self.unit))) > _JUMP * frames


@dataclass
class PersonTrack:
    """A face followed through one shot.

    Attributes:
        shot: Number of the shot.
        region: Where the face was last.
        moments: What was found in recent frames, by their index.
        views: What the face looks like; of at most a few frames.
        live: Whether it is still followed.
        known: Whether it has been decided who it is: ``person``, None for a stranger.
        checked: When it was last checked whose face it is, seconds.
        accept: Log-odds from which it is taken for somebody of the video.
        doubts: How many checks in a row have failed.
        suspect: Index of the frame since which it may be somebody else's face.
    """

    shot: int
    region: Detection
    moments: dict[int, Moment] = field(default_factory=dict)
    views: list[Appearance] = field(default_factory=list)
    live: bool = True
    known: bool = False
    person: int | None = None
    checked: float = 0.0
    accept: float = ACCEPTED
    doubts: int = 0
    suspect: int | None = None

    def add(self, held: HeldFrame, points: np.ndarray) -> None:
        """Note where the face is in a frame: mesh (478, 3) in pixels."""
        center, unit = points[tp.RIGID, :2].mean(0), max(face_unit(points), 1e-3)
        self.moments[held.index] = Moment(held.time, points, center, unit)

    @property
    def last(self) -> int:
        """Index of the last frame in which the face was found; -1 if in none."""
        return max(self.moments, default=-1)

    def strays(self, index: int, back: int = 1) -> bool:
        """Whether the face suddenly leaves its course in a frame, coming from before (1) or after (-1)."""
        a, b, c = (self.moments.get(index - back * steps) for steps in (2, 1, 0))
        if a is None or b is None or c is None:
            return False
        return float(np.linalg.norm(c.center - 2 * b.center + a.center)) > _STRAY * b.unit

    def close(self) -> None:
        """Follow it no further, and forget what may have been somebody else's face."""
        self.live = False
        if self.suspect is not None:
            self.moments = {i: moment for i, moment in self.moments.items() if i < self.suspect}

    def around(self, held: HeldFrame) -> list[Moment]:
        """Moments, in order of time, that tell where the face is in a frame; empty if nothing does."""
        order = sorted(self.moments)
        before = [self.moments[i] for i in order if i <= held.index]
        after = [self.moments[i] for i in order if i > held.index]
        if held.index not in self.moments:
            if not (before and after) or before[-1].jumps_to(after[0]):
                return []
            if after[0].time - before[-1].time - held.step > FILLED_GAP + 1e-3:
                return []
        chosen = before[-1:]
        for moment in reversed(before[:-1]):
            if held.time - moment.time > SMOOTHING_REACH or moment.jumps_to(chosen[0]):
                break
            chosen.insert(0, moment)
        for moment in after:
            if moment.time - held.time > SMOOTHING_REACH or chosen[-1].jumps_to(moment):
                break
            chosen.append(moment)
        return chosen
