"""The people of a video, told apart by a fast look at a few frames."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation

from talkface.errors import NoFaceFound
from talkface.face import topology as tp
from talkface.face.detection import Detection
from talkface.face.model import FaceModel, estimate_pose
from talkface.face.people.appearance import Appearance, AppearanceModel
from talkface.face.people.search import detect_faces, detected_mesh, face_height
from talkface.face.people.shots import CHANGE, blocks, difference
from talkface.face.tracker import FaceTracker
from talkface.media.prefetch import prefetched

if TYPE_CHECKING:
    from talkface.media.decode import Frame

_SMALLEST = 40  # pixels from forehead to chin that are looked for
_FRONTAL = 45.0  # degrees of yaw up to which a view tells what the face is like from the front
_TRUSTED = 3  # frames that look much like the one before in which nobody new is looked for
_NEWCOMER_CHANGE = 0.2  # change of a block of the picture, 0 to 1, from which somebody may have come in
_YAW = 1.5  # how much further heads turn than the mesh network's meshes, judged by eye on 60 turned faces


@dataclass(frozen=True)
class Person:
    """Somebody seen in a video.

    Attributes:
        number: Place among the people of the video; 0 is the main person.
        times: (N,) seconds at which the scan saw the person, ascending.
        share: Part of the scanned frames in which the person was seen, 0 to 1.
        box: Median left, top, right, bottom of the face in pixels.
        yaw, pitch, roll: Least and greatest, degrees, 0 facing the camera; positive yaw turns the nose to
            the picture's left, and +-90 is a profile.
        size: Height of the smallest and the largest face, forehead to chin, pixels.
        points: (N, 478, 3) the meshes at ``times``, pixels.
        openings: (N,) inner-lip opening over inter-ocular distance, at ``times``.
        neutral: (478, 3) this person's canonical mesh at rest.
        appearance: What the person looks like.
    """

    number: int
    times: np.ndarray
    share: float
    box: tuple[float, float, float, float]
    yaw: tuple[float, float]
    pitch: tuple[float, float]
    roll: tuple[float, float]
    size: tuple[float, float]
    points: np.ndarray
    openings: np.ndarray
    neutral: np.ndarray
    appearance: Appearance


@dataclass(frozen=True)
class VideoPeople:
    """The people of a video, the main one first; ``frames`` is how many frames were looked at."""

    people: list[Person]
    frames: int

    def __len__(self) -> int:
        return len(self.people)

    def __getitem__(self, number: int) -> Person:
        return self.people[number]

    def recognise(self, appearance: Appearance, among: Iterable[int] | None = None) -> tuple[int, float]:
        """The number of the person who looks most alike, and the log-odds that it is really that person."""
        numbers = range(len(self.people)) if among is None else among
        odds = {number: self.people[number].appearance.likeness(appearance) for number in numbers}
        best = max(odds, key=lambda number: odds[number], default=-1)
        return best, odds.get(best, -math.inf)


@dataclass(frozen=True)
class _ScannedFrame:
    """A scanned frame.

    Attributes:
        frame: the frame.
        alike: whether it looks much like the one before.
        regions: faces detected in it; None if nobody new was looked for.
    """

    frame: "Frame"
    alike: bool
    regions: list[Detection] | None


@dataclass(frozen=True)
class _View:
    """A face in a scanned frame."""

    frame: int
    time: float
    points: np.ndarray
    region: Detection
    appearance: Appearance


@dataclass
class _Group:
    """Views that are taken for one person."""

    views: list[_View]
    appearance: Appearance

    @classmethod
    def of(cls, views: list[_View]) -> "_Group":
        return cls(views, Appearance.mean([view.appearance for view in views]))

    def meets(self, other: "_Group") -> bool:
        """Whether both are in the same frame, and so two people."""
        return not {view.frame for view in self.views}.isdisjoint(view.frame for view in other.views)


def scan(
    frames: "Iterable[Frame]",
    tracker: FaceTracker,
    face: FaceModel,
    keep: "Callable[[Frame, list[np.ndarray]], None] | None" = None,
) -> VideoPeople:
    """Find the people of a video from a few frames spread over it; one frame is held at a time.

    Args:
        frames: to look at, in order.
        tracker: finds faces and meshes.
        face: the 3DMM.
        keep: called with each frame and the meshes (478, 3) of the faces in it.

    Raises:
        NoFaceFound: Nobody is seen in any frame.
    """
    views: list[list[_View]] = []
    alike: list[bool] = []
    for index, scanned in enumerate(prefetched(_scanned(frames, tracker))):
        alike.append(scanned.alike)
        views.append(_views(index, scanned, tracker, views[-1] if views else []))
        if keep:
            keep(scanned.frame, [view.points for view in views[-1]])
    groups = _merged(_chained(views, alike))
    if not groups:
        raise NoFaceFound("no face found in the video; give one in which a face is clearly visible")
    groups.sort(key=lambda group: -sum(face_height(view.points) for view in group.views))
    people = [_person(number, group.views, len(views), face) for number, group in enumerate(groups)]
    return VideoPeople(people, len(views))


def _scanned(frames: "Iterable[Frame]", tracker: FaceTracker) -> "Iterator[_ScannedFrame]":
    """Frames with the faces that the detector finds in them, where somebody new may be."""
    last: np.ndarray | None = None
    trusted = 0
    for frame in frames:
        now = blocks(frame.image)
        alike = last is not None and difference(last, now) < CHANGE
        calm = alike and last is not None and float(np.abs(last - now).max()) < _NEWCOMER_CHANGE
        last, trusted = now, trusted + 1 if calm else 0
        due = trusted % (_TRUSTED + 1) == 0
        yield _ScannedFrame(frame, alike, detect_faces(tracker, frame.image, _SMALLEST) if due else None)


def _views(index: int, scanned: _ScannedFrame, tracker: FaceTracker, before: list[_View]) -> list[_View]:
    """The faces of a frame: those detected, or those ``before`` unless one is lost."""
    frame, regions = scanned.frame, scanned.regions
    if regions is None:
        views = _seen(index, frame, tracker, [view.region for view in before])
        if before and len(views) == len(before):
            return views
        regions = detect_faces(tracker, frame.image, _SMALLEST)
    return _seen(index, frame, tracker, regions)


def _seen(index: int, frame: "Frame", tracker: FaceTracker, regions: list[Detection]) -> list[_View]:
    describe = AppearanceModel.from_pretrained()
    views: list[_View] = []
    for region in regions:
        mesh = detected_mesh(tracker, frame.image, region)
        if mesh and not any(view.region.overlaps(mesh.region) for view in views):
            seen = describe(frame.image, mesh.points)
            views.append(_View(index, frame.time, mesh.points, mesh.region, seen))
    return views


def _chained(frames: list[list[_View]], alike: list[bool]) -> list[_Group]:
    """Groups of views of successive frames that are at the same place and look alike.

    Where the whole picture hardly changes, a face that does is most likely the same one, turned away.
    """
    chains: list[list[_View]] = []
    for index, views in enumerate(frames):
        least = -5.0 if alike[index] else 0.0
        for view in views:
            near = [
                (chain[-1].appearance.likeness(view.appearance), chain)
                for chain in chains
                if chain[-1].frame == index - 1 and chain[-1].region.overlaps(view.region)
            ]
            odds, best = max(near, key=lambda pair: pair[0], default=(-math.inf, []))
            if odds > least:
                best.append(view)
            else:
                chains.append([view])
    return [_Group.of(chain) for chain in chains]


def _merged(groups: list[_Group]) -> list[_Group]:
    """Merge groups of the same person, most alike first, unless both are seen in one frame."""

    def likeness(a: _Group, b: _Group) -> float:
        if a.meets(b):
            return -math.inf
        certain = min(len(a.views), len(b.views)) >= 3  # with few views, odds stay low
        return a.appearance.likeness(b.appearance) - (1.0 if certain else 0.0)

    table = np.array([[likeness(a, b) if a is not b else -math.inf for b in groups] for a in groups])
    groups, left = list(groups), list(range(len(groups)))
    while len(left) > 1:
        part = table[np.ix_(left, left)]
        row, column = np.unravel_index(part.argmax(), part.shape)
        if part[row, column] <= 0:
            break
        kept, gone = left[row], left[column]
        left.remove(gone)
        groups[kept] = _Group.of(groups[kept].views + groups[gone].views)
        for other in left:
            if other != kept:
                table[kept, other] = table[other, kept] = likeness(groups[kept], groups[other])
    return [groups[index] for index in left]


def _person(number: int, views: Sequence[_View], frames: int, face: FaceModel) -> Person:
    views = sorted(views, key=lambda view: view.frame)
    points = np.stack([view.points for view in views])
    turn = head_angles(estimate_pose(points, face.mean).rotation)
    frontal = np.abs(turn[:, 0]) <= max(_FRONTAL, float(np.median(np.abs(turn[:, 0]))))
    neutral = face.fit(points[frontal]).neutral
    turn = head_angles(estimate_pose(points, neutral).rotation)
    heights = [face_height(p) for p in points]
    boxes = np.concatenate([points[..., :2].min(1), points[..., :2].max(1)], 1)
    left, top, right, bottom = np.median(boxes, 0).tolist()
    yaw, pitch, roll = [(float(angle.min()), float(angle.max())) for angle in turn.T]
    return Person(
        number=number,
        times=np.array([view.time for view in views]),
        share=len(views) / frames,
        box=(left, top, right, bottom),
        yaw=yaw,
        pitch=pitch,
        roll=roll,
        size=(min(heights), max(heights)),
        points=points,
        openings=tp.aperture(points),
        neutral=neutral,
        appearance=Appearance.mean([view.appearance for view in views]),
    )


def head_angles(rotation: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll of heads in degrees (T, 3), from rotations (T, 3, 3) of a pose."""
    angles: np.ndarray = Rotation.from_matrix(rotation).as_euler("YXZ", degrees=True)
    angles[:, 0] = np.clip(_YAW * angles[:, 0], -90.0, 90.0)
    return angles
