"""Meshes and portraits that tests share, made from the shipped face model."""

from dataclasses import replace

import numpy as np

from talkface.face.model import FaceModel
from talkface.face.motion import FaceMotion
from talkface.rendering.portrait import PortraitRenderer
from talkface.rendering.refiner import Refiner


def turned_faces(face: FaceModel, beta_mouth: np.ndarray, turn: float = 0.0) -> np.ndarray:
    """Faces (T, 478, 3) in pixels with these mouths (T, M), turned by radians."""
    cosine, sine = np.cos(turn), np.sin(turn)
    rotation = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
    shapes = face.mean + np.tensordot(beta_mouth, face.mouth, 1)
    return (60 * shapes @ rotation.T + [128, 128, 0]).astype(np.float32)


def checkered_portrait(face: FaceModel, times: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A picture of 256 ``times`` pixels and a mesh of 60 ``times`` between the eyes."""
    squares = np.random.default_rng(0).integers(60, 200, (32, 32, 3))
    image = np.kron(squares, np.ones((8 * times, 8 * times, 1))).astype(np.uint8)
    return image, (times * (60 * face.mean + [128, 110, 0])).astype(np.float32)


def draw_speaking(face: FaceModel, refiner: Refiner | None, times: int = 1) -> np.ndarray:
    """A frame (256 times, 256 times, 3) of a portrait that opens its mouth."""
    image, points = checkered_portrait(face, times)
    own = face.fit(points[None]).motion
    lips = np.zeros_like(own.beta_mouth)
    lips[0, 0] = 3.0
    still = {"rotation": np.zeros((1, 3), np.float32), "gaze": np.zeros((1, 4), np.float32)}
    motion: FaceMotion = replace(own, beta_mouth=lips, **still, reference="portrait")
    return next(PortraitRenderer(image, points, face, refiner).frames([motion])).astype(float)
