"""Follows people through a video frame by frame, in a stream."""

import logging
import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from talkface.face import topology as tp
from talkface.face.detection import Detection
from talkface.face.people.appearance import Appearance, AppearanceModel
from talkface.face.people.scanning import VideoPeople, head_angles
from talkface.face.people.search import detect_faces, detected_mesh
from talkface.face.people.shots import number_shots
from talkface.face.people.smoothing import SMOOTHING_REACH, PosedFace, smooth
from talkface.face.people.tracks import ACCEPTED, FILLED_GAP, HeldFrame, Moment, PersonTrack
from talkface.face.tracker import FaceTracker

if TYPE_CHECKING:
    from talkface.media.decode import Frame

logger = logging.getLogger(__name__)

_AHEAD = 0.3  # seconds that frames are held
_SEARCH, _REST = 0.3, 1.0  # seconds between detections while somebody is missing, and while nobody is
_CHECK = 0.5  # seconds after which it is checked whose face is followed
# Seconds for which a face that is not followed is not looked at again: of a known person, and of a stranger.
_KNOWN_PAUSE, _STRANGER_PAUSE = 3.0, 1.0
_ACCEPTED_LATER = 1.0  # log-odds from which a face that was first taken for a stranger is taken for somebody
_CLEAR = 4.0  # lead in log-odds over everybody else that needs no second look
_COVERED = 30.0  # mean change of a lost face's blocks, of 255, that says that it is not there any more
_VIEWS = 4  # looks that decide who somebody is
_TURNED = math.radians(76)  # yaw from which a face is not usable
_STEADY = math.radians(6)  # by which it must be less until the face is usable again


@dataclass(frozen=True)
class Sighting:
    """One person in one frame.

    Attributes:
        points: (478, 3) x, y and depth in pixels, smoothed over time.
        found: False where the face was lost for a moment and is interpolated.
        yaw: Radians, 0 facing the camera, pi / 2 a profile; positive turns the nose to the picture's left.
        shot: Number of the shot, counted from 0; it grows at every cut.
        usable: False where the face is turned away too far to be redrawn.
    """

    points: np.ndarray
    found: bool
    yaw: float
    shot: int
    usable: bool = True


class Follower:
    """Follows people through a video, in a stream; frames are held for ``look_ahead`` seconds.

    Args:
        tracker: Finds faces and meshes.
        persons: Who is in the video, from :func:`scan`.
        numbers: Whom to follow; everybody by default. The others cost nothing.
        look_ahead: Seconds that frames are held, for smoothing, for filling gaps, and so that somebody who
            comes in is seen from the first frame.
        turned: Yaw in radians from which a face is not usable.
    """

    def __init__(
        self,
        tracker: FaceTracker,
        persons: VideoPeople,
        numbers: Iterable[int] | None = None,
        look_ahead: float = _AHEAD,
        turned: float = _TURNED,
    ) -> None:
        self.tracker, self.persons, self.look_ahead, self.turned = tracker, persons, look_ahead, turned
        self.numbers = frozenset(range(len(persons)) if numbers is None else numbers)

    def follow(self, frames: "Iterable[Frame]") -> "Iterator[tuple[Frame, dict[int, Sighting]]]":
        """Give every frame back, in order, with the people seen in it by their numbers."""
        video = _FollowedVideo(self)
        for frame, shot in number_shots(frames):
            video.push(frame, shot)
            while len(video.held) > 1 and video.held[-1].time - video.held[0].time >= self.look_ahead:
                yield video.pop()
        video.look_again()
        while video.held:
            yield video.pop()


class _FollowedVideo:
    """State of a follower on its way through a video."""

    def __init__(self, follower: Follower) -> None:
        self.tracker, self.persons, self.numbers = follower.tracker, follower.persons, follower.numbers
        self._limit = follower.turned
        self.held: deque[HeldFrame] = deque()
        self._describe = AppearanceModel.from_pretrained()
        self._tracks: list[PersonTrack] = []
        self._strangers: list[tuple[Detection, float]] = []  # where people are who are left alone, until when
        self._places: dict[int, Detection] = {}  # where the people of the video were last in this shot
        self._turned: dict[int, bool] = {}
        self._due = -math.inf
        self._shot = 0
        self._newest: HeldFrame | None = None
        self._smallest = min((self.persons[number].size[0] for number in self.numbers), default=math.inf)

    # -- the newest frame --

    def push(self, frame: "Frame", shot: int) -> None:
        """Follow everybody into one more frame."""
        if self.held and shot != self.held[-1].shot:
            self.look_again()
            self._due, self._strangers = -math.inf, []
            for track in self._tracks:
                track.live = False
        held = self._hold(frame, shot)
        for track in self._live():
            self._update(track, held)
        self._part(held)
        if held.time >= self._due:
            self._search(held)
            self._due = held.time + (_SEARCH if self._missing(held) else _REST)

    def look_again(self) -> None:
        """Search where a shot ends for who is missing: the frames since the last search are still held."""
        if self.held and self._missing(self.held[-1]):
            self._search(self.held[-1])

    def _missing(self, held: HeldFrame) -> frozenset[int]:
        """Who is asked for and not in a frame."""
        return self.numbers - {track.person for track in self._live() if track.last == held.index}

    def _hold(self, frame: "Frame", shot: int) -> HeldFrame:
        step = 0.0 if self._newest is None else abs(frame.time - self._newest.frame.time)
        index, time = (0, 0.0) if self._newest is None else (self._newest.index + 1, self._newest.time + step)
        self._newest = HeldFrame(index, time, step, frame, shot)
        self.held.append(self._newest)
        return self._newest

    def _live(self) -> list[PersonTrack]:
        return [track for track in self._tracks if track.live]

    def _update(self, track: PersonTrack, held: HeldFrame) -> None:
        mesh = self.tracker.mesh(held.frame.image, track.region)
        if mesh is None:
            self._miss(track, held)
            return
        track.region = mesh.region
        track.add(held, mesh.points)
        if not track.known:
            if held.index % 2 == 0:
                track.views.append(self._view(track, held))
                self._decide(track, only_if_clear=len(track.views) < _VIEWS)
            return
        interval = _CHECK / 5 if track.doubts else _CHECK
        if track.strays(held.index) or held.time - track.checked >= interval:
            self._check(track, held)

    def _miss(self, track: PersonTrack, held: HeldFrame) -> None:
        """What to do about a track whose face is not found in a frame."""
        last = track.moments[track.last]
        if track.last == held.index - 1:
            self._due = -math.inf  # just lost: look for it
            before = self.held[-2].frame.image if len(self.held) > 1 else held.frame.image
            if _change(before, held.frame.image, last.points) > _COVERED:
                track.live = False
        elif held.time - last.time - held.step > FILLED_GAP:
            track.live = False

    def _part(self, held: HeldFrame) -> None:
        """Where two tracks have run onto one face, the track of the person whose face it is goes on."""
        here = [track for track in self._live() if held.index in track.moments]
        for number, a in enumerate(here):
            for b in here[number + 1 :]:
                if a.live and b.live and a.region.overlaps(b.region):
                    view = self._view(a, held)
                    gone = min((b, a), key=lambda track: self._likeness(track, view))
                    gone.suspect = held.index if gone.suspect is None else gone.suspect
                    gone.close()
                    self._due = -math.inf

    def _view(self, track: PersonTrack, held: HeldFrame) -> Appearance:
        return self._describe(held.frame.image, track.moments[held.index].points)

    def _likeness(self, track: PersonTrack, view: Appearance) -> float:
        known = None if track.person is None else self.persons[track.person].appearance
        return (known or Appearance.mean(track.views)).likeness(view)

    # -- who is there --

    def _search(self, held: HeldFrame) -> None:
        """Detect faces, and begin tracks where nobody is followed yet."""
        for region in detect_faces(self.tracker, held.frame.image, self._smallest):
            near = [track for track in self._live() if track.region.overlaps(region)]
            if any(held.index in track.moments for track in near):
                continue
            waits, accept = self._stranger(region, held.time)
            if waits:
                continue
            mesh = detected_mesh(self.tracker, held.frame.image, region)
            if mesh is None or any(
                track.region.overlaps(mesh.region) and held.index in track.moments for track in self._live()
            ):
                continue
            if near:
                track = near[0]
                track.region, track.checked = mesh.region, -math.inf  # it may be somebody else's face
            else:
                track = PersonTrack(held.shot, mesh.region, accept=accept)
                self._tracks.append(track)
            track.add(held, mesh.points)
            if not track.known:
                track.views.append(self._view(track, held))
                self._decide(track, only_if_clear=True)
            if track.live:
                self._trace_back(track)

    def _stranger(self, region: Detection, time: float) -> tuple[bool, float]:
        """Whether somebody is there who is left alone for now, and the log-odds that would change that."""
        for number, (place, until) in enumerate(self._strangers):
            if place.overlaps(region):
                if math.dist(place.center, region.center) > 0.1 * place.size:  # perhaps it is somebody else
                    del self._strangers[number]
                    return False, ACCEPTED
                if time < until:
                    self._strangers[number] = region, until
                    return True, _ACCEPTED_LATER
                del self._strangers[number]
                return False, _ACCEPTED_LATER
        return False, ACCEPTED

    def _trace_back(self, track: PersonTrack) -> None:
        """Follow a face that was just detected back through the frames still held."""
        last = track.region
        for held in list(self.held)[-2::-1]:
            if held.shot != track.shot or held.index in track.moments:
                break
            mesh = self.tracker.mesh(held.frame.image, last)
            if mesh is None:
                break
            last = mesh.region
            track.add(held, mesh.points)
            if track.strays(held.index, back=-1):
                del track.moments[held.index]
                break
            if not track.known and held.index % 2 == 0 and len(track.views) < _VIEWS:
                track.views.append(self._view(track, held))

    def _decide(self, track: PersonTrack, only_if_clear: bool = False) -> None:
        """Say who is followed by a track; strangers, and people nobody asked for, are left alone."""
        taken = {other.person for other in self._live() if other is not track}
        view = Appearance.mean(track.views)
        odds: dict[int | None, float] = {None: track.accept}
        for person in self.persons.people:
            if person.number not in taken:
                place = self._places.get(person.number)
                stays = place is not None and self._shot == track.shot and place.overlaps(track.region)
                odds[person.number] = person.appearance.likeness(view) + (3.0 if stays else 0.0)
        best, *others = sorted(odds, key=lambda number: -odds[number])
        if only_if_clear and (not others or odds[best] - odds[others[0]] < _CLEAR):
            return
        track.known, track.person = True, best
        track.checked = track.moments[track.last].time
        if best not in self.numbers:
            track.live = False
            until = track.checked + (_STRANGER_PAUSE if best is None else _KNOWN_PAUSE)
            self._strangers.append((track.region, until))

    def _check(self, track: PersonTrack, held: HeldFrame) -> None:
        """End a track that has run onto somebody else's face; another may begin there."""
        view = self._view(track, held)
        taken = {other.person for other in self._live() if other is not track}
        other, odds = self.persons.recognise(view, set(range(len(self.persons))) - taken)
        own = self._likeness(track, view)
        track.checked = held.time
        if other != track.person and odds > 0 and odds - own > 4:
            track.doubts = 2
        elif own < -4:
            track.doubts += 1
        else:
            track.doubts, track.suspect = 0, None
        if track.suspect is None and (track.strays(held.index) or track.doubts):
            track.suspect = held.index
        if track.doubts >= 2:
            logger.debug("not person %s any more at %.2f s", track.person, held.frame.time)
            track.close()
            self._due = -math.inf

    # -- the oldest frame --

    def pop(self) -> "tuple[Frame, dict[int, Sighting]]":
        """The frame that has been held longest, with everybody in it."""
        held = self.held[0]
        if held.shot != self._shot:
            self._shot, self._turned, self._places = held.shot, {}, {}
        sightings: dict[int, Sighting] = {}
        for track in self._tracks:
            around = track.around(held) if track.shot == held.shot else []
            if not around:
                continue
            if not track.known:
                self._decide(track)
            number = track.person
            if number in self.numbers and number is not None:
                sighting = self._sighting(number, held, around, held.index in track.moments)
                if number not in sightings or (sighting.found and not sightings[number].found):
                    sightings[number] = sighting
                    self._places[number] = track.region
        self.held.popleft()
        self._forget(held)
        return held.frame, sightings

    def _sighting(self, number: int, held: HeldFrame, around: list[Moment], found: bool) -> Sighting:
        neutral = self.persons[number].neutral
        faces = []
        for moment in around:
            moment.face = moment.face or PosedFace.of(moment.time, moment.points, neutral)
            faces.append(moment.face)
        points, pose = smooth(faces, held.time)
        yaw = math.radians(float(head_angles(pose.rotation)[0, 0]))
        turned = abs(yaw) > self._limit - (_STEADY if self._turned.get(number, False) else 0.0)
        self._turned[number] = turned
        mouth = points[list(tp.MOUTH_CORNERS), :2].mean(0)
        inside = bool(((mouth >= 0) & (mouth < held.frame.image.shape[1::-1])).all())
        return Sighting(points, found, yaw, held.shot, inside and not turned)

    def _forget(self, held: HeldFrame) -> None:
        """Drop what no later frame needs."""
        oldest = held.time - SMOOTHING_REACH - FILLED_GAP
        for track in self._tracks:
            track.moments = {
                i: moment for i, moment in track.moments.items() if moment.time >= oldest or i == track.last
            }
        self._tracks = [
            track
            for track in self._tracks
            if track.live or (track.moments and track.moments[track.last].time >= oldest)
        ]


def _change(before: np.ndarray, now: np.ndarray, points: np.ndarray) -> float:
    """Mean change of the blocks of a face (478, >=2) from one picture to another, 0 to 255."""
    size = np.array(now.shape[1::-1])
    low = np.clip(points[:, :2].min(0).astype(int), 0, size - 2)
    high = np.clip(points[:, :2].max(0).astype(int), low + 1, size)
    step = max(1, int((high - low).min()) // 32)
    part = slice(low[1], high[1], step), slice(low[0], high[0], step)
    blocks = [
        cv2.resize(np.ascontiguousarray(image[part]), (8, 8), interpolation=cv2.INTER_AREA).astype(np.float32)
        for image in (before, now)
    ]
    return float(np.abs(blocks[0] - blocks[1]).mean())
