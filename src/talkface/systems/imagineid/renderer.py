"""A video frame by frame by diffusion, auto-regressively and from shared noise (paper, Sec. 3.2)."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from talkface.diffusion.autoencoder import LATENT_FACTOR
from talkface.diffusion.base import Base
from talkface.face.draw import draw_mesh
from talkface.face.masks import face_mask
from talkface.face.model import FaceModel
from talkface.face.motion import FaceMotion
from talkface.media.prefetch import prefetched
from talkface.nn.picture import pictures
from talkface.rendering.portrait import PortraitRenderer
from talkface.rendering.refiner import Refiner
from talkface.systems.imagineid.adapters import Adapters
from talkface.systems.imagineid.ccf import decode_blended
from talkface.systems.imagineid.frames import (
    FRAME_NOISE_LEVEL,
    FRAME_STEPS,
    around_face,
    draw_latents,
    spatial_condition,
)
from talkface.systems.imagineid.portrait import Imagined
from talkface.systems.imagineid.reference_warp import hidden_cells


class DiffusionRenderer:
    """Draws an imagined person in any motion.

    Sampling of a frame begins with the reference, moved to the frame's mesh, and noise on it that is the same
    in all frames: what moves takes its texture along, and what rests does not change.

    Args:
        base: the frozen LDM.
        adapters: SCA and MBA.
        imagined: the reference, as large as the base's pictures.
        face: the 3DMM.
        refiner: of TH-PAD's generator, which moves the reference; None, and it is warped only.
        seed: of the shared noise.
        steps: of the sampler for a frame.
        noise_level: initial noise level of a frame, above 0 to 1.
        without: parts to leave out, for ablations: "reference", "mba" or "before".
        dtype: of the networks' arithmetic.
    """

    def __init__(
        self,
        base: Base,
        adapters: Adapters,
        imagined: Imagined,
        face: FaceModel,
        refiner: Refiner | None,
        seed: int = 0,
        steps: int = FRAME_STEPS,
        noise_level: float = FRAME_NOISE_LEVEL,
        without: frozenset[str] = frozenset(),
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.base, self.adapters, self.steps, self.without = base, adapters, steps, without
        self.dtype = dtype
        # Without the reference, sampling begins with noise alone.
        self.noise_level = 1.0 if "reference" in without else noise_level
        self.device = next(base.model.parameters()).device
        self.portrait = PortraitRenderer(imagined.image, imagined.points, face, refiner, self.device, dtype)
        self.warp = face.mesh_warp()
        side = base.pixels // LATENT_FACTOR
        noise = np.random.default_rng(seed).standard_normal((1, 4, side, side)).astype(np.float32)
        self.noise = torch.from_numpy(noise).to(self.device)
        self.text_embeddings, _ = base.embed_prompt("")

    def frames(self, motions: Iterable[FaceMotion], skip: int = 0) -> Iterator[np.ndarray]:
        """Frames (H, W, 3) uint8 for stretches of motion; warping works ahead in a thread.

        The first ``skip`` frames are left out; the others are as they would be after them.
        """
        before: Tensor | None = None
        # With MBA, a frame shows the next one its moved reference, so one frame is all that must be redone.
        lead = skip if "mba" in self.without else min(skip, 1)
        for number, (picture, mesh) in enumerate(prefetched(self.portrait.moved(motions, skip=skip - lead))):
            before, image = self._frame(picture, mesh, before)
            if number >= lead:
                yield image

    @torch.inference_mode()
    def _frame(
        self, picture: np.ndarray, mesh: np.ndarray, before: Tensor | None
    ) -> tuple[Tensor, np.ndarray]:
        """Latents of a frame without the face, for the next one, and the frame."""
        base, pixels = self.base, self.base.pixels
        sca, mba = self.adapters.sca, self.adapters.mba
        assert sca is not None
        assert mba is not None
        reference = base.autoencoder.encode(pictures([picture], self.device))
        mask = face_mask(mesh, (pixels, pixels))
        hidden = torch.from_numpy(hidden_cells(mesh, pixels // LATENT_FACTOR, pixels))[None].to(self.device)
        drawing = torch.from_numpy(draw_mesh(self.warp, mesh, pixels, pixels // 2))[None].to(self.device)
        before = None if "before" in self.without else before
        condition = spatial_condition(drawing, reference, hidden, before, "reference" not in self.without)
        given = base.model, sca, self.text_embeddings, condition, self.noise
        latents = draw_latents(*given, self.steps, self.noise_level, self.dtype)
        blend = torch.from_numpy(mask)[None, None].to(self.device)
        if "mba" in self.without:
            drawn = base.autoencoder.decode(latents)
        else:
            drawn = decode_blended(base.autoencoder, mba, latents, reference, blend)
            latents = reference  # what the frame shows around the face
        image = (drawn[0].permute(1, 2, 0) * 255).round().byte().cpu().numpy()
        return around_face(latents, hidden), image
