"""Finds the hole of every frame: given as a picture, a video or a box, or around a tracked face."""

import logging
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from talkface.errors import InvalidOption
from talkface.face.people import Follower, VideoPeople
from talkface.face.people.shots import number_shots
from talkface.face.tracker import FaceTracker
from talkface.media.decode import Frame
from talkface.media.image import load_image
from talkface.media.source import SourceVideo
from talkface.options import face_within
from talkface.systems.tccp.holes import Hole, box_hole, covered, face_hole, softened

logger = logging.getLogger(__name__)

_PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
_SOFT_EDGE = 0.04  # of a given hole's smaller side, over which it fades inwards
_MOST_COVERED = 0.9  # share of a frame that a hole may cover
_LEAST_SIDE = 32  # pixels of a hole's smaller side


@dataclass(frozen=True)
class MaskedFrame:
    """A frame whose hole is covered, the hole or None, and the number of its shot."""

    frame: Frame
    hole: Hole | None
    shot: int


class Mask(Protocol):
    """Finds the hole of each frame.

    Attributes:
        margin: by how much holes are larger than the oval of the face; 0 where it is not known.
    """

    margin: float

    def follow(self, frames: Iterable[Frame]) -> Iterator[MaskedFrame]:
        """Frames in order with their holes, as often as needed."""
        ...


class StillMask:
    """The same hole in every frame.

    Args:
        mask: (H, W) 0 outside of the hole.
    """

    margin = 0.0

    def __init__(self, mask: np.ndarray) -> None:
        self.hole = _checked(mask)

    def follow(self, frames: Iterable[Frame]) -> Iterator[MaskedFrame]:
        """Frames in order with the hole."""
        hidden = (_hide(frame, self.hole) for frame in frames)
        for frame, shot in number_shots(hidden):
            yield MaskedFrame(frame, self.hole, shot)


class MovingMask:
    """A hole that a video of masks shows, white on black; its frames are held compressed.

    Args:
        path: the video of masks.
        source: the video that it belongs to.
    """

    margin = 0.0

    def __init__(self, path: Path, source: SourceVideo) -> None:
        given = SourceVideo(path)
        self.size, self.duration = source.size, source.duration
        rate = given.frame_count / given.duration
        self._held: list[bytes] = []
        for frame in given.frames():
            mask = frame.image.mean(2) > 127
            if given.size != source.size:
                mask = cv2.resize(mask.astype(np.uint8), source.size, interpolation=cv2.INTER_NEAREST) > 0
            self._held.append(zlib.compress(np.packbits(mask).tobytes(), 1))
        notes = []
        if given.size != source.size:
            notes.append(f"from {given.size[0]} x {given.size[1]} to the video's size")
        if abs(given.duration - source.duration) > 1.5 / rate:
            notes.append(f"from {given.duration:.2f} s to the video's {source.duration:.2f} s")
        if notes:
            logger.warning("%s is stretched %s", path.name, " and ".join(notes))
        if not any(self._at(k) is not None for k in range(0, len(self._held), max(1, len(self._held) // 50))):
            raise InvalidOption(f"{path.name} shows no hole: paint white what is to be filled")

    def _at(self, index: int) -> Hole | None:
        width, height = self.size
        bits = np.frombuffer(zlib.decompress(self._held[index]), np.uint8)
        mask = np.unpackbits(bits, count=width * height).reshape(height, width)
        return _checked(mask) if mask.any() else None

    def follow(self, frames: Iterable[Frame]) -> Iterator[MaskedFrame]:
        """Frames in order with the hole of their time."""
        holes: dict[float, Hole | None] = {}

        def hidden() -> Iterator[Frame]:
            for frame in frames:
                place = frame.origin / self.duration * len(self._held)
                hole = self._at(min(int(place + 0.5), len(self._held) - 1))
                holes[frame.time] = hole
                yield _hide(frame, hole) if hole else frame

        for frame, shot in number_shots(hidden()):
            yield MaskedFrame(frame, holes.pop(frame.time), shot)


class FaceMask:
    """A hole around a person's tracked face.

    Args:
        tracker: finds faces.
        persons: who is in the video.
        number: whose face it is.
        margin: how much larger than the face's oval.
    """

    def __init__(self, tracker: FaceTracker, persons: VideoPeople, number: int, margin: float) -> None:
        face_within(number, len(persons), "the video")
        self.tracker, self.persons, self.number, self.margin = tracker, persons, number, margin

    def follow(self, frames: Iterable[Frame]) -> Iterator[MaskedFrame]:
        """Frames in order; where the face is not seen there is no hole."""
        for frame, seen in Follower(self.tracker, self.persons, [self.number]).follow(frames):
            sighting = seen.get(self.number)
            if sighting is None:
                yield MaskedFrame(frame, None, -1)
                continue
            size = (frame.image.shape[1], frame.image.shape[0])
            hole = Hole.of(face_hole(sighting.points, size, self.margin))
            yield MaskedFrame(_hide(frame, hole) if hole else frame, hole, sighting.shot)


def read_mask(text: str, source: SourceVideo) -> Mask:
    """The mask in a picture or video, or of a box "x,y,w,h" in pixels.

    Raises:
        InvalidOption: it is none of these, or covers everything, nothing, or too little.
    """
    numbers = text.split(",")
    if len(numbers) == 4:
        return StillMask(_box(numbers, text, source.size))
    path = Path(text)
    if not path.is_file():
        raise InvalidOption(
            f"the mask {text} is no file; give auto, a picture or video (white is filled), or x,y,w,h"
        )
    if path.suffix.lower() not in _PICTURE_SUFFIXES:
        return MovingMask(path, source)
    mask = load_image(path).mean(2) > 127
    if mask.shape[::-1] != source.size:
        logger.warning("%s is stretched from %d x %d to the video's size", path.name, *mask.shape[::-1])
        mask = cv2.resize(mask.astype(np.uint8), source.size, interpolation=cv2.INTER_NEAREST)
    return StillMask(mask.astype(np.uint8))


def _box(numbers: list[str], text: str, size: tuple[int, int]) -> np.ndarray:
    try:
        left, top, width, height = (float(number) for number in numbers)
    except ValueError:
        raise InvalidOption(f"the mask {text} is no box; write x,y,w,h in pixels") from None
    if min(width, height) <= 0 or left >= size[0] or top >= size[1] or min(left + width, top + height) <= 0:
        raise InvalidOption(f"the mask {text} leaves the frame, which is {size[0]} x {size[1]} pixels")
    return box_hole((left, top, left + width, top + height), size)


def _checked(mask: np.ndarray) -> Hole:
    """The soft hole of a mask (H, W).

    Raises:
        InvalidOption: no head fits, or nothing is left around it.
    """
    share = float((mask > 0).mean())
    if not share:
        raise InvalidOption("the mask covers nothing: paint white what is to be filled")
    if share > _MOST_COVERED:
        raise InvalidOption("the mask covers (nearly) everything: leave some of the scene around the face")
    rough = Hole.of(mask)
    assert rough is not None
    smaller = min(rough.box[2] - rough.box[0], rough.box[3] - rough.box[1])
    if smaller < _LEAST_SIDE:
        raise InvalidOption(
            f"the mask is {smaller} pixels across, in which no head fits; it needs at least {_LEAST_SIDE}"
        )
    hole = Hole.of(softened(mask, _SOFT_EDGE * smaller))
    assert hole is not None
    return hole


def _hide(frame: Frame, hole: Hole) -> Frame:
    return replace(frame, image=covered(frame.image, hole.mask))
