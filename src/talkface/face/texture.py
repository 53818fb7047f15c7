"""The linear texture of faces: what skin, eyes and mouth look like, apart from their shape.

A face whose picture is drawn onto the mean mesh has eyes and lips where every other one has them, so that a
handful of principal components say what faces look like (Cootes et al., "Active appearance models", 1998;
the texture of a 3DMM, Blanz and Vetter, 1999). What is no face is no combination of them: the most plausible
face is drawn in place of a bad drawing.
"""

from functools import cached_property

import cv2
import numpy as np
import torch

from talkface.face import topology as tp
from talkface.face.crop import face_unit
from talkface.face.model import FaceModel
from talkface.face.portrait import PORTRAIT_NOSE, PORTRAIT_SIDE
from talkface.face.warp import MeshWarp, with_ring
from talkface.hub import load_pretrained

_SKIN, _PARTS = 12.0, 60.0  # standard errors of a drawing in levels: of its skin, and of eyes and mouth
_INDEPENDENT = 0.1  # share of the pixels that count: errors of neighbours are correlated
_SHOWN = {"face": 0.7, "parts": 1.0}  # opacity of the plausible face
_GROWN, _SOFT = 0.055, 0.02  # of the side: room around eyes and lips, and how softly they end


class FaceTexture:
    """Principal components of shape-free pictures of faces.

    Args:
        mean: (S, S, 3) levels, 0 to 255.
        basis: (K, S, S, 3), scaled so that coefficients have unit variance.
        face: the 3DMM on whose mean mesh the pictures are.
    """

    def __init__(self, mean: np.ndarray, basis: np.ndarray, face: FaceModel) -> None:
        self.mean, self.basis, self.side = mean, basis, len(mean)
        self.mesh = reference_mesh(face, self.side)
        self.warp = face.mesh_warp()

    @classmethod
    def from_pretrained(cls, name_or_path: str = "face-texture", face_model: str = "face") -> "FaceTexture":
        """Load the shipped model, or one from a directory or hub id, over its 3DMM.

        Raises:
            ModelUnavailable: nothing of that name can be found, or it is damaged.
        """
        _, state = load_pretrained(name_or_path)
        face = FaceModel.from_pretrained(face_model)
        inside = state["inside"].numpy() > 0
        basis = np.zeros((len(state["basis"]), *inside.shape, 3), np.float32)
        basis[:, inside] = state["basis"].float().numpy()
        return cls(state["mean"].float().numpy(), basis, face)

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors to save: the basis only where it is not zero."""
        inside = inner_face(self.mesh, self.side)
        return {
            "mean": torch.from_numpy(self.mean),
            "basis": torch.from_numpy(self.basis[:, inside]),
            "inside": torch.from_numpy(inside.astype(np.uint8)),
        }

    def unwrapped(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
        """The shape-free picture (S, S, 3) float32 of a picture (H, W, 3) with mesh (478, 3)."""
        return drawn_on(self.warp, image, points, self.mesh, self.side, self._triangle)

    def fit(self, texture: np.ndarray, trusted: bool = False) -> np.ndarray:
        """Coefficients (K,) of a shape-free picture (S, S, 3): the most probable ones.

        Args:
            texture: 0 to 255.
            trusted: whether eyes and mouth count as the skin does; else little, and the skin tells them.
        """
        estimator = self._trusting if trusted else self._doubting
        coefficients: np.ndarray = estimator @ (texture - self.mean)[self.inside > 0].ravel()
        return coefficients

    def picture(self, coefficients: np.ndarray) -> np.ndarray:
        """The shape-free picture (S, S, 3) float32 of coefficients (K,)."""
        return self.mean + np.tensordot(coefficients.astype(np.float32), self.basis, 1)

    def plausible(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
        """A picture (H, W, 3) uint8 whose inner face is a plausible one.

        Args:
            image: a drawing.
            points: (478, 3) the mesh on which its face is, or should be; pixels.

        Returns:
            (H, W, 3) uint8; eyes and mouth are the model's, skin partly, and all else is as it was.
        """
        height, width = image.shape[:2]
        likely = self.picture(self.fit(self.unwrapped(image, points)))
        both = np.concatenate([likely, self.shown[..., None]], 2).astype(np.float32)
        moved = drawn_on(self.warp, both, self.mesh, points, (width, height))
        share = moved[..., 3:]
        mixed: np.ndarray = (image + share * (moved[..., :3] - image)).round().clip(0, 255).astype(np.uint8)
        return mixed

    def strangeness(self, image: np.ndarray, points: np.ndarray) -> float:
        """Error of the model on a picture's inner face, over its contrast: about .1 to .4.

        Args:
            image: (H, W, 3) uint8.
            points: (478, 3) its mesh in pixels.
        """
        inside, texture = self.inside > 0, self.unwrapped(image, points)
        lacking = np.abs(texture - self.picture(self.fit(texture)))[inside].mean()
        return float(lacking / (texture[inside].std() + 1))

    def balanced(self, image: np.ndarray, points: np.ndarray, share: float = 0.5) -> np.ndarray:
        """A picture (H, W, 3) uint8 in less coloured light: the face's colour is nearer to the mean's.

        Args:
            image: a picture of a face.
            points: (478, 3) its mesh in pixels.
            share: of the cast that is taken off; 0 leaves the picture as it is.
        """
        inside = self.inside > 0
        own, mean = (each[inside].mean(0) + 1 for each in (self.unwrapped(image, points), self.mean))
        gain = (mean / own) ** share
        gain *= own.mean() / (own * gain).mean()  # as light as it was
        table = np.linspace(0, 255, 256)[:, None] * gain
        return cv2.LUT(image, table.round().clip(0, 255).astype(np.uint8)[None])

    @cached_property
    def _triangle(self) -> np.ndarray:
        return self.warp.rasterise(with_ring(self.mesh), (self.side, self.side), 1.0, (0.0, 0.0))

    @cached_property
    def _doubting(self) -> np.ndarray:
        return self._estimator(np.where(self.parts > 0.5, _PARTS, _SKIN))

    @cached_property
    def _trusting(self) -> np.ndarray:
        return self._estimator(np.full(self.parts.shape, _SKIN))

    def _estimator(self, error: np.ndarray) -> np.ndarray:
        """Matrix (K, 3P) from what differs from the mean to coefficients, for errors (S, S) in levels."""
        inside = self.inside > 0
        flat = self.basis[:, inside].reshape(len(self.basis), -1)
        weighted = flat * np.repeat(_INDEPENDENT / np.square(error[inside]), 3).astype(np.float32)
        return np.linalg.solve(weighted @ flat.T + np.eye(len(flat), dtype=np.float32), weighted)

    @cached_property
    def inside(self) -> np.ndarray:
        """(S, S) float32, 1 in the inner face, which the model describes."""
        return inner_face(self.mesh, self.side).astype(np.float32)

    @cached_property
    def parts(self) -> np.ndarray:
        """(S, S) float32, 1 for eyes and mouth."""
        grown = 2 * round(_GROWN * self.side / 2) + 1
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (grown, grown))
        each = [
            cv2.dilate(_hull(self.mesh[part], self.side), disc)
            for part in (tp.RIGHT_EYE, tp.LEFT_EYE, tp.LIPS_OUTER)
        ]
        mask: np.ndarray = np.maximum.reduce(each).astype(np.float32)
        return mask

    @cached_property
    def shown(self) -> np.ndarray:
        """(S, S) float32, opacity of a plausible face."""
        edge = 2 * round(4 * _SOFT * self.side / 2) + 1
        skin = cv2.erode(self.inside, np.ones((edge, edge)), borderValue=0)
        soft = [cv2.GaussianBlur(mask, (0, 0), _SOFT * self.side) for mask in (skin, self.parts)]
        shown: np.ndarray = self.inside * np.maximum(_SHOWN["face"] * soft[0], _SHOWN["parts"] * soft[1])
        return shown


def reference_mesh(face: FaceModel, side: int) -> np.ndarray:
    """The mean neutral face (478, 3) in pixels of a shape-free picture."""
    points = face.mean * (side / (PORTRAIT_SIDE * face_unit(face.mean)))
    place = np.array([(side - 1) / 2, PORTRAIT_NOSE[1] * side - points[tp.NOSE_TIP, 1], 0.0])
    mesh: np.ndarray = (points + place).astype(np.float32)
    return mesh


def inner_face(mesh: np.ndarray, side: int) -> np.ndarray:
    """Mask (S, S) of what lies in the oval of a face (478, 3), the same from left to right."""
    mask = _hull(mesh[tp.FACE_OVAL], side) > 0
    return mask & mask[:, ::-1]


def drawn_on(
    warp: MeshWarp,
    image: np.ndarray,
    source: np.ndarray,
    target: np.ndarray,
    size: int | tuple[int, int],
    triangle: np.ndarray | None = None,
) -> np.ndarray:
    """A picture (H, W, C) with mesh ``source`` drawn on ``target``, (h, w, C) float32; zero beside the face.

    ``size`` is (w, h) in pixels, or the side of a square; ``triangle`` as :meth:`MeshWarp.field` takes it.
    """
    width, height = (size, size) if isinstance(size, int) else size
    field = warp.field(with_ring(source), with_ring(target), (width, height), triangle=triangle)
    drawn = cv2.remap(
        image.astype(np.float32), field.grid[..., 0], field.grid[..., 1], cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    on_face = np.append(warp.is_face, 0).astype(np.float32)[field.triangle]
    on_target: np.ndarray = drawn * on_face[..., None]
    return on_target


def _hull(points: np.ndarray, side: int) -> np.ndarray:
    hull = cv2.convexHull(np.round(points[:, :2] * 16).astype(np.int32))
    return cv2.fillConvexPoly(np.zeros((side, side), np.uint8), hull, 1, cv2.LINE_8, 4)
