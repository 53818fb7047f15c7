"""Figures of filled holes and of their landmarks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from talkface.evaluation.figures.hole import HoleFidelity
from talkface.evaluation.protocols.clips import Clip
from talkface.evaluation.protocols.fill import against_truth
from talkface.face.model import FaceModel
from talkface.face.tracker import FaceTracker
from talkface.systems.tccp.holes import face_hole
from talkface.systems.tccp.placing import Landmarks


def test_hole_figures_of_the_same_and_of_a_worse_picture(picture: Image.Image) -> None:
    real = np.asarray(picture)
    points = FaceTracker().track_image(real)[0].points
    same = HoleFidelity()
    same.add(real, real, points)
    assert same.figures() == {"hole_psnr": float("inf"), "border": 1.0, "outside_difference": 0.0}
    hole = face_hole(points, (real.shape[1], real.shape[0]), 0.25) > 0
    darker = real.copy()
    darker[hole] = darker[hole] // 2
    worse = HoleFidelity()
    worse.add(real, darker, points)
    found = worse.figures()
    assert found["hole_psnr"] < 20
    assert found["border"] > 1.5
    assert found["outside_difference"] == 0


def test_true_landmarks_have_no_error(talking: Path, talking_frames: list[np.ndarray]) -> None:
    face = FaceModel.from_pretrained()
    track = FaceTracker().track_video((k / 25, image) for k, image in enumerate(talking_frames[:20]))[0]
    fit = face.fit(track.points)
    motion, pose = fit.motion, fit.pose
    landmarks = Landmarks(
        track.times, np.ones(len(track.times), bool), pose.translation[:, :2], pose.scale,
        replace(motion, rotation=Rotation.from_matrix(pose.rotation).as_rotvec().astype(np.float32)),
    )  # fmt: skip
    found = against_truth(landmarks, Clip("own", "own", talking, track), face, fit.neutral)
    assert found["landmark_error"] < 0.03
    assert found["pose_error"] < 2.0
    turned = replace(landmarks, place=landmarks.place + 20)
    worse = against_truth(turned, Clip("own", "own", talking, track), face, fit.neutral)
    assert worse["landmark_error"] > 0.1
