"""The generator's inputs for one frame: crop, mask, mesh maps and warped references."""

from dataclasses import dataclass

import cv2
import numpy as np

from talkface.face.crop import MOUTH_REGION, region_matrix
from talkface.face.draw import mesh_maps
from talkface.face.masks import around_lips
from talkface.face.warp import MeshWarp

MOUTH_CROP_PIXELS = MOUTH_REGION.pixels
"""Side of the mouth crop in the compact preset."""
_MARGIN = 0.075  # inter-ocular distances around the lips that are hidden; the mask then fades over as many
_GREY = 127.5  # what hides the mouth
_GAIN = (0.6, 1.6)  # least and greatest gain that matches a reference's light to the frame's


@dataclass(frozen=True)
class Reference:
    """A reference frame.

    Attributes:
        crop: (P, P, 3) uint8 the mouth.
        points: (WARP_VERTICES, 3) the mesh with its ring, in pixels of the crop.
    """

    crop: np.ndarray
    points: np.ndarray


@dataclass(frozen=True)
class FrameInputs:
    """One frame's inputs of the generator, pictures with channels last.

    Attributes:
        context: (P, P, 3) float32 in [0, 1] the crop, grey where it is hidden.
        hidden: (P, P) float32 in [0, 1] the mask of what is hidden and drawn.
        maps: (MAP_CHANNELS, P/2, P/2) float32 mesh maps.
        grids: (R, P/2, P/2, 2) where each cell lies in each reference, -1 to 1.
        seeds: (R, P, P, 3) float32 in [0, 1] the references warped into place.
        gains: (R, 3) colour gain by which each was matched to the frame's light.
    """

    context: np.ndarray
    hidden: np.ndarray
    maps: np.ndarray
    grids: np.ndarray
    seeds: np.ndarray
    gains: np.ndarray


def mouth_matrix(points: np.ndarray, pixels: int = MOUTH_CROP_PIXELS) -> np.ndarray:
    """Affine map (2, 3) from a picture to a mouth crop.

    Args:
        points: (478 or more, 3) the mesh in the picture.
        pixels: side of the crop.
    """
    finer = pixels / MOUTH_REGION.pixels
    matrix = region_matrix(points, MOUTH_REGION) * finer
    matrix[:, 2] += (finer - 1) / 2
    return matrix


def hidden_region(goal: np.ndarray, pixels: int = MOUTH_CROP_PIXELS) -> np.ndarray:
    """Soft mask (P, P) of what the generator draws, for a mesh (V, 3) in crop pixels; 0 at the border."""
    mask = around_lips(goal, (pixels, pixels), _MARGIN * pixels / MOUTH_REGION.side)
    edge = np.minimum(np.arange(pixels), np.arange(pixels)[::-1]) / (pixels / 16)
    window = np.clip(edge - 0.25, 0, 1).astype(np.float32)
    return mask * window[:, None] * window


def prepare(
    warp: MeshWarp,
    crop: np.ndarray,
    goal: np.ndarray,
    references: list[Reference],
    seeded: bool = True,
    covered: np.ndarray | None = None,
) -> FrameInputs:
    """The inputs for one frame.

    Args:
        warp: of the face model.
        crop: (P, P, 3) uint8 the face around the mouth, with the jaw moved already.
        goal: (WARP_VERTICES, 3) the mesh to be drawn, with its ring, in crop pixels.
        references: of the same person, at least one.
        seeded: warp the references into place by the mesh; else they are taken as they are.
        covered: (P, P) 1 where something is in front of the face; the light is not measured there.
    """
    pixels = len(crop)
    hidden = hidden_region(goal, pixels)
    half = pixels // 2
    triangle = warp.rasterise(goal, (half, half), 2.0, (0.0, 0.0))
    grids, seeds, gains = [], [], []
    maps = None
    ring = hidden_ring(hidden)
    if covered is not None:
        ring &= covered < 0.1
    for reference in references:
        source = reference.points if seeded else goal
        field = warp.field(source, goal, (half, half), 2.0, triangle=triangle)
        maps = mesh_maps(warp, field, reference.points, goal) if maps is None else maps
        x, y = field.dense(pixels, pixels)
        seed = cv2.remap(reference.crop, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        gain = light_gain(seed, crop, ring)
        grids.append((2 * field.grid + 1) / pixels - 1)
        seeds.append(np.clip(seed * (gain / 255), 0, 1).astype(np.float32))
        gains.append(gain)
    assert maps is not None  # there is a reference
    context = masked(crop, hidden)
    return FrameInputs(context, hidden, maps, np.stack(grids), np.stack(seeds), np.stack(gains))


def masked(crop: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """A crop (P, P, 3) uint8 as float32 in [0, 1], grey where ``hidden`` (P, P) is 1."""
    shown: np.ndarray = crop * (1 - hidden[..., None]) + _GREY * hidden[..., None]
    return (shown / 255).astype(np.float32)


def hidden_ring(hidden: np.ndarray) -> np.ndarray:
    """The skin just outside of the mask ``hidden`` (P, P), where light is compared, (P, P) bool."""
    width = len(hidden) // 10 | 1
    near = cv2.dilate((hidden > 0.02).astype(np.uint8), np.ones((width, width), np.uint8))
    ring: np.ndarray = (near > 0) & (hidden <= 0.02)
    return ring


def light_gain(seed: np.ndarray, crop: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """Gain (3,) of each channel that matches a warped reference to the frame's light.

    Args:
        seed: (P, P, 3) uint8 the warped reference.
        crop: (P, P, 3) uint8 the frame.
        ring: (P, P) bool where they are compared; with fewer than 20 pixels the gain is 1.
    """
    if ring.sum() < 20:
        return np.ones(3, np.float32)
    here, there = crop[ring].astype(np.float32).mean(0), seed[ring].astype(np.float32).mean(0)
    gain: np.ndarray = np.clip((here + 2) / (there + 2), *_GAIN)
    return gain.astype(np.float32)
