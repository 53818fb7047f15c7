"""Photographs that the face LDM has drawn anew from noise: examples for the restorer and the critic."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from talkface.data.arrays import kept_arrays
from talkface.data.attributes import portrait_attributes
from talkface.data.faces import Portrait, held_out, portraits, weights
from talkface.data.manifest import Manifest
from talkface.diffusion.base import Base
from talkface.diffusion.captions import Attributes, caption, tokenize
from talkface.diffusion.sampling import default_guidance, default_steps, guided, restore_spectrum, sample
from talkface.face.draw import draw_mesh
from talkface.face.model import FaceModel
from talkface.face.portrait import PORTRAIT_PIXELS
from talkface.face.warp import MeshWarp
from talkface.hub import COMPACT
from talkface.nn.marks import marked, weights_mark
from talkface.nn.picture import pictures
from talkface.training.datasets.latents import PortraitSettings, usable_portraits, vary

logger = logging.getLogger(__name__)

_BATCH = 16  # drafts that are drawn from one seed and decoded together
_STEPS = 4  # of the sampler, for an LDM without steps of its own
_QUALITY = 95  # of the JPEGs that are kept
VALIDATION_NOISE = (0.5, 0.9)
"""Noise levels from which held-out people are drawn anew."""


@dataclass(frozen=True)
class Drafts:
    """Photographs of a list of portraits, drawn anew.

    Attributes:
        portrait: (N,) place of the photograph in the list.
        variant: (N,) seed of its augmentation; 0 for none.
        time: (N,) initial noise level, 0 to 1: at 1 only the mesh and the caption are left of it.
        jpeg: the drafts (256, 256, 3) as JPEG, one behind the other.
        lengths: (N,) bytes of each.
    """

    portrait: np.ndarray
    variant: np.ndarray
    time: np.ndarray
    jpeg: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(
        cls,
        album: Sequence[Portrait],
        attributes: Mapping[str, Attributes],
        base: Base,
        warp: MeshWarp,
        count: int,
        times: tuple[float, float],
        folder: Path,
        varied: bool = True,
        seed: int = 0,
    ) -> "Drafts":
        """Draw photographs anew; kept in ``folder``.

        Args:
            album: the portraits.
            attributes: of each, by its key; the captions are made of them.
            base: the LDM.
            warp: draws the meshes.
            count: how many drafts.
            times: lowest and highest initial noise level.
            folder: where they are kept.
            varied: whether portraits are chosen at random and augmented; else they are taken in order.
            seed: of all that is random.
        """
        generator = np.random.default_rng(seed)
        if varied:
            chosen = generator.choice(len(album), count, p=weights(list(album)))
            variant = generator.integers(1, 2**31, count)
        else:
            chosen, variant = np.arange(count) % len(album), np.zeros(count, np.int64)
        time = generator.uniform(*times, count)

        def make() -> Drafts:
            drawn: list[np.ndarray] = []
            for start in range(0, count, _BATCH):
                part = slice(start, start + _BATCH)
                rows = [varied_one(album[k], v) for k, v in zip(chosen[part], variant[part], strict=True)]
                captions = [caption(attributes[album[k].key]) for k in chosen[part]]
                drawn += _draw(base, warp, rows, captions, time[part], seed + start)
                if start % (20 * _BATCH) == 0:
                    logger.info("drafts: %d of %d", start, count)
            lengths = np.array([len(jpeg) for jpeg in drawn])
            return cls(chosen, variant, time, np.concatenate(drawn), lengths)

        keys = [portrait.key for portrait in album]
        drawer = weights_mark(base.model), weights_mark(base.autoencoder)
        mark = marked(f"{keys} {count} {times} {varied} {seed} {drawer}")
        return kept_arrays(cls, folder / f"drafts-{mark}.npz", make)

    def __len__(self) -> int:
        return len(self.time)

    def image(self, index: int) -> np.ndarray:
        """A draft (256, 256, 3) uint8 RGB."""
        end = int(self.lengths[: index + 1].sum())
        crop = cv2.imdecode(self.jpeg[end - int(self.lengths[index]) : end], cv2.IMREAD_COLOR)
        assert crop is not None  # we compressed it
        return cv2.cvtColor(crop, cv2.COLOR_BGR2RGB)


@dataclass(frozen=True, kw_only=True)
class DraftSettings(PortraitSettings):
    """Settings that every training on drafts has, beside those of portraits.

    Attributes:
        base: directory of the LDM that draws, or "compact".
        drafts: how many are drawn, once.
        times: lowest and highest noise level from which photographs are drawn anew.
        sharp: quantile of sharpness above which photographs are examples.
    """

    base: str = COMPACT
    drafts: int = 4000
    times: tuple[float, float] = (0.4, 0.96)
    sharp: float = 0.2


@dataclass(frozen=True)
class DraftSplits:
    """Drafts of the training split's portraits, and of held-out people's.

    Attributes:
        base: the LDM that drew them.
        warp: draws meshes.
        album: portraits of the training split.
        drafts: of these.
        clear: (N,) whether a draft's photograph is sharp enough for an example.
        held_out: portraits of people who are not in the training split.
        unseen: drafts of these, for each of VALIDATION_NOISE.
    """

    base: Base
    warp: MeshWarp
    album: list[Portrait]
    drafts: Drafts
    clear: np.ndarray
    held_out: list[Portrait]
    unseen: list[Drafts]

    @classmethod
    def of(cls, settings: DraftSettings, data: Path, seed: int, device: torch.device) -> "DraftSplits":
        """Draw all drafts that a training needs; kept beside the data.

        Raises:
            ModelUnavailable: the base is missing or damaged.
        """
        manifest, face = Manifest.load(data), FaceModel.from_pretrained(settings.face_model)
        usable = usable_portraits(portraits(manifest), face, settings.sharpness, settings.turned)
        album = [portrait for portrait in usable if portrait.split == "train"]
        sharpness = np.array([portrait.sharpness for portrait in album])
        base, warp = Base.from_pretrained(settings.base, device), face.mesh_warp()
        given = portrait_attributes(manifest, usable), base, warp
        folder = manifest.directory
        drafts = Drafts.of(album, *given, settings.drafts, settings.times, folder, seed=seed)
        others = held_out(usable, settings.held_out)
        unseen = [
            Drafts.of(others, *given, len(others), (time, time), folder, varied=False)
            for time in VALIDATION_NOISE
        ]
        clear = (sharpness >= np.quantile(sharpness, settings.sharp))[drafts.portrait]
        return cls(base, warp, album, drafts, clear, others, unseen)


def varied_one(portrait: Portrait, variant: int) -> tuple[np.ndarray, np.ndarray]:
    """The photograph (256, 256, 3) uint8 and mesh (478, 3) behind a draft."""
    if not variant:
        return portrait.image(), portrait.points
    return vary(portrait.image(), portrait.points, np.random.default_rng(int(variant)))


@torch.inference_mode()
def _draw(
    base: Base,
    warp: MeshWarp,
    rows: list[tuple[np.ndarray, np.ndarray]],
    captions: list[str],
    times: np.ndarray,
    seed: int,
) -> list[np.ndarray]:
    """JPEGs of photographs that are drawn anew, each from its own initial noise level.

    Args:
        base: the LDM.
        warp: draws the meshes.
        rows: photographs (256, 256, 3) uint8 and meshes (478, 3).
        captions: of each.
        times: (B,) initial noise levels.
        seed: of the noise.
    """
    device = next(base.model.parameters()).device
    clean = base.autoencoder.encode(pictures([image for image, _ in rows], device))
    drawings = np.stack([draw_mesh(warp, points, PORTRAIT_PIXELS) for _, points in rows])
    mesh = base.model.encode_mesh(torch.from_numpy(drawings).to(device))
    assert mesh is not None  # of our own LDM
    ids = torch.from_numpy(np.stack([tokenize(text).ids for text in captions])).to(device)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(clean.shape, generator=generator).to(device)
    order = np.argsort(times)
    latents = torch.empty_like(clean)
    # A batch has one noise level: drafts of similar levels are drawn together, from their mean.
    for some in np.array_split(order, max(1, len(order) // 4)):
        noise_level = float(times[some].mean())
        picked = torch.from_numpy(some).to(device)
        velocity = guided(
            base.model, base.model.encode_text(ids[picked]), mesh[picked], default_guidance(base.model)
        )
        with torch.autocast(device.type, torch.bfloat16):
            noisy = (1 - noise_level) * clean[picked] + noise_level * noise[picked]
            steps = default_steps(base.model, _STEPS)
            latents[picked] = sample(velocity, noisy, steps, noise_level).float()
    latents = restore_spectrum(latents, base.model.config.spectrum)
    return [_compressed(picture) for picture in base.autoencoder.decode(latents)]


def _compressed(picture: Tensor) -> np.ndarray:
    image = (picture.permute(1, 2, 0) * 255).round().byte().cpu().numpy()
    return cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].ravel()
