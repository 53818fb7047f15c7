"""Prepared clips as latents: what the data sets of ImagineID's adapters and of TCCP have in common."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from talkface.data.manifest import Item, Manifest
from talkface.diffusion.autoencoder import FaceAutoencoder
from talkface.diffusion.stable import StableAutoencoder
from talkface.face.model import FaceModel
from talkface.face.portrait import PORTRAIT_PIXELS
from talkface.nn.picture import enlarged, pictures


class Examples:
    """Examples of a training: a dataclass of arrays, of which ``weight`` (N,) has a value for each."""

    def __len__(self) -> int:
        weight: np.ndarray = vars(self)["weight"]
        return len(weight)


@dataclass(frozen=True, kw_only=True)
class ClipSource:
    """Which clips are encoded, and by what.

    Attributes:
        manifest: the prepared folder.
        split: "train", "dev" or "val".
        face: the 3DMM.
        autoencoder: gives the latents; frozen.
        mark: tells the networks behind the data from others.
        seed: of the choice of frames and of what is varied in them.
        pixels: side of the pictures that are encoded; meshes stay in pixels of the portraits.
    """

    manifest: Manifest
    split: str
    face: FaceModel
    autoencoder: FaceAutoencoder | StableAutoencoder
    mark: str
    seed: int = 0
    pixels: int = PORTRAIT_PIXELS

    def file(self, kind: str, count: int, suffix: str = "") -> Path:
        """Where data of a kind are kept, with ``count`` examples of each clip."""
        name = f"{kind}-{self.split}-{count}-{self.seed}-{self.pixels}-{self.mark}{suffix}.npz"
        return self.manifest.directory / name

    def choose(self, items: Iterable[Item]) -> "ChosenClips":
        """Those of the items that may be used: no validation on people who are in the training split."""
        chosen = self.manifest.apart(items)
        return ChosenClips(chosen, [item.corpus + item.speaker for item in chosen])

    def encode(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Latents (N, 4, h, w) float16 of square pictures (H, H, 3) uint8."""
        return encode_pictures(self.autoencoder, images, self.pixels)


@dataclass(frozen=True)
class ChosenClips:
    """Clips and, in the same order, names of their speakers."""

    items: list[Item]
    speakers: list[str]

    def __len__(self) -> int:
        return len(self.items)

    def of_same_speaker(self, number: int) -> int:
        """How many of the clips are of the speaker of one of them."""
        return self.speakers.count(self.speakers[number])

    def weight(self, number: int) -> float:
        """How often examples of a clip are to be drawn: those of people with many clips less often."""
        return float(self.of_same_speaker(number) ** -0.7)


def encode_pictures(
    autoencoder: FaceAutoencoder | StableAutoencoder, images: Sequence[np.ndarray], pixels: int
) -> np.ndarray:
    """Latents (N, 4, h, w) float16 of square pictures (H, H, 3) uint8, resized to ``pixels``."""
    device = next(autoencoder.parameters()).device
    with torch.inference_mode():
        latents = autoencoder.encode(pictures([enlarged(image, pixels) for image in images], device))
    encoded: np.ndarray = latents.half().cpu().numpy()
    return encoded
