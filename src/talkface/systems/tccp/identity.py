"""Whose face it is to be: one or several portraits, or somebody imagined from the voice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from talkface.diffusion.base import Base
from talkface.errors import InvalidOption, NoFaceFound
from talkface.face.crop import cut, transform
from talkface.face.model import FaceModel, estimate_pose
from talkface.face.portrait import PORTRAIT_PIXELS, portrait_matrix
from talkface.face.tracker import FaceTracker
from talkface.nn.picture import enlarged, pictures

_MOST_PORTRAITS = 8


@dataclass(frozen=True)
class PortraitIdentity:
    """A person.

    Attributes:
        images: portraits, (P, P, 3) uint8 each, cut alike.
        points: (N, 478, 3) their meshes, pixels.
        neutral: (478, 3) the canonical face at rest.
        alpha: (I,) identity coefficients of the 3DMM.
        latents: (1, N, 4, h, w) of the portraits.
    """

    images: list[np.ndarray]
    points: np.ndarray
    neutral: np.ndarray
    alpha: np.ndarray
    latents: Tensor

    @classmethod
    def of(
        cls,
        given: Sequence[tuple[str, np.ndarray]],
        tracker: FaceTracker,
        face: FaceModel,
        base: Base,
        pixels: int = PORTRAIT_PIXELS,
    ) -> "PortraitIdentity":
        """Look at portraits.

        Args:
            given: names and pictures (H, W, 3) uint8.
            tracker: finds the face.
            face: the 3DMM.
            base: encodes them.
            pixels: P, sides of the portraits.

        Raises:
            NoFaceFound: one shows nobody.
            InvalidOption: there are none, too many, or one shows several people.
        """
        if not 1 <= len(given) <= _MOST_PORTRAITS:
            raise InvalidOption(f"give 1 to {_MOST_PORTRAITS} pictures of the identity, not {len(given)}")
        images, points = [], []
        for name, image in given:
            found = tracker.track_image(image)
            if not found:
                raise NoFaceFound(f"no face found in {name}; give a picture in which it is clearly visible")
            if len(found) > 1:
                raise InvalidOption(f"{name} shows {len(found)} faces; cut out the one that is meant")
            matrix = portrait_matrix(found[0].points, (image.shape[1], image.shape[0]), pixels)
            images.append(cut(image, matrix, pixels))
            points.append(transform(found[0].points, matrix))
        fits = [face.fit(one[None]) for one in points]
        device = next(base.autoencoder.parameters()).device
        with torch.inference_mode():
            batch = pictures([enlarged(image, base.pixels) for image in images], device)
            latents = base.autoencoder.encode(batch)[None]
        neutral = np.mean([fit.neutral for fit in fits], 0)
        alpha = np.mean([fit.alpha for fit in fits], 0)
        return cls(images, np.stack(points), neutral.astype(np.float32), alpha.astype(np.float32), latents)

    def nearest(self, rotation: np.ndarray) -> int:
        """Number of the portrait whose head is turned most like a rotation (3, 3)."""
        own = estimate_pose(self.points, self.neutral).rotation
        return int(np.einsum("nij,ij->n", own, rotation).argmax())
