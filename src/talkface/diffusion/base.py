"""The frozen latent diffusion model under the adapters: the compact face LDM, or a Stable Diffusion 1.x."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from talkface.diffusion.autoencoder import FaceAutoencoder
from talkface.diffusion.config import COMPACT_PIXELS
from talkface.diffusion.model import FaceDiffusion
from talkface.diffusion.restorer import FaceRestorer
from talkface.diffusion.stable import (
    DIFFUSERS_FOLDERS,
    StableAutoencoder,
    StableDiffusion,
    load_stable_diffusion,
)
from talkface.errors import ModelUnavailable
from talkface.face.crop import face_unit
from talkface.face.masks import face_mask
from talkface.face.texture import FaceTexture
from talkface.hub import COMPACT, find_pretrained, hub_snapshot
from talkface.nn.picture import pictures

_WHITE = 235.0  # level to which the brightest hundredth of a picture is raised
_MOST_GAIN = 1.5  # by which a picture may become brighter
_DETAIL_SCALE = 0.03  # standard deviation, in inter-ocular distances, of the blur that separates detail
_DETAIL_KEPT = 0.3  # share of the restorer's detail that is kept around the face
_FACE_GROWTH = 1.08  # size of the region whose detail is kept whole, relative to the face's oval


@dataclass(frozen=True)
class Base:
    """A frozen latent diffusion model.

    Attributes:
        name: "compact", or where it came from.
        model: predicts the velocity of noisy latents.
        autoencoder: pictures to latents and back.
        pixels: side of its pictures.
        restorer: makes photographs of what it draws; None where it has none.
        texture: finds the most plausible face behind a draft; None where there is no restorer.
    """

    name: str
    model: FaceDiffusion | StableDiffusion
    autoencoder: FaceAutoencoder | StableAutoencoder
    pixels: int
    restorer: FaceRestorer | None = None
    texture: FaceTexture | None = None

    @classmethod
    def from_pretrained(cls, name_or_path: str = COMPACT, device: str | torch.device = "cpu") -> "Base":
        """Load the shipped LDM, or one from a directory or hub id.

        A directory holds ``face-autoencoder``, ``face-diffusion`` and, if there is one, ``face-restorer``
        (with ``face-texture``, if it is not to be the shipped one), or a Stable Diffusion as diffusers lays
        it out.

        Raises:
            ModelUnavailable: nothing of that name can be found, or it is incomplete or damaged.
        """
        if name_or_path != COMPACT and _is_stable(name_or_path):
            base = cls(name_or_path, *load_stable_diffusion(_folder(name_or_path)))
        else:
            place = Path("" if name_or_path == COMPACT else name_or_path)
            restorer = find_pretrained(name_or_path, "face-restorer")
            texture = find_pretrained(name_or_path, "face-texture")
            base = cls(
                name_or_path,
                FaceDiffusion.from_pretrained(str(place / "face-diffusion")),
                FaceAutoencoder.from_pretrained(str(place / "face-autoencoder")),
                COMPACT_PIXELS,
                FaceRestorer.from_pretrained(restorer) if restorer else None,
                FaceTexture.from_pretrained(texture or "face-texture") if restorer else None,
            )
        for module in base.modules():
            module.to(device).requires_grad_(False).eval()
        return base

    @classmethod
    def debug(cls) -> "Base":
        """A tiny random one for tests: it draws no faces."""
        return cls("debug", FaceDiffusion.debug(), FaceAutoencoder.debug(), COMPACT_PIXELS)

    def modules(self) -> list[nn.Module]:
        """Its parts."""
        return [part for part in (self.model, self.autoencoder, self.restorer) if part is not None]

    @torch.inference_mode()
    def restore(
        self, draft: np.ndarray, points: np.ndarray, drawing: Tensor, plausible: bool = True
    ) -> np.ndarray:
        """What the restorer makes of a draft, (H, W, 3) uint8; the draft where there is no restorer.

        Args:
            draft: (H, W, 3) uint8, what the LDM drew.
            points: (478, 3) the mesh that it was given, in pixels.
            drawing: (1, 6, H/2, W/2) of this mesh.
            plausible: whether the restorer is shown the most plausible face behind the draft, in less
                coloured light and well exposed.
        """
        if self.restorer is None:
            return draft
        if plausible and self.texture is not None:
            draft = self.texture.plausible(exposed(self.texture.balanced(draft, points)), points)
        made = self.restorer(pictures([draft], drawing.device), drawing)[0].float()
        picture = made.permute(1, 2, 0).cpu().numpy() * 255
        return with_soft_background(draft, picture, points).round().clip(0, 255).astype(np.uint8)

    @property
    def compact(self) -> bool:
        """Whether it is a face LDM of ours, which has a mesh encoder."""
        return isinstance(self.model, FaceDiffusion)

    def embed_prompt(self, prompt: str) -> tuple[Tensor, list[str]]:
        """Text embeddings (1, L, C) of a prompt, and its words that were ignored."""
        tokens = self.model.tokenize(prompt)
        ids = torch.from_numpy(tokens.ids)[None].to(next(self.model.parameters()).device)
        return self.model.encode_text(ids), tokens.ignored


def exposed(image: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) uint8, brightened so that its brightest hundredth is nearly white."""
    brightest = max(float(np.percentile(image.max(2), 99)), 1.0)
    gain = float(np.clip(_WHITE / brightest, 1.0, _MOST_GAIN))
    exposed_image: np.ndarray = (image * gain).round().clip(0, 255).astype(np.uint8)
    return exposed_image


def with_soft_background(draft: np.ndarray, made: np.ndarray, points: np.ndarray) -> np.ndarray:
    """A restored picture whose hair, clothes and background have little of the restorer's detail.

    The restorer was trained with discriminators of faces, and draws the same strokes wherever there is none.

    Args:
        draft: (H, W, 3) uint8, what was restored.
        made: (H, W, 3) float32, the restored picture, 0 to 255.
        points: (478, 3) the face's mesh in pixels.

    Returns:
        (H, W, 3) float32; the face is that of the restored picture.
    """
    unit = face_unit(points)
    change = made - draft
    coarse = cv2.GaussianBlur(change, (0, 0), _DETAIL_SCALE * unit)
    face = face_mask(points, (made.shape[1], made.shape[0]), grow=_FACE_GROWTH)[..., None]
    share = face + (1 - face) * _DETAIL_KEPT
    softened: np.ndarray = draft + coarse + share * (change - coarse)
    return softened


def _is_stable(name: str) -> bool:
    """Whether a name is that of a Stable Diffusion: a directory that looks like one, or a hub id."""
    folder = Path(name)
    if folder.is_dir():
        ours = (folder / "face-diffusion").is_dir()
        like_it = (folder / "model_index.json").is_file() or any(
            (folder / part).is_dir() for part in DIFFUSERS_FOLDERS
        )
        if not ours and not like_it:
            raise ModelUnavailable(f"{name} holds neither face-diffusion nor a Stable Diffusion's folders")
        return not ours
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return True
    raise ModelUnavailable(f"there is no base model {name}: give a directory or a hub id (owner/name)")


def _folder(name: str) -> Path:
    if Path(name).is_dir():
        return Path(name)
    weights = ("model.safetensors", "diffusion_pytorch_model.safetensors")
    patterns = [f"{folder}/{file}" for folder in DIFFUSERS_FOLDERS for file in weights]
    return hub_snapshot(name, ["*.json", "*/*.json", "*/*.txt", *patterns])
