"""Takes portraits along to a machine with a GPU: ``python scripts/pack_faces.py PREPARED PACK``.

The pack (some 50 MB) holds the clear portraits of a prepared folder, compressed further, and what FaceRes
says of them. It trains the face LDM as that folder does::

    talkface train recipes/face-diffusion-large.yaml --data PACK
"""

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from talkface.data.faces import Portrait, keep, portraits
from talkface.data.prepare import Manifest
from talkface.diffusion.train import clear_ones
from talkface.face.attributes import looks
from talkface.face.model import FaceModel

_QUALITY = 88  # of JPEG


def pack(prepared: Path, target: Path) -> None:
    """Write a folder that trains the face LDM."""
    manifest = Manifest.load(prepared)
    whole = portraits(manifest)
    known, album = looks(manifest, whole), clear_ones(whole, FaceModel.from_pretrained())
    target.mkdir(parents=True, exist_ok=True)
    keep(target / "faces.npz", [smaller(portrait) for portrait in album])
    chosen = [known[portrait.key] for portrait in album]
    np.savez(
        target / "looks.npz",
        key=np.array([portrait.key for portrait in album]),
        male=np.array([look.male for look in chosen]),
        age=np.array([look.age for look in chosen]),
        features=np.stack([look.features for look in chosen]).astype(np.float16),
    )
    Manifest(target, target, []).save()


def smaller(portrait: Portrait) -> Portrait:
    """The same portrait in fewer bytes."""
    data = cv2.imencode(".jpg", portrait.image()[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    return replace(portrait, jpeg=data.ravel())


if __name__ == "__main__":
    pack(Path(sys.argv[1]), Path(sys.argv[2]))
