"""What covers a mouth: hands, microphones, cups, captions. There the original pixels are kept.

A small network compares the mouth of a frame with the same person's mouth in another frame, warped to the
same mesh. :class:`OcclusionFinder` goes through a video of one person and makes masks that do not flicker.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkface.face import topology as tp
from talkface.face.crop import MOUTH_REGION, cut, region_matrix, transform
from talkface.face.draw import MAP_CHANNELS, mesh_maps
from talkface.face.masks import around_lips, lower_face_outline
from talkface.face.warp import MeshWarp, with_ring
from talkface.hub import build_pretrained
from talkface.nn.blocks import PixelShuffle, ResidualBlock
from talkface.nn.threads import shared_cores

MASK_PIXELS = 64
"""Side M of the crops that the network sees and of its masks."""
_GAIN = (0.5, 2.0)  # of a reference's light
# A pixel is covered above the first probability; above the second where it was covered in the last frame.
_ENTERS, _STAYS = 0.5, 0.35
_PEAK = 0.9  # probability that something new must reach somewhere
_SURE = 0.9  # mean probability at which something new is believed at once; else it must be seen twice
_FLOATING = 0.8  # mean probability of a thing that does not come in from the crop's border: most things do
_SMALLEST = 0.008  # share of the crop that a thing covers of the face, and of what is not mouth
_BEYOND = 0.4  # share of a thing that lies beyond the lips: teeth and tongues do not
_LIP_ROOM = 1.7  # pixels of the crop around the lips that count as mouth
_LINGERS = 0.6  # what is left of a mask one frame after nothing is seen any more
_SOFT = 1.0  # standard deviation of the mask's edge, pixels of the crop


class Seen(Protocol):
    """A frame in which a mouth was seen: crop (P, P, 3) uint8, its mesh with ring (WARP_VERTICES, 3)."""

    @property
    def crop(self) -> np.ndarray:
        """(P, P, 3) uint8."""

    @property
    def points(self) -> np.ndarray:
        """(WARP_VERTICES, 3)."""


@dataclass(frozen=True)
class MouthView:
    """A mouth at the network's resolution: crop (M, M, 3) uint8, mesh with ring (WARP_VERTICES, 3)."""

    crop: np.ndarray
    points: np.ndarray

    @classmethod
    def of(cls, image: np.ndarray, points: np.ndarray) -> "MouthView":
        """Cut the mouth of a face (478, 3), pixels, out of a picture (H, W, 3) uint8."""
        matrix = crop_matrix(points)
        return cls(cut(image, matrix, MASK_PIXELS), transform(with_ring(points), matrix))

    @classmethod
    def small(cls, seen: Seen) -> "MouthView":
        """The same mouth at the network's resolution."""
        scale = MASK_PIXELS / seen.crop.shape[0]
        points = (seen.points * scale).astype(np.float32)
        points[:, :2] += (scale - 1) / 2
        return cls(cv2.resize(seen.crop, (MASK_PIXELS, MASK_PIXELS), interpolation=cv2.INTER_AREA), points)


def crop_matrix(points: np.ndarray) -> np.ndarray:
    """Affine map (2, 3) from picture to mask pixels for a face (478, 3)."""
    scale = MASK_PIXELS / MOUTH_REGION.pixels
    matrix = region_matrix(points, MOUTH_REGION) * scale
    matrix[:, 2] += (scale - 1) / 2
    return matrix


def compare(warp: MeshWarp, view: MouthView, reference: MouthView) -> tuple[np.ndarray, np.ndarray]:
    """The reference warped to the frame's mesh, and maps of that warp.

    Returns:
        seed (M, M, 3) uint8, and maps (MAP_CHANNELS, M, M) float32.
    """
    field = warp.field(reference.points, view.points, (MASK_PIXELS, MASK_PIXELS))
    x, y = field.dense(MASK_PIXELS, MASK_PIXELS)
    seed = cv2.remap(reference.crop, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return seed, mesh_maps(warp, field, reference.points, view.points)


def network_input(crop: np.ndarray, seed: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """The network's input, (9 + MAP_CHANNELS, M, M) float32.

    The seed is scaled to the frame's brightness by the median over the face, which a hand moves less than the
    mean.

    Args:
        crop: (M, M, 3) uint8, the frame.
        seed: (M, M, 3) uint8, the reference warped to its mesh.
        maps: (MAP_CHANNELS, M, M).
    """
    here, there = crop.astype(np.float32), seed.astype(np.float32)
    face = maps[6] > 0.5
    if face.sum() > 50:
        ratio = np.median((here[face] + 8) / (there[face] + 8), 0)
        there = np.minimum(there * np.clip(ratio, *_GAIN), 255)
    pictures = np.concatenate([here, there, np.abs(here - there)], 2).transpose(2, 0, 1) / 255
    return np.concatenate([pictures, maps]).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class OcclusionConfig:
    """Architecture: channels at 1/2, 1/4 and 1/8 of the crop's side, and residual blocks at each."""

    widths: tuple[int, int, int] = (32, 48, 64)
    blocks: tuple[int, int, int] = (1, 1, 2)


def _stage(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width) for _ in range(count)))


class OcclusionNet(nn.Module):
    """A U-Net that says which pixels of a mouth crop something else covers.

    It works at half of the crop's resolution: two by two pixels are folded into channels and out again.
    """

    def __init__(self, config: OcclusionConfig | None = None) -> None:
        super().__init__()
        self.config = config or OcclusionConfig()
        (a, b, c), (m, n, o) = self.config.widths, self.config.blocks
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(2), nn.Conv2d(4 * (9 + MAP_CHANNELS), a, 3, padding=1), _stage(a, m)
        )
        self.down = nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), _stage(b, n))
        self.bottom = nn.Sequential(nn.Conv2d(b, c, 3, 2, 1), _stage(c, o), nn.Conv2d(c, b, 1))
        self.middle = nn.Sequential(_stage(b, n), nn.Conv2d(b, a, 1))
        self.head = nn.Sequential(_stage(a, m), nn.SiLU(), nn.Conv2d(a, 4, 3, padding=1), PixelShuffle(2))
        nn.init.constant_(self.head[2].get_parameter("bias"), -2.0)  # most pixels are not covered

    @classmethod
    def debug(cls) -> "OcclusionNet":
        """A tiny random network for tests."""
        return cls(OcclusionConfig(widths=(4, 4, 4), blocks=(1, 1, 1))).eval()

    @classmethod
    def from_pretrained(cls, name_or_path: str = "occlusion") -> "OcclusionNet":
        """Load the shipped network, or one from a directory or hub id."""
        return build_pretrained(cls, OcclusionConfig, name_or_path)

    def config_dict(self) -> dict[str, Any]:
        """What ``config.json`` holds."""
        return {"class": "OcclusionNet", "model": asdict(self.config)}

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 1, H, W) of being covered, of inputs (B, 9 + MAP_CHANNELS, H, W); sides divide by 8."""
        fine = self.stem(x)
        middle = self.down(fine)
        middle = self.middle(middle + _double(self.bottom(middle)))
        logits: Tensor = self.head(fine + _double(middle))
        return logits


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear")


class OcclusionFinder:
    """Finds what covers one person's mouth in a video, frame after frame.

    Args:
        net: the network.
        warp: of the face model.
        references: other frames of the same person, best with nothing in front (see :func:`uncovered`).
        device: where the network runs.
    """

    def __init__(
        self,
        net: OcclusionNet,
        warp: MeshWarp,
        references: Sequence[Seen],
        device: str | torch.device = "cpu",
    ) -> None:
        self.warp, self.device = warp, torch.device(device)
        self.net = net.to(self.device).eval()
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a fifth faster
        self.references = [MouthView.small(reference) for reference in references]
        self._every = list(range(len(self.references)))
        self._shapes = np.stack([_shape(reference) for reference in self.references])
        self.forget()

    def forget(self) -> None:
        """Begin anew: after a cut, or when the person was away."""
        # The last mask, hard where it was seen.
        self._before = np.zeros((MASK_PIXELS, MASK_PIXELS), np.float32)
        self._suspected = np.zeros((MASK_PIXELS, MASK_PIXELS), bool)

    def probability(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
        """What the network says about one frame alone, (M, M) float32 in [0, 1]."""
        return self._compare(MouthView.of(image, points), self._every)

    def _compare(self, view: MouthView, among: list[int]) -> np.ndarray:
        apart = np.square(self._shapes[among] - _shape(view)).sum(1)
        reference = self.references[among[int(apart.argmin())]]
        given = network_input(view.crop, *compare(self.warp, view, reference))
        with torch.inference_mode(), shared_cores():
            x = torch.from_numpy(given)[None].to(self.device, memory_format=torch.channels_last)
            logits = self.net(x)
        return torch.sigmoid(logits)[0, 0].float().cpu().numpy()

    def __call__(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
        """What covers the mouth in the next frame.

        Args:
            image: (H, W, 3) uint8, the original frame.
            points: (478, 3) its face, pixels.

        Returns:
            Soft mask (M, M) float32 in [0, 1] in the pixels of :func:`crop_matrix`; 1 is covered.
            All 0 where nothing is in front.
        """
        view = MouthView.of(image, points)
        return self.steady(self._compare(view, self._every), view.points)

    def steady(self, probability: np.ndarray, points: np.ndarray) -> np.ndarray:
        """The next frame's mask: hysteresis in space and time.

        Args:
            probability: (M, M) of being covered.
            points: (V, 3) the mesh in the crop's pixels.
        """
        covered, suspected = np.zeros_like(self._suspected), np.zeros_like(self._suspected)
        for thing in _things(probability, np.where(self._before > 0.5, _STAYS, _ENTERS), points):
            known = (self._before[thing] > 0.5).any()
            if not known and probability[thing].max() < _PEAK:
                continue
            if known or self._suspected[thing].any() or probability[thing].mean() > _SURE:
                covered |= thing
            else:
                suspected |= thing
        lingering = np.where(self._before * _LINGERS > 0.1, self._before * _LINGERS, 0)
        self._before = np.maximum(covered.astype(np.float32), lingering).astype(np.float32)
        self._suspected = suspected
        if not self._before.any():
            return self._before
        # A pixel wider: a finger's edge that is drawn over shows more than a lip's edge that is kept.
        grown = cv2.dilate(self._before, np.ones((3, 3), np.uint8))
        return cv2.GaussianBlur(grown, (0, 0), _SOFT)


def _things(probability: np.ndarray, wanted: np.ndarray, points: np.ndarray) -> Iterator[np.ndarray]:
    """Connected pixels (M, M) bool above what is ``wanted`` that may lie in front of the face."""
    count, label = cv2.connectedComponents((probability > wanted).astype(np.uint8))
    if count == 1:
        return
    mouth = around_lips(points, (MASK_PIXELS, MASK_PIXELS), _LIP_ROOM) > 0.5
    face = np.zeros((MASK_PIXELS, MASK_PIXELS), np.uint8)
    cv2.fillConvexPoly(face, cv2.convexHull(np.round(points[tp.FACE_OVAL, :2]).astype(np.int32)), 1)
    for index in range(1, count):
        thing = label == index
        size, beyond = thing.sum(), (thing & ~mouth).sum()
        if min((thing & (face > 0)).sum(), beyond) < _SMALLEST * thing.size or beyond < _BEYOND * size:
            continue
        border = thing[[0, -1]].any() or thing[:, [0, -1]].any()
        if border or probability[thing].mean() > _FLOATING:
            yield thing


def _shape(view: MouthView) -> np.ndarray:
    """Lips and jaw as numbers (F,) by which references are chosen."""
    return view.points[np.concatenate([tp.LIPS_OUTER, tp.LIPS_INNER, tp.FACE_OVAL]), :2].ravel()


def uncovered(net: OcclusionNet, warp: MeshWarp, references: Sequence[Seen], most: float = 0.02) -> list[int]:
    """Which references of one person show a free mouth: indices, ascending; all of them where none does.

    Args:
        net: the network.
        warp: of the face model.
        references: each is compared with the nearest other one.
        most: share of the crop that may seem covered.
    """
    if len(references) < 2:
        return list(range(len(references)))
    finder = OcclusionFinder(net, warp, references)
    share = [
        float((finder._compare(view, [k for k in finder._every if k != index]) > _ENTERS).mean())
        for index, view in enumerate(finder.references)
    ]
    free = [index for index, part in enumerate(share) if part <= most]
    return free or list(range(len(references)))


def keep_mask(mask: np.ndarray, points: np.ndarray, size: tuple[int, int]) -> np.ndarray | None:
    """A finder's mask in the frame: (H, W) float32, 1 where that stays as it is; None where nothing does.

    What reaches the crop's border goes on beyond it, as far as a lower face may change.

    Args:
        mask: (M, M) float32 from :class:`OcclusionFinder`.
        points: (478, 3) the face that the mask was made with, pixels.
        size: (W, H) of the frame.
    """
    if mask.max() <= 0.0:
        return None
    outline = lower_face_outline(points)
    low = np.clip(np.floor(outline.min(0)), 0, size).astype(int)
    high = np.clip(np.ceil(outline.max(0)) + 1, 0, size).astype(int)
    keep = np.zeros((size[1], size[0]), np.float32)
    if (high <= low).any():
        return None
    matrix = crop_matrix(points)
    matrix[:, 2] += matrix[:, :2] @ low
    width, height = (high - low).tolist()
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    keep[low[1] : high[1], low[0] : high[0]] = cv2.warpAffine(
        mask, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return keep
