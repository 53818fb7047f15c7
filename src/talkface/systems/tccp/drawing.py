"""Landmarks as pictures: what stage 1 gives and stage 2 is shown."""

import numpy as np

from talkface.face.draw import draw_mesh
from talkface.face.portrait import PORTRAIT_PIXELS
from talkface.face.warp import MeshWarp

_MOUTH, _EYE, _IRIS = (210, 40, 60), (240, 240, 240), (30, 30, 30)


def landmark_picture(warp: MeshWarp, points: np.ndarray, side: int = PORTRAIT_PIXELS) -> np.ndarray:
    """A face's mesh (478, 3) as a picture (side, side, 3) uint8.

    Normals are colours; the inside of the lips is red, eyes are white, irises black, all else is grey.
    """
    drawn = draw_mesh(warp, points, side, side).transpose(1, 2, 0)
    face = np.abs(drawn[..., :3]).sum(2) > 0
    picture = np.full((side, side, 3), 127, np.uint8)
    picture[face] = (127.5 * (1 + drawn[face, :3])).round().astype(np.uint8)
    for channel, colour in ((3, _MOUTH), (4, _EYE), (5, _IRIS)):
        picture[drawn[..., channel] > 0.5] = colour
    return picture
