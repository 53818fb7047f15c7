"""The people who are dubbed: what is to be drawn of them, frame after frame."""

import logging
import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from talkface.face import topology as tp
from talkface.face.model import FaceModel
from talkface.face.occlusion import OcclusionFinder, keep_mask
from talkface.face.people import Sighting
from talkface.media.video import Frame
from talkface.performance.lip_track import LipTrack
from talkface.systems.g4g.geometry import MouthRange, Retargeter
from talkface.systems.g4g.renderer import FaceEdit, MouthRenderer

logger = logging.getLogger(__name__)

TURNED = math.radians(64)  # yaw from which a face goes back to the original
_FADE = 0.2  # seconds that this takes
_LOOKS = 12.5  # times a second at which it is looked whether something covers the mouth
_COVERED = 0.6  # share of the lips under something from which a frame stays as it is
_AWAY = 1.0  # seconds without the person after which nothing is remembered


@dataclass
class Actor:
    """One person who is dubbed: how the lips are moved and drawn, and what they say.

    Attributes:
        face: the 3DMM.
        retarget: moves the mesh's lips.
        renderer: draws them.
        lips: what they say.
        range: how they open the mouth.
        finder: sees what covers the mouth.
        keep_silence: leave the frames as they are where nobody speaks.
        absent: frames in which the person was not seen.
        turned: frames in which the face was turned away.
        covered: frames in which most of the lips were behind something.
    """

    face: FaceModel
    retarget: Retargeter
    renderer: MouthRenderer
    lips: LipTrack
    range: MouthRange
    finder: OcclusionFinder
    keep_silence: bool = False
    absent: int = 0
    turned: int = 0
    covered: int = 0
    _look: int = -1  # number of the last look at what covers the mouth
    _covering: np.ndarray | None = None
    _shot: int = -1
    _last: float = -math.inf  # when the person was seen last
    _facing: float = 0.0  # 1 for a face turned to the camera, 0 for one that is turned away

    def job(self, frame: Frame, sighting: Sighting | None) -> FaceEdit | None:
        """What is to be drawn in the next frame, or None where it stays as it is."""
        wanted = self.lips.at(frame.time)
        if sighting is None:
            self.absent += 1
            return None
        self._face(sighting, frame.time)
        if not self._facing:
            self.turned += 1
            return None
        keep = self._keep(frame, sighting.points)
        if keep is not None and _lips_under(keep, sighting.points) > _COVERED:
            self.covered += 1
            return None
        strength = self._facing * (wanted.gate if self.keep_silence else 1.0)
        wanted = replace(wanted, beta_mouth=self.range.fit(self.face, wanted.beta_mouth))
        moved = self.retarget(  # in silence too: it remembers the face
            sighting.points[None], wanted.beta_mouth[None], np.array([strength], np.float32)
        )
        if strength == 0.0:
            return None
        rotation = Rotation.from_matrix(moved.pose.rotation[0]).as_rotvec().astype(np.float32)
        return FaceEdit(
            frame.image, sighting.points, moved.points[0], rotation, wanted, frame.origin, strength, keep
        )

    def report(self, number: int) -> None:
        """Say how many frames have stayed as they were."""
        counts = {"not seen": self.absent, "turned away": self.turned, "covered": self.covered}
        said = ", ".join(f"{what} in {count} frame(s)" for what, count in counts.items() if count)
        if said:
            logger.warning("face %d is %s: they stay as they were", number, said)

    def _face(self, sighting: Sighting, time: float) -> None:
        """Note whether the face is turned to the camera: gradually, but at once in a new shot."""
        anew = sighting.shot != self._shot or time - self._last > _AWAY
        goal = float(sighting.usable)
        step = 1.0 if anew else abs(time - self._last) / _FADE
        self._facing += float(np.clip(goal - self._facing, -step, step))
        if anew:
            self.retarget.forget()
            self.finder.forget()
            self._covering = None
        self._shot, self._last = sighting.shot, time

    def _keep(self, frame: Frame, points: np.ndarray) -> np.ndarray | None:
        """Where something covers the face and the frame stays as it is, (H, W) float32; None if nowhere."""
        look = int(frame.time * _LOOKS)  # by the clock, so that a resumed run looks at the same frames
        if self._covering is None or look != self._look:
            self._covering, self._look = self.finder(frame.image, points), look
        height, width = frame.image.shape[:2]
        return keep_mask(self._covering, points, (width, height))


def _lips_under(keep: np.ndarray, points: np.ndarray) -> float:
    """Share of the lips that something covers: ``keep`` (H, W) at the lips' points."""
    lips = np.concatenate([tp.LIPS_OUTER, tp.LIPS_INNER])
    height, width = keep.shape
    x, y = np.clip(points[lips, :2].round().astype(int), 0, [width - 1, height - 1]).T
    return float((keep[y, x] > 0.5).mean())


__all__ = ["TURNED", "Actor"]
