"""Samples for G4G's training: what the generator sees and should draw, cut out of talking clips."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from talkface.face.crop import cut, transform
from talkface.face.model import FaceModel, estimate_pose
from talkface.face.warp import move_ring, with_ring
from talkface.performance.config import SPEECH_WINDOW
from talkface.systems.g4g.drawing import FrameInputs, Reference, mouth_matrix
from talkface.systems.g4g.geometry import mesh_code, mouth_shape
from talkface.systems.g4g.references import features, spread
from talkface.training.datasets.talking import TalkingClip


class MouthMaker:
    """Cuts what the generator sees and should draw out of talking clips.

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
        """Mouth crop (P, P, 3) and its mesh with ring; through the mouth shape of ``other`` and back."""
        points = clip.crops.points[frame]
        matrix = mouth_matrix(points, self.pixels)
        crop = cut(clip.crops.image(frame), matrix, self.pixels)
        goal = transform(with_ring(points), matrix)
        if other is None:
            return crop, goal
        pose = estimate_pose(points[None], clip.crops.fit.neutral)
        change = (clip.beta_mouth[other] - clip.beta_mouth[frame]) @ self.face.mouth.reshape(
            len(self.face.mouth), -1
        )
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
        around = np.clip(
            2 * frame + np.arange(-SPEECH_WINDOW + 1, SPEECH_WINDOW + 1), 0, len(clip.level[variant]) - 1
        )
        return clip.content[variant][around].astype(np.float32), clip.level[variant][around].astype(
            np.float32
        )

    def mesh(self, clip: TalkingClip, frame: int) -> np.ndarray:
        """Mesh code (mesh,)."""
        return mesh_code(clip.beta_mouth[frame], clip.crops.fit.motion.rotation[frame])

    def bank(self, clip: TalkingClip, away: range, generator: np.random.Generator, size: int) -> np.ndarray:
        """Frames (K,) that may serve as references of the frames ``away``."""
        every = np.arange(len(clip))
        free = every[(every < away.start - 4) | (every >= away.stop + 4)]
        free = free if len(free) > 2 else every
        some = np.sort(generator.permutation(free)[: 6 * size])
        return some[spread(self.describe(clip)[some], size)]


def planes(picture: np.ndarray) -> np.ndarray:
    """(..., H, W, 3) to (..., 3, H, W)."""
    return np.ascontiguousarray(np.moveaxis(picture, -1, -3))


def inputs(prepared: FrameInputs) -> dict[str, np.ndarray]:
    """What is prepared for one frame, as rows of a batch of the model's ``GeneratorInputs``."""
    return {
        "context": planes(prepared.context),
        "hidden": prepared.hidden[None],
        "maps": prepared.maps,
        "grids": prepared.grids.astype(np.float32),
        "seeds": planes(prepared.seeds),
    }


def stack(rows: list[dict[str, np.ndarray]], device: torch.device) -> dict[str, Tensor]:
    """A batch."""
    return {name: torch.from_numpy(np.stack([row[name] for row in rows])).to(device) for name in rows[0]}


@dataclass(frozen=True)
class Look:
    """Colour, light and mirror, alike on all pictures of a stretch."""

    gain: np.ndarray
    lift: float
    grey: bool
    mirror: bool

    @classmethod
    def draw(cls, generator: np.random.Generator) -> "Look":
        """At random."""
        gain = generator.uniform(0.75, 1.25) * generator.uniform(0.85, 1.15, 3)[:, None, None]
        lift = float(generator.uniform(-0.08, 0.08))
        return cls(gain, lift, bool(generator.random() < 0.1), bool(generator.random() < 0.5))

    def __call__(self, row: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One frame's inputs and target in this look."""
        row = dict(row)
        for name in {"references", "seeds", "around", "target"} & row.keys():
            row[name] = self._colour(row[name])
        row["context"] = np.where(row["hidden"] < 1, self._colour(row["context"]), row["context"])
        if self.mirror:
            for name in {"context", "hidden", "maps", "references", "seeds", "around", "target"} & row.keys():
                row[name] = np.ascontiguousarray(row[name][..., ::-1])
            row["maps"][0] *= -1
            row["mesh"] = row["mesh"].copy()
            row["mesh"][-2:] *= -1  # yaw and roll change sign
            if "grids" in row:
                row["grids"] = np.ascontiguousarray(row["grids"][:, :, ::-1] * np.array([-1, 1], np.float32))
        return row

    def _colour(self, picture: np.ndarray) -> np.ndarray:
        if self.grey:
            picture = np.repeat(picture.mean(-3, keepdims=True), 3, -3)
        return np.clip(picture * self.gain + self.lift, 0, 1).astype(np.float32)
