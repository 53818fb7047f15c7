"""Samples for G4G's trainings: the generator's inputs and targets, cut out of talking clips."""

import cv2
import numpy as np

from talkface.face.crop import cut, transform
from talkface.face.model import FaceModel, estimate_pose
from talkface.face.warp import move_ring, with_ring
from talkface.performance.config import SPEECH_WINDOW
from talkface.systems.g4g.drawing import FrameInputs, Reference, mouth_matrix
from talkface.systems.g4g.geometry import mesh_code, mouth_shape
from talkface.systems.g4g.references import features, spread
from talkface.training.datasets.talking import TalkingClip


class MouthInputs:
    """Makes inputs and targets of the generator from talking clips.

    Args:
        face: the 3DMM.
        pixels: side of the mouth crop.
    """

    def __init__(self, face: FaceModel, pixels: int) -> None:
        self.face, self.warp, self.pixels = face, face.mesh_warp(), pixels

    def describe(self, clip: TalkingClip) -> np.ndarray:
        """Features (T, F) by which references are chosen."""
        return features(mouth_shape(self.face, clip.beta_mouth), clip.crops.fit.motion.rotation)

    def reference(self, clip: TalkingClip, frame: int) -> Reference:
        """A frame as a reference."""
        points = clip.crops.points[frame]
        matrix = mouth_matrix(points, self.pixels)
        crop = cut(clip.crops.image(frame), matrix, self.pixels)
        return Reference(crop, transform(with_ring(points), matrix))

    def context(self, clip: TalkingClip, frame: int, other: int | None) -> tuple[np.ndarray, np.ndarray]:
        """A frame's mouth crop and its mesh.

        Args:
            clip: of the frame.
            frame: its number.
            other: another frame: the crop is warped to its mouth shape and back, which leaves the traces that
                a dubbed jaw has; None leaves the crop as it is.

        Returns:
            The crop (P, P, 3) uint8, and the mesh with ring (WARP_VERTICES, 3) in its pixels.
        """
        points = clip.crops.points[frame]
        matrix = mouth_matrix(points, self.pixels)
        crop = cut(clip.crops.image(frame), matrix, self.pixels)
        goal = transform(with_ring(points), matrix)
        if other is None:
            return crop, goal
        pose = estimate_pose(points[None], clip.crops.fit.neutral)
        basis = self.face.mouth.reshape(len(self.face.mouth), -1)
        change = (clip.beta_mouth[other] - clip.beta_mouth[frame]) @ basis
        moved = pose.apply(pose.invert(points[None]) + change.reshape(1, -1, 3))[0].astype(np.float32)
        resting = with_ring(points)
        there = transform(move_ring(resting, resting, moved), matrix)
        half = self.pixels // 2
        for a, b in ((goal, there), (there, goal)):
            x, y = self.warp.field(a, b, (half, half), 2.0).dense(self.pixels, self.pixels)
            crop = cv2.remap(crop, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        return crop, goal

    def target(self, clip: TalkingClip, frame: int) -> np.ndarray:
        """The real mouth crop (P, P, 3) uint8."""
        matrix = mouth_matrix(clip.crops.points[frame], self.pixels)
        return cut(clip.crops.image(frame), matrix, self.pixels)

    def speech(self, clip: TalkingClip, frame: int, variant: int) -> tuple[np.ndarray, np.ndarray]:
        """Content (2 * SPEECH_WINDOW, C) and level (2 * SPEECH_WINDOW,) around a frame."""
        content, level = clip.content[variant], clip.level[variant]
        around = 2 * frame + np.arange(-SPEECH_WINDOW + 1, SPEECH_WINDOW + 1)
        around = np.clip(around, 0, len(level) - 1)
        return content[around].astype(np.float32), level[around].astype(np.float32)

    def mesh(self, clip: TalkingClip, frame: int) -> np.ndarray:
        """Mesh code (mesh,) of a frame."""
        return mesh_code(clip.beta_mouth[frame], clip.crops.fit.motion.rotation[frame])

    def bank(self, clip: TalkingClip, away: range, generator: np.random.Generator, size: int) -> np.ndarray:
        """Frames that may serve as references.

        Args:
            clip: of the frames.
            away: frames that are drawn; references keep away from them.
            generator: draws the candidates.
            size: greatest number of references.

        Returns:
            (K,) numbers of frames.
        """
        every = np.arange(len(clip))
        free = every[(every < away.start - 4) | (every >= away.stop + 4)]
        free = free if len(free) > 2 else every
        some = np.sort(generator.permutation(free)[: 6 * size])
        chosen: np.ndarray = some[spread(self.describe(clip)[some], size)]
        return chosen


def planes(picture: np.ndarray) -> np.ndarray:
    """(..., H, W, 3) to (..., 3, H, W)."""
    return np.ascontiguousarray(np.moveaxis(picture, -1, -3))


def inputs(prepared: FrameInputs) -> dict[str, np.ndarray]:
    """A frame's inputs, named and laid out as in the generator's batches."""
    return {
        "context": planes(prepared.context),
        "hidden": prepared.hidden[None],
        "maps": prepared.maps,
        "grids": prepared.grids.astype(np.float32),
        "seeds": planes(prepared.seeds),
    }


def unit_planes(picture: np.ndarray) -> np.ndarray:
    """Pictures (..., H, W, 3) uint8 to (..., 3, H, W) float32 in [0, 1]."""
    return planes(picture.astype(np.float32) / 255)


def stacked(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """A batch of rows with the same names."""
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
