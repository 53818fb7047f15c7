"""Pairs of crops for the refiner: a part of one frame of a clip, warped to another, and the real one."""

from dataclasses import dataclass

import cv2
import numpy as np

from talkface.data.crops import CropClip
from talkface.face import topology as tp
from talkface.face.crop import MOUTH_REGION, FaceRegion, cut, fineness, region_matrix, transform
from talkface.face.draw import mesh_maps
from talkface.face.model import estimate_pose
from talkface.face.warp import MeshWarp, move_ring, with_ring
from talkface.rendering.mouth_plate import (
    MeanMouth,
    draw_plate,
    mouth_plate,
    plate_corners,
    skin_tone,
    visible_mouth,
)
from talkface.rendering.refiner import motion_code
from talkface.training.datasets.augmentation import ColourJitter
from talkface.training.datasets.mouths import unit_planes


def mean_mouth(clips: list[CropClip]) -> np.ndarray:
    """The mean mouth of the people in ``clips``, relative to the colour of their skin."""
    people: dict[str, MeanMouth] = {}
    for clip in clips:
        person = people.setdefault(clip.speaker, MeanMouth.empty())
        poses, anchors = estimate_pose(clip.points, clip.fit.neutral), plate_corners(clip.fit.neutral)
        for k in np.flatnonzero(tp.aperture(clip.points) > 0.05):
            image = clip.image(int(k))
            corners = poses.scale[k] * anchors @ poses.rotation[k].T + poses.translation[k]
            person.add(*visible_mouth(image, clip.points[k], corners), skin_tone(image, clip.points[k]))
    together = MeanMouth.empty()
    for person in people.values():
        together.merge(person)
    return together.mean()


@dataclass
class Pair:
    """A training example of one part; pictures are float32 in [0, 1] with channels first.

    Attributes:
        warped: (3, P, P) the source warped to the target's mesh.
        reference: (3, P, P) the part of the source itself.
        maps: (MAP_CHANNELS, P/2, P/2) mesh maps.
        motion: (51,) motion code of the target.
        target: (3, P, P).
        part: code of the part.
    """

    warped: np.ndarray
    reference: np.ndarray
    maps: np.ndarray
    motion: np.ndarray
    target: np.ndarray
    part: int


class PairMaker:
    """Turns two frames of a clip into the refiner's input, as at inference, and its target.

    Args:
        warp: of the face model.
        mean_mouth: (PLATE_HEIGHT, PLATE_WIDTH, 3) for mouths that the source does not show.
    """

    def __init__(self, warp: MeshWarp, mean_mouth: np.ndarray) -> None:
        self.warp, self.mean_mouth = warp, mean_mouth

    def __call__(self, clip: CropClip, source: int, target: int, part: FaceRegion) -> Pair:
        """A part of frame ``target``, from frame ``source`` of the same clip."""
        points_source, points_target = clip.points[source], clip.points[target]
        poses = estimate_pose(np.stack([points_source, points_target]), clip.fit.neutral)
        resting = with_ring(points_source)
        canonical = (resting - poses.translation[0]) / poses.scale[0] @ poses.rotation[0]
        rigid = poses.scale[1] * canonical @ poses.rotation[1].T + poses.translation[1]
        moved = move_ring(resting, rigid, points_target)
        matrix = region_matrix(points_target, part)
        image = clip.image(source)
        goal = transform(moved, matrix)
        half = part.pixels // 2
        field = self.warp.field(resting, goal, (half, half), 2.0)
        x, y = field.dense(part.pixels, part.pixels)
        warped = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        maps = mesh_maps(self.warp, field, resting, goal)
        if part.code == MOUTH_REGION.code:
            anchors = plate_corners(clip.fit.neutral)
            here, there = (
                poses.scale[k] * anchors @ poses.rotation[k].T + poses.translation[k] for k in (0, 1)
            )
            plate = mouth_plate(image, points_source, here, self.mean_mouth, fineness(part.pixels))
            warped = draw_plate(warped, plate, transform(there, matrix), maps[3])
        reference = cut(image, region_matrix(points_source, part), part.pixels)
        truth = cut(clip.image(target), matrix, part.pixels)
        motion = clip.fit.motion[target : target + 1]
        code = motion_code(motion.beta_mouth, motion.beta_upper, motion.gaze, motion.rotation)[0]
        return Pair(unit_planes(warped), unit_planes(reference), maps, code, unit_planes(truth), part.code)


def augmented(pair: Pair, generator: np.random.Generator) -> Pair:
    """Colour, light and mirror, the same on all pictures of a pair."""
    colour = ColourJitter.draw(generator)
    planes = [colour(plane) for plane in (pair.warped, pair.reference, pair.target)]
    maps, motion = pair.maps, pair.motion
    if pair.part == MOUTH_REGION.code and generator.random() < 0.5:
        planes = [np.ascontiguousarray(plane[:, :, ::-1]) for plane in planes]
        maps = np.ascontiguousarray(maps[:, :, ::-1])
        maps[0] *= -1
        motion = motion.copy()
        motion[-2:] *= -1  # yaw and roll change sign
    return Pair(planes[0], planes[1], maps, motion, planes[2], pair.part)


def stacked_pairs(pairs: list[Pair]) -> dict[str, np.ndarray]:
    """A batch of pairs of one kind of parts."""
    names = ("warped", "reference", "maps", "motion", "target")
    batch = {name: np.stack([getattr(pair, name) for pair in pairs]) for name in names}
    return batch | {"part": np.array([pair.part for pair in pairs])}
