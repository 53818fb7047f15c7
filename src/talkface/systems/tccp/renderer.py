"""Runs stage 2 over a video: from frames with holes and landmarks to frames with a face."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from talkface.diffusion.autoencoder import LATENT_FACTOR
from talkface.diffusion.base import Base
from talkface.diffusion.sampling import in_dtype, sample
from talkface.face.crop import cut, face_unit, transform
from talkface.face.draw import draw_mesh
from talkface.face.matting import PersonMatte
from talkface.face.model import FaceModel, estimate_pose
from talkface.face.motion import FaceMotion
from talkface.face.portrait import PORTRAIT_NOSE, PORTRAIT_PIXELS, PORTRAIT_SIDE
from talkface.media.decode import Frame
from talkface.nn.picture import enlarged, pictures
from talkface.rendering.portrait import PortraitRenderer
from talkface.rendering.refiner import Refiner
from talkface.systems.tccp.border import joined
from talkface.systems.tccp.config import WINDOW_FRAMES
from talkface.systems.tccp.crops import square_crop
from talkface.systems.tccp.detail import with_reference
from talkface.systems.tccp.estimate import initial_estimate
from talkface.systems.tccp.holes import Hole, cells, face_hole
from talkface.systems.tccp.identity import PortraitIdentity
from talkface.systems.tccp.model import MVControlNet, VideoSignal

_HOLE_ROOM = 1.12  # side of a crop relative to a hole that is larger than a portrait
_OVAL_MARGIN = 0.1  # of the region that shows the reference itself, beyond the face's oval
_OVAL_FADE = 0.3  # inter-ocular distances over which it fades, inwards
_MATTE_BLUR = 2.0  # standard deviation of the blur of a person's matte, pixels of a portrait
_MOST_DRIFT = 0.08  # of the crop's side by which a face may move before the crop follows it
_MOST_GROWTH = 0.15  # of the logarithm of the crop's scale, likewise


@dataclass(frozen=True)
class FaceJob:
    """A frame whose face is to be drawn.

    Attributes:
        frame: with the hole covered.
        hole: where.
        mesh: (478, 3) landmarks, pixels of the frame.
        lips: (words, M) mouth coefficients around it.
        motion: (1 frame) of the mesh.
        shot: number of its shot.
    """

    frame: Frame
    hole: Hole
    mesh: np.ndarray
    lips: np.ndarray
    motion: FaceMotion
    shot: int


@dataclass(frozen=True)
class Settings:
    """How frames are drawn.

    Attributes:
        steps: of the sampler.
        dtype: of the network's arithmetic.
        chained: give every window the last frame of the one before, and draw the first frame of a shot
            alone, as in the paper; errors of a frame then remain in all frames after it.
        without: parts to leave out, for ablations: "context", "over_time", "reference", "detail", "matte" or
            "stage2". Without "over_time", each frame is drawn by itself, from its own noise; without
            "detail", the face is as stage 2 draws it; without "matte", so is what is behind the head;
            without "stage2", the initial estimate is the result.
    """

    steps: int = 2
    dtype: torch.dtype = torch.float32
    chained: bool = False
    without: frozenset[str] = frozenset()


class FaceRenderer:
    """Draws faces into holes, a window at a time, all from the same noise.

    Args:
        base: the frozen LDM.
        net: stage 2.
        identity: whose face.
        face: the 3DMM.
        refiner: of TH-PAD's generator, which moves the portraits; None, and they are warped only.
        seed: of the shared noise.
        settings: how frames are drawn.
    """

    def __init__(
        self,
        base: Base,
        net: MVControlNet,
        identity: PortraitIdentity,
        face: FaceModel,
        refiner: Refiner | None,
        seed: int = 0,
        settings: Settings | None = None,
    ) -> None:
        self.base, self.net, self.identity = base, net, identity
        self.side = len(identity.images[0])  # of the crops in which holes are filled
        self.settings = settings or Settings()
        self.warp = face.mesh_warp()
        self.device = next(base.model.parameters()).device
        self.portraits = [
            PortraitRenderer(image, points, face, refiner, self.device, self.settings.dtype, whole=True)
            for image, points in zip(identity.images, identity.points, strict=True)
        ]
        side = base.pixels // LATENT_FACTOR
        self.generator = torch.Generator().manual_seed(seed)
        self.noise = torch.randn((1, 1, 4, side, side), generator=self.generator).to(self.device)
        self.matte = None if "matte" in self.settings.without else PersonMatte(self.device)

    def fill(self, jobs: Iterable[FaceJob | Frame], after: float = -math.inf) -> Iterator[Frame]:
        """Filled frames, in order; frames that are no jobs stay as they are.

        Windows whose frames all begin at ``after`` seconds or earlier are not drawn, unless later ones
        depend on them.
        """
        window: list[FaceJob] = []
        matrix: np.ndarray | None = None
        before: Frame | None = None
        shot = -1
        for job in jobs:
            if isinstance(job, Frame) or job.shot != shot:
                if window:
                    yield from self._drawn(window, matrix, before, after)
                window, matrix, before, shot = [], None, None, -1
            if isinstance(job, Frame):
                yield job
                continue
            shot = job.shot
            if not window:
                matrix = self._followed(job, matrix)
            window.append(job)
            if len(window) == self._length(before):
                frames = self._drawn(window, matrix, before, after)
                before = frames[-1] if self.settings.chained else None
                yield from frames
                window = []
                if "over_time" in self.settings.without:
                    self.noise = torch.randn(self.noise.shape, generator=self.generator).to(self.device)
        if window:
            yield from self._drawn(window, matrix, before, after)

    def _length(self, before: Frame | None) -> int:
        """Frames that are drawn together."""
        if "over_time" in self.settings.without:
            return 1
        if self.settings.chained:
            return 1 if before is None else WINDOW_FRAMES - 1
        return WINDOW_FRAMES

    @torch.inference_mode()
    def _seen_through(self, frame: Frame, matrix: np.ndarray) -> Tensor:
        """Latents (1, 1, 4, h, w) of a finished frame through a crop."""
        crop = enlarged(cut(frame.image, matrix, self.side), self.base.pixels)
        return self.base.autoencoder.encode(pictures([crop], self.device))[None]

    def _followed(self, job: FaceJob, matrix: np.ndarray | None) -> np.ndarray:
        """The crop of a window: the one before, unless face or hole leave it."""
        size = (job.frame.image.shape[1], job.frame.image.shape[0])
        wanted = hole_matrix(job.mesh, job.hole, size, self.side)
        if matrix is None:
            return wanted
        nose = transform(job.mesh[1:2], matrix)[0, :2] - transform(job.mesh[1:2], wanted)[0, :2]
        grown = abs(np.log(wanted[0, 0] / matrix[0, 0]))
        left = np.abs(nose).max() > _MOST_DRIFT * self.side or grown > _MOST_GROWTH
        return wanted if left else matrix

    @torch.inference_mode()
    def _drawn(
        self, window: list[FaceJob], matrix: np.ndarray | None, before: Frame | None, after: float
    ) -> list[Frame]:
        """Filled frames of a window; ``before`` is the finished frame before it, if it is to be known."""
        assert matrix is not None
        if window[-1].frame.time <= after and not self.settings.chained:
            return [job.frame for job in window]
        base, pixels = self.base, self.base.pixels
        crops = [cut(job.frame.image, matrix, self.side) for job in window]
        holes = [_cut_hole(job.hole, matrix, self.side) for job in window]
        meshes = [transform(job.mesh, matrix) for job in window]
        motions = [job.motion for job in window]
        estimates = [self._estimate(*row) for row in zip(crops, holes, meshes, motions, strict=True)]
        shown = pictures([enlarged(image, pixels) for image in (*crops, *estimates)], self.device)
        context, reference = base.autoencoder.encode(shown)[None].chunk(2, 1)
        hidden = self._stack([cells(hole, pixels // LATENT_FACTOR)[None] for hole in holes])
        drawing = self._stack([draw_mesh(self.warp, mesh, self.side, pixels // 2) for mesh in meshes])
        lips = self._stack([job.lips for job in window])
        latents = reference
        if "stage2" not in self.settings.without:
            last = None if before is None else self._seen_through(before, matrix)
            latents = self._sampled(context, reference, hidden, drawing, lips, last)
        decoded = (base.autoencoder.decode(latents[0]) * 255).permute(0, 2, 3, 1).float().cpu().numpy()
        images = [enlarged(image, self.side) for image in decoded]
        if not self.settings.without & {"detail", "reference"}:
            images = self._with_detail(images, estimates, meshes)
        people = self._people(images, meshes)
        return [_pasted(*row, matrix) for row in zip(window, images, people, strict=True)]

    def _sampled(
        self,
        context: Tensor,
        reference: Tensor,
        hidden: Tensor,
        drawing: Tensor,
        lips: Tensor,
        last: Tensor | None,
    ) -> Tensor:
        """Latents (1, T, 4, h, w) of a window.

        Args:
            context: (1, T, 4, h, w) latents of the crops.
            reference: (1, T, 4, h, w) latents of the initial estimates.
            hidden: (1, T, 1, h, w) share of each latent that is hidden.
            drawing: (1, T, 6, H/2, W/2) of the meshes.
            lips: (1, T, words, M) mouth coefficients.
            last: (1, 1, 4, h, w) latents of the finished frame before the window, if it is known.
        """
        settings = self.settings
        if last is not None:
            context, reference, hidden, drawing, lips = (
                torch.cat([part[:, :1], part], 1) for part in (context, reference, hidden, drawing, lips)
            )
        given = torch.zeros(context.shape[:2], device=self.device)
        known = torch.zeros_like(context)
        if last is not None:
            given[:, 0], known[:, 0] = 1, last[:, 0]
        shown = None if "reference" in settings.without else reference
        signal = VideoSignal.of(context, hidden, drawing, shown, known, given)
        if "context" in settings.without:
            signal = signal.without_context()
        tokens = self.net.condition_tokens(self.identity.latents, lips=lips)
        noise_level = 1.0 if shown is None else self.net.config.begin
        noisy = (1 - noise_level) * reference + noise_level * self.noise
        velocity = in_dtype(lambda x, time: self.net(x, time, tokens, signal), settings.dtype)
        latents = sample(velocity, noisy, settings.steps, noise_level)
        return latents[:, 1:] if last is not None else latents

    def _with_detail(
        self, images: list[np.ndarray], estimates: list[np.ndarray], meshes: list[np.ndarray]
    ) -> list[np.ndarray]:
        """Pictures (P, P, 3) float32 with the estimates' faces, whose detail latents cannot hold."""
        return [
            with_reference(image, fine, self._oval(mesh))
            for image, fine, mesh in zip(images, estimates, meshes, strict=True)
        ]

    def _people(self, images: list[np.ndarray], meshes: list[np.ndarray]) -> list[np.ndarray | None]:
        """Where pictures (P, P, 3) show a person, (P, P) in [0, 1] each: at least the face."""
        if self.matte is None:
            return [None] * len(images)
        soft = _MATTE_BLUR * self.side / PORTRAIT_PIXELS
        return [
            np.maximum(cv2.GaussianBlur(matte, (0, 0), soft), self._oval(mesh))
            for matte, mesh in zip(self.matte(images), meshes, strict=True)
        ]

    def _oval(self, mesh: np.ndarray) -> np.ndarray:
        """Mask (P, P) in [0, 1] of the face of a crop's mesh (478, 3)."""
        return face_hole(mesh, (self.side, self.side), _OVAL_MARGIN, _OVAL_FADE)

    def _estimate(
        self, crop: np.ndarray, hole: np.ndarray, mesh: np.ndarray, motion: FaceMotion
    ) -> np.ndarray:
        """The initial estimate of a crop, with the portrait whose pose is nearest to that of its mesh."""
        rotation = estimate_pose(mesh[None], self.identity.neutral).rotation[0]
        best = self.portraits[self.identity.nearest(rotation)]
        return initial_estimate(crop, hole, best.at(mesh[None], motion)[0], mesh)

    def _stack(self, rows: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(rows).astype(np.float32))[None].to(self.device)


def hole_matrix(mesh: np.ndarray, hole: Hole, size: tuple[int, int], pixels: int) -> np.ndarray:
    """Affine map (2, 3) from a frame to the crop in which a hole is filled: a portrait's, or larger.

    Args:
        mesh: (478, 3) in pixels of the frame.
        hole: of the frame.
        size: (W, H) of the frame.
        pixels: sides of the crop.
    """
    left, top, right, bottom = hole.box
    side = max(PORTRAIT_SIDE * face_unit(mesh), _HOLE_ROOM * (right - left), _HOLE_ROOM * (bottom - top))
    corner = mesh[1, :2] - side * np.array(PORTRAIT_NOSE)
    corner = np.clip(corner, np.array([right, bottom]) - side, np.array([left, top]))
    if side <= min(size):
        corner = np.clip(corner, 0, np.array(size) - side)
    return square_crop(corner, side, pixels)


def _cut_hole(hole: Hole, matrix: np.ndarray, side: int) -> np.ndarray:
    return cv2.warpAffine(hole.mask, matrix, (side, side), flags=cv2.INTER_LINEAR)


def _pasted(job: FaceJob, image: np.ndarray, person: np.ndarray | None, matrix: np.ndarray) -> Frame:
    """The frame with what was drawn in its hole; everything else is as it was."""
    left, top, right, bottom = job.hole.box
    room = max(4, (right - left) // 8)
    height, width = job.frame.image.shape[:2]
    rows = slice(max(0, top - room), min(height, bottom + room))
    columns = slice(max(0, left - room), min(width, right + room))
    shifted = matrix.copy()
    shifted[:, 2] += shifted[:, :2] @ [columns.start, rows.start]
    size = (columns.stop - columns.start, rows.stop - rows.start)

    def seen(picture: np.ndarray, how: int) -> np.ndarray:
        way = how | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(picture, shifted, size, flags=way, borderMode=cv2.BORDER_REPLICATE)

    scene, hole = job.frame.image[rows, columns], job.hole.mask[rows, columns]
    matte = None if person is None else seen(person, cv2.INTER_LINEAR)
    filled = joined(scene.astype(np.float32), seen(image, cv2.INTER_CUBIC), hole, matte)
    out = job.frame.image.copy()
    out[rows, columns] = np.where(hole[..., None] > 0, filled.clip(0, 255).round(), scene).astype(np.uint8)
    return replace(job.frame, image=out)
