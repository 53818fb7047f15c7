"""Stage 1 at work: from a video with holes and speech to the landmarks of the face that is missing."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d

from talkface.errors import InvalidOption
from talkface.face.coefficients import GAZE, MOUTH_COEFFICIENTS, ROTATION, UPPER_COEFFICIENTS
from talkface.face.crop import cut
from talkface.face.model import FaceModel, Pose
from talkface.face.motion import FaceMotion
from talkface.systems.tccp.holes import Hole, hole_outline
from talkface.systems.tccp.landmarks import SEEN, LandmarkTransformer, view_matrix
from talkface.systems.tccp.masks import Holed
from talkface.systems.tccp.views import pose_in_frame

_STRETCH, _CONTEXT = 40, 12  # frames that stage 1 places together, and those at each end that it sees twice
_HELD = 0.05  # how much what the network says counts beside a side of the hole
_CALM = 1.0  # standard deviation in frames of the smoothing of a still video's pose
FORMAT = "talkface.Landmarks/1"


@dataclass(frozen=True)
class Landmarks:
    """Where the face is and what it does, frame by frame of the output.

    Attributes:
        times: (T,) seconds at which the frames begin.
        there: (T,) whether there is a face to draw.
        place: (T, 2) where the head's origin is, pixels.
        size: (T,) pixels per unit of the canonical face.
        motion: rotation, mouth, upper face and gaze, relative to a face that faces the camera and looks
            ahead; its translation and scale are not used.
    """

    times: np.ndarray
    there: np.ndarray
    place: np.ndarray
    size: np.ndarray
    motion: FaceMotion

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
        Path(path).write_text(json.dumps({"format": FORMAT, "fps": float(self.motion.fps), **rows}))

    @classmethod
    def from_json(cls, path: str | Path) -> "Landmarks":
        """Read what :meth:`to_json` wrote.

        Raises:
            InvalidOption: it is something else, or its lists do not belong together.
        """
        try:
            data = json.loads(Path(path).read_text())
            if data["format"] != FORMAT:
                raise ValueError(data["format"])
            rows = {name: np.array(data[name], np.float32) for name in _ROWS}
            count = len(data["times"])
            if any(rows[name].shape != (count, *width) for name, width in _ROWS.items()):
                raise ValueError("lengths")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidOption(
                f"{path} holds no landmarks ({str(error).splitlines()[0][:60]}); "
                "write some with --landmarks-out"
            ) from None
        motion = FaceMotion(
            rows["beta_mouth"], rows["beta_upper"], rows["rotation"], np.zeros((count, 2), np.float32),
            np.ones((count, 1), np.float32), rows["gaze"], float(data["fps"]),
        )  # fmt: skip
        return cls(
            np.array(data["times"]), np.array(data["there"], bool), rows["place"], rows["size"], motion
        )


_ROWS: dict[str, tuple[int, ...]] = {
    "place": (2,), "size": (), "rotation": (ROTATION,), "beta_mouth": (MOUTH_COEFFICIENTS,),
    "beta_upper": (UPPER_COEFFICIENTS,), "gaze": (GAZE,),
}  # fmt: skip


@dataclass(frozen=True)
class _Seen:
    """What stage 1 is shown of a frame."""

    time: float
    shot: int
    view: np.ndarray
    matrix: np.ndarray


class Placer:
    """Finds poses from what is seen around holes.

    Args:
        net: stage 1.
        alpha: (I,) identity coefficients of the 3DMM.
        device: where it runs.
        margin: by how much holes are larger than the face; 0 where nobody knows.
        blind: hide all of the context, to see what it is worth.
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
        self, holed: Iterable[Holed], heard: Iterator[np.ndarray]
    ) -> Iterator[tuple[float, Pose | None]]:
        """Times and poses of frames, in order; None where there is no hole.

        Args:
            holed: frames with their holes.
            heard: for each frame, content features (4, C) around it.
        """
        waiting: list[tuple[float, int, _Seen | None, np.ndarray]] = []
        done = 0
        for one, sound in zip(holed, heard, strict=False):
            seen = _look(one)
            if waiting and waiting[-1][1] != one.shot:
                yield from self._placed(waiting, done, len(waiting))
                waiting, done = [], 0
            waiting.append((one.frame.time, one.shot, seen, sound))
            if len(waiting) >= done + _STRETCH + _CONTEXT:
                yield from self._placed(waiting, done, done + _STRETCH)
                drop = done + _STRETCH - _CONTEXT
                waiting, done = waiting[drop:], _CONTEXT
        yield from self._placed(waiting, done, len(waiting))

    @torch.inference_mode()
    def _placed(
        self, waiting: list[tuple[float, int, _Seen | None, np.ndarray]], first: int, last: int
    ) -> Iterator[tuple[float, Pose | None]]:
        there = [k for k, (_, _, seen, _) in enumerate(waiting) if seen is not None]
        poses: dict[int, Pose] = {}
        if there:
            views = np.stack([waiting[k][2].view for k in there])  # type: ignore[union-attr]
            if self.blind:
                views[:, :3] = 0
            sound = np.stack([waiting[k][3] for k in there])
            given = [
                torch.from_numpy(part.astype(np.float32))[None].to(self.device) for part in (views, sound)
            ]
            told = self.net(*given, self.alpha, self.margin)[0].cpu().numpy()
            for k, pose in zip(there, told, strict=True):
                seen = waiting[k][2]
                assert seen is not None
                poses[k] = pose_in_frame(pose, seen.matrix)
        for k in range(first, last):
            yield waiting[k][0], poses.get(k)


def _look(one: Holed) -> _Seen | None:
    if one.hole is None:
        return None
    matrix = view_matrix(np.array(one.hole.box, np.float32))
    return _Seen(one.frame.time, one.shot, masked_view(one.frame.image, one.hole, matrix), matrix)


def masked_view(image: np.ndarray, hole: Hole, matrix: np.ndarray) -> np.ndarray:
    """What stage 1 sees of a frame (H, W, 3) uint8: (4, 64, 64) float32, zero where it is hidden."""
    seen = cut(image, matrix, SEEN).astype(np.float32) / 127.5 - 1
    mask = cut((hole.mask > 0).astype(np.float32), matrix, SEEN).clip(0, 1)
    return np.concatenate([(seen * (mask == 0)[..., None]).transpose(2, 0, 1), mask[None]])


@dataclass(frozen=True)
class Outlines:
    """Holes that follow a face, by whose outline it is known how large it is and where.

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
    """The same, moved and scaled so that a hole made for them would have the box that is there.

    Sides of the box that the frame's edge cuts off do not count; what is left open stays as it was.

    Args:
        landmarks: of each frame.
        holes: likewise.
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
    """Scale and place (3,) at which an outline (N, 2) fills what is seen of a box, near those ``before``."""
    own = np.concatenate([outline.min(0), outline.max(0)])
    wanted = np.array(box) - [0, 0, 1, 1]  # pixels are where their middles are
    seen = np.array([box[0] > 0, box[1] > 0, box[2] < frame[0], box[3] < frame[1]])
    sides = np.stack([own, [1, 0, 1, 0], [0, 1, 0, 1]], 1)[seen]
    held = _HELD * np.diag([own[2] - own[0], 1.0, 1.0])
    rows, values = np.concatenate([sides, held]), np.concatenate([wanted[seen], held @ before])
    return np.linalg.lstsq(rows, values, rcond=None)[0]


def calmed(landmarks: Landmarks, deviation: float = _CALM) -> Landmarks:
    """The same with the head's pose smoothed over time."""
    smooth = {
        name: gaussian_filter1d(getattr(landmarks, name), deviation, axis=0, mode="nearest")
        for name in ("place", "size")
    }
    rotation = gaussian_filter1d(landmarks.motion.rotation, deviation, axis=0, mode="nearest")
    return replace(landmarks, **smooth, motion=replace(landmarks.motion, rotation=rotation))
