"""The people who are dubbed: how each frame of theirs is to be changed, or why it stays as it is."""

import logging
import math
from dataclasses import dataclass, replace

import numpy as np

from talkface.face import topology as tp
from talkface.face.model import FaceModel
from talkface.face.occlusion import OcclusionFinder, keep_mask
from talkface.face.people import Sighting
from talkface.media.decode import Frame
from talkface.performance.lip_track import LipTrack
from talkface.systems.g4g.geometry import MouthRange, Retargeter
from talkface.systems.g4g.renderer import FaceEdit, MouthRenderer

logger = logging.getLogger(__name__)

TURNED = math.radians(64)
"""Yaw, radians, from which a face stays as it is in the video."""
_FADE = 0.2  # seconds over which a face that turns away fades to the original
_OCCLUSION_RATE = 12.5  # times per second at which occlusion of the mouth is looked for
_COVERED = 0.6  # share of covered lips from which a frame stays as it is
_AWAY = 1.0  # seconds without the person after which what is remembered is dropped


@dataclass
class FaceEditor:
    """One person who is dubbed, from frame to frame.

    Attributes:
        face: the 3DMM.
        retarget: moves the lips of the mesh.
        renderer: draws the mouth.
        lips: the lip motion of the new speech.
        range: how far the person opens the mouth.
        finder: finds what covers the mouth.
        keep_silence: leave the frames as they are where nobody speaks.
        absent: number of frames so far in which the person was not seen.
        turned: number in which the face was turned away.
        covered: number in which most of the lips were behind something.
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
    _search: int = -1  # number of the last search for occlusion
    _covering: np.ndarray | None = None
    _shot: int = -1
    _last: float = -math.inf  # when the person was seen last
    _facing: float = 0.0  # 1 for a face turned to the camera, 0 for one that is turned away

    def edit(self, frame: Frame, sighting: Sighting | None) -> FaceEdit | None:
        """How the next frame is to be changed, or None where it stays as it is.

        Args:
            frame: to be called for one after the other.
            sighting: where the person is in it; None if nowhere.
        """
        target = self.lips.at(frame.time)
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
        strength = self._facing * (target.gate if self.keep_silence else 1.0)
        target = replace(target, beta_mouth=self.range.fit(self.face, target.beta_mouth))
        moved = self.retarget(  # in silence too: its running mean goes on
            sighting.points[None], target.beta_mouth[None], np.array([strength], np.float32)
        )
        if strength == 0.0:
            return None
        rotation = moved.pose.rotation_vectors[0]
        return FaceEdit(
            frame.image, sighting.points, moved.points[0], rotation, target, frame.origin, strength, keep
        )

    def report(self, number: int) -> None:
        """Log how many frames have stayed as they were; ``number`` is the person's."""
        counts = {"not seen": self.absent, "turned away": self.turned, "covered": self.covered}
        reasons = ", ".join(f"{what} in {count} frame(s)" for what, count in counts.items() if count)
        if reasons:
            logger.warning("face %d is %s: they stay as they were", number, reasons)

    def _face(self, sighting: Sighting, time: float) -> None:
        """Update how far the face counts as turned to the camera: gradually, but at once in a new shot."""
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
        # By the clock, so that a resumed run searches the same frames.
        search = int(frame.time * _OCCLUSION_RATE)
        if self._covering is None or search != self._search:
            self._covering, self._search = self.finder(frame.image, points), search
        height, width = frame.image.shape[:2]
        return keep_mask(self._covering, points, (width, height))


def _lips_under(keep: np.ndarray, points: np.ndarray) -> float:
    """Share of the lips that something covers: ``keep`` (H, W) at the lips' points."""
    lips = np.concatenate([tp.LIPS_OUTER, tp.LIPS_INNER])
    height, width = keep.shape
    x, y = np.clip(points[lips, :2].round().astype(int), 0, [width - 1, height - 1]).T
    return float((keep[y, x] > 0.5).mean())
