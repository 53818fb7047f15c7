"""Runs stage 1 over a video: from its holes and speech to the landmarks of the missing face."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d

from talkface.errors import InvalidOption
from talkface.face.coefficients import GAZE, MOUTH_COEFFICIENTS, ROTATION, UPPER_COEFFICIENTS
from talkface.face.crop import cut
from talkface.face.model import FaceModel, Pose
from talkface.face.motion import FaceMotion
from talkface.systems.tccp.holes import Hole, hole_outline
from talkface.systems.tccp.landmarks import VIEW_PIXELS, LandmarkTransformer, view_matrix
from talkface.systems.tccp.masks import MaskedFrame
from talkface.systems.tccp.views import pose_in_frame

FORMAT = "talkface.Landmarks/1"
"""Of the JSON files that landmarks are written to."""
_STRETCH, _CONTEXT = 40, 12  # frames whose poses are found together, and more of them at each end
_PRIOR_WEIGHT = 0.05  # of the network's place and scale, beside the sides of the hole
_SMOOTHING = 1.0  # standard deviation in frames of the smoothing of poses


@dataclass(frozen=True)
class Landmarks:
    """Where the face is and what it does, frame by frame of the output.

    Attributes:
        times: (T,) seconds at which the frames begin.
        there: (T,) whether there is a face to draw.
        place: (T, 2) of the head's origin, pixels.
        size: (T,) pixels per unit of the canonical face.
        motion: rotation, mouth, upper face and gaze, with the reference ``"camera"``; its translation and
            scale are not used.

    Raises:
        ValueError: the motion's reference is not ``"camera"``.
    """

    times: np.ndarray
    there: np.ndarray
    place: np.ndarray
    size: np.ndarray
    motion: FaceMotion

    def __post_init__(self) -> None:
        self.motion.check_reference("camera")

    def __len__(self) -> int:
        return len(self.times)

    def meshes(self, face: FaceModel, neutral: np.ndarray, part: slice = slice(None)) -> np.ndarray:
        """Meshes (T, 478, 3) in pixels, of a person's canonical face (478, 3)."""
        motion = self.motion[part]
        place = np.concatenate([self.place[part], np.zeros((len(motion), 1))], 1)
        pose = Pose(
            motion.rotation_matrices().astype(np.float32),
            self.size[part].astype(np.float32),
            place.astype(np.float32),
        )
        return pose.apply(neutral + face.expression(motion))

    def to_json(self, path: str | Path) -> None:
        """Write them so that they can be edited: one list per quantity, one entry per frame."""
        rows = {
            "times": np.round(self.times, 5).tolist(),
            "there": self.there.astype(bool).tolist(),
            "place": np.round(self.place.astype(float), 3).tolist(),
            "size": np.round(self.size.astype(float), 4).tolist(),
        }
        for name in ("rotation", "beta_mouth", "beta_upper", "gaze"):
            rows[name] = np.round(getattr(self.motion, name).astype(float), 5).tolist()
        about = {"format": FORMAT, "fps": float(self.motion.fps), "reference": self.motion.reference}
        Path(path).write_text(json.dumps({**about, **rows}))

    @classmethod
    def from_json(cls, path: str | Path) -> "Landmarks":
        """Read what :meth:`to_json` wrote; a file that names no reference is relative to the camera.

        Raises:
            InvalidOption: it is something else, lacks a list, its lists do not belong together, or its motion
                is relative to a portrait.
        """
        try:
            return cls._of(json.loads(Path(path).read_text()))
        except KeyError as error:
            raise InvalidOption(f"{path} holds no landmarks: it has no {error}") from None
        except (OSError, ValueError, TypeError, OverflowError) as error:
            reason = " ".join(str(error).split())[:80] or type(error).__name__
            raise InvalidOption(
                f"{path} holds no landmarks ({reason}); write some with save_landmarks"
            ) from None

    @classmethod
    def _of(cls, data: dict[str, Any]) -> "Landmarks":
        """Landmarks of the content of a JSON file.

        Raises:
            KeyError, TypeError, ValueError, OverflowError: a list is missing, or of another type or shape.
        """
        if data["format"] != FORMAT:
            raise ValueError(f"its format is {data['format']}, not {FORMAT}")
        if data.get("reference", "camera") != "camera":
            raise ValueError(f"reference {data['reference']}")
        fps = float(data["fps"])
        if not (np.isfinite(fps) and fps > 0):
            raise ValueError(f"fps is {fps}")
        times = np.array(data["times"], np.float64)
        if times.ndim != 1 or not len(times):
            raise ValueError("times is no list of numbers")
        there = np.array(data["there"])
        if not np.isin(there, (0, 1)).all():
            raise ValueError("there holds other values than true and false")
        rows = {name: np.array(data[name], np.float32) for name in _ROWS}
        for name, values in (("there", there), *rows.items()):
            wanted = (len(times), *_ROWS.get(name, ()))
            if values.shape != wanted:
                raise ValueError(f"{name} has the shape {values.shape}, not {wanted}")
        if not (np.isfinite(times).all() and all(np.isfinite(values).all() for values in rows.values())):
            raise ValueError("some of its numbers are not finite")
        still = np.zeros((len(times), 2), np.float32), np.ones((len(times), 1), np.float32)
        betas = rows["beta_mouth"], rows["beta_upper"]
        motion = FaceMotion(*betas, rows["rotation"], *still, rows["gaze"], fps, "camera")
        return cls(times, there.astype(bool), rows["place"], rows["size"], motion)


# Shapes of one frame's entry in the JSON's lists of numbers.
_ROWS: dict[str, tuple[int, ...]] = {
    "place": (2,),
    "size": (),
    "rotation": (ROTATION,),
    "beta_mouth": (MOUTH_COEFFICIENTS,),
    "beta_upper": (UPPER_COEFFICIENTS,),
    "gaze": (GAZE,),
}


@dataclass(frozen=True)
class _Row:
    """A frame as stage 1 is given it.

    Attributes:
        time: at which it begins, seconds.
        shot: number of its shot.
        content: (4, C) content features around it.
        view: (4, 64, 64) its view; None where there is no hole.
        matrix: (2, 3) from the frame to the view.
    """

    time: float
    shot: int
    content: np.ndarray
    view: np.ndarray | None
    matrix: np.ndarray


class PoseEstimator:
    """Predicts poses from what is visible around holes.

    Args:
        net: stage 1.
        alpha: (I,) identity coefficients of the 3DMM.
        device: where it runs.
        margin: by how much holes are larger than the face; 0 where it is not known.
        blind: hide all of the context, for an ablation.
    """

    def __init__(
        self,
        net: LandmarkTransformer,
        alpha: np.ndarray,
        device: str | torch.device = "cpu",
        margin: float = 0.0,
        blind: bool = False,
    ) -> None:
        self.blind = blind
        self.device = torch.device(device)
        self.net = net.to(self.device).eval()
        self.alpha = torch.from_numpy(alpha)[None].to(self.device)
        self.margin = torch.tensor([margin], dtype=torch.float32, device=self.device)

    def __call__(
        self, frames: Iterable[MaskedFrame], content: Iterator[np.ndarray]
    ) -> Iterator[tuple[float, Pose | None]]:
        """Times and poses of frames, in order; None where there is no hole.

        Args:
            frames: those of the video, with their holes.
            content: for each frame, content features (4, C) around it.
        """
        waiting: list[_Row] = []
        done = 0
        for one, features in zip(frames, content, strict=False):
            if waiting and waiting[-1].shot != one.shot:
                yield from self._placed(waiting, done, len(waiting))
                waiting, done = [], 0
            waiting.append(_row(one, features))
            if len(waiting) >= done + _STRETCH + _CONTEXT:
                yield from self._placed(waiting, done, done + _STRETCH)
                drop = done + _STRETCH - _CONTEXT
                waiting, done = waiting[drop:], _CONTEXT
        yield from self._placed(waiting, done, len(waiting))

    @torch.inference_mode()
    def _placed(self, rows: list[_Row], first: int, last: int) -> Iterator[tuple[float, Pose | None]]:
        """Times and poses of rows ``first`` to ``last``, of which the network sees all."""
        there = [k for k, row in enumerate(rows) if row.view is not None]
        poses: dict[int, Pose] = {}
        if there:
            views = np.stack([view for row in rows if (view := row.view) is not None])
            if self.blind:
                views[:, :3] = 0
            content = np.stack([rows[k].content for k in there])
            given = [
                torch.from_numpy(part.astype(np.float32))[None].to(self.device) for part in (views, content)
            ]
            found = self.net(*given, self.alpha, self.margin)[0].cpu().numpy()
            poses = {k: pose_in_frame(pose, rows[k].matrix) for k, pose in zip(there, found, strict=True)}
        for k in range(first, last):
            yield rows[k].time, poses.get(k)


def _row(one: MaskedFrame, content: np.ndarray) -> _Row:
    if one.hole is None:
        return _Row(one.frame.time, one.shot, content, None, np.eye(2, 3))
    matrix = view_matrix(np.array(one.hole.box, np.float32))
    view = masked_view(one.frame.image, one.hole, matrix)
    return _Row(one.frame.time, one.shot, content, view, matrix)


def masked_view(image: np.ndarray, hole: Hole, matrix: np.ndarray) -> np.ndarray:
    """View of a frame (H, W, 3) uint8 for stage 1, (4, 64, 64) float32, of a hole with a mask."""
    seen = cut(image, matrix, VIEW_PIXELS).astype(np.float32) / 127.5 - 1
    mask = cut((hole.mask > 0).astype(np.float32), matrix, VIEW_PIXELS).clip(0, 1)
    return np.concatenate([(seen * (mask == 0)[..., None]).transpose(2, 0, 1), mask[None]])


@dataclass(frozen=True)
class Outlines:
    """Holes that follow a face, and so tell where it is and how large.

    Attributes:
        boxes: of each frame's hole, left, top, right, bottom in pixels, the last two exclusive; None where
            there is none.
        size: (W, H) of the frames.
        margin: by how much holes are larger than the face's oval.
    """

    boxes: Sequence[tuple[int, int, int, int] | None]
    size: tuple[int, int]
    margin: float


def fitted(landmarks: Landmarks, holes: Outlines, face: FaceModel, neutral: np.ndarray) -> Landmarks:
    """Landmarks, moved and scaled so that the face's own hole would have the box of the given one.

    Sides of the box at the frame's edge do not count; what the others leave open stays as it is.

    Args:
        landmarks: of each frame.
        holes: of each frame.
        face: the 3DMM.
        neutral: (478, 3) the person's canonical face.
    """
    place, size = landmarks.place.copy(), landmarks.size.copy()
    upright = replace(landmarks, place=np.zeros_like(place), size=np.ones_like(size))
    for k, box in enumerate(holes.boxes[: len(landmarks)]):
        if box is None or not landmarks.there[k]:
            continue
        outline = hole_outline(upright.meshes(face, neutral, slice(k, k + 1))[0], holes.margin)
        size[k], *place[k] = _in_box(outline, box, holes.size, np.array([size[k], *place[k]]))
    return replace(landmarks, place=place, size=size)


def _in_box(
    outline: np.ndarray, box: tuple[int, int, int, int], frame: tuple[int, int], before: np.ndarray
) -> np.ndarray:
    """Scale and place (3,) at which an outline (N, 2) fills a box, by least squares, near those ``before``.

    Sides of the box at the edge of a frame (W, H) do not count.
    """
    own = np.concatenate([outline.min(0), outline.max(0)])
    wanted = np.array(box) - [0, 0, 1, 1]  # coordinates are those of the pixels' centres
    seen = np.array([box[0] > 0, box[1] > 0, box[2] < frame[0], box[3] < frame[1]])
    sides = np.stack([own, [1, 0, 1, 0], [0, 1, 0, 1]], 1)[seen]
    held = _PRIOR_WEIGHT * np.diag([own[2] - own[0], 1.0, 1.0])
    rows, values = np.concatenate([sides, held]), np.concatenate([wanted[seen], held @ before])
    solution: np.ndarray = np.linalg.lstsq(rows, values, rcond=None)[0]
    return solution


def calmed(landmarks: Landmarks, deviation: float = _SMOOTHING) -> Landmarks:
    """Landmarks with the head's pose smoothed over time; ``deviation`` is in frames."""
    smooth = {
        name: gaussian_filter1d(getattr(landmarks, name), deviation, axis=0, mode="nearest")
        for name in ("place", "size")
    }
    rotation = gaussian_filter1d(landmarks.motion.rotation, deviation, axis=0, mode="nearest")
    return replace(landmarks, **smooth, motion=replace(landmarks.motion, rotation=rotation))
