"""G4G's generator: draws a mouth from a masked face, a mesh, reference frames and speech.

::

    E_v(masked face) --AdaIN(E_m(mesh))--> f_v      intra-modal alignment
    E_a(speech) -> f_a                              diagonal alignment of f_v and f_a (losses.py)
    E_r(references) --T(f_v, f_a, masks)--> f_r     adaptive spatial transform at several scales
    decoder(f_v, f_r) -> pictures at several scales -> fusion network -> frame
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkface.hub import build_pretrained
from talkface.nn.blocks import Stage, pixel_shuffle
from talkface.systems.g4g.config import GeneratorConfig
from talkface.systems.g4g.layers import (
    AdaptiveSpatialTransform,
    AlignedBlock,
    Fusion,
    MeshCodeEncoder,
    PictureEncoder,
    SpeechEncoder,
    sample,
)


@dataclass(frozen=True)
class GeneratorInputs:
    """A batch of what the generator draws mouths from.

    Attributes:
        context: (B, 3, P, P) the masked face in [0, 1], grey where it is hidden.
        hidden: (B, 1, P, P) the mask, 1 where the face is hidden, soft at the border.
        maps: (B, MAP_CHANNELS, P/2, P/2) of the mesh to be drawn, from :func:`~talkface.face.draw.mesh_maps`.
        mesh: (B, mesh) coefficients of mouth and pose (:func:`~talkface.systems.g4g.geometry.mesh_code`).
        references: (B, R, 3, P, P) mouth crops of reference frames in [0, 1].
        grids: (B, R, P/2, P/2, 2) where MeshWarp finds each cell in each reference, -1 to 1.
        seeds: (B, R, 3, P, P) the references warped into place, their colours matched to the context.
        content: (B, 2 * SPEECH_WINDOW, content) content features around the frame.
        level: (B, 2 * SPEECH_WINDOW) dB relative to the loudest sound.
    """

    context: Tensor
    hidden: Tensor
    maps: Tensor
    mesh: Tensor
    references: Tensor
    grids: Tensor
    seeds: Tensor
    content: Tensor
    level: Tensor


@dataclass(frozen=True)
class GeneratorOutput:
    """What the generator gives for a batch of mouths.

    ``picture = alpha * ((1 - mask) (sum_r weights_r seeds_r + residual) + mask color) + (1 - alpha) context``

    Attributes:
        weights: (B, R, P, P) share of each reference; they sum to 1.
        residual: (B, 3, P, P) what is added to the references.
        color: (B, 3, P, P) colours that are drawn anew.
        mask: (B, 1, P, P) where they replace the references.
        alpha: (B, 1, P, P) opacity of the mouth, 0 outside of the mask ``hidden``.
        scales: pictures at the coarser scales, coarsest first, for multi-scale supervision.
        visual, audio: (B, embedding) aligned embeddings of face and speech, of length 1.
    """

    weights: Tensor
    residual: Tensor
    color: Tensor
    mask: Tensor
    alpha: Tensor
    scales: list[Tensor]
    visual: Tensor
    audio: Tensor

    def picture(self, seeds: Tensor, context: Tensor) -> Tensor:
        """The finished crop (B, 3, P, P) from seeds (B, R, 3, P, P) and the unmasked context (B, 3, P, P)."""
        seed = (self.weights[:, :, None] * seeds).sum(1)
        mouth = (1 - self.mask) * (seed + self.residual) + self.mask * self.color
        return self.alpha * mouth + (1 - self.alpha) * context


class Generator(nn.Module):
    """G4G's generator, in the size that its config gives."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        widths, code = config.widths, config.code
        self.speech = SpeechEncoder(config.content, code)
        self.mesh = MeshCodeEncoder(config.maps, config.mesh, code)
        self.face = PictureEncoder(4, config.maps, widths, code)
        self.reference = PictureEncoder(3, 0, widths, code)
        self.reference_code = nn.Parameter(torch.zeros(code))
        self.aligned = nn.ModuleList(AlignedBlock(widths[-1], code) for _ in range(2))
        self.visual_head = nn.Sequential(
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * widths[-1], config.embedding)
        )
        self.audio_head = nn.Linear(code, config.embedding)
        self.temperature = nn.Parameter(torch.tensor(2.3))
        found = widths[::-1][: config.scales]
        self.transforms = nn.ModuleList(
            AdaptiveSpatialTransform(width, 2 * code, config.references, config.reach) for width in found
        )
        self.start = Stage(widths[-1], 2 * code, 2)
        self.first_merge = nn.Conv2d(2 * widths[-1], widths[-1], 1)
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairs)
        last = 4 * 3 * config.references
        self.merge = nn.ModuleList(nn.Conv2d(3 * b + (last if b == widths[0] else 0), b, 1) for _, b in pairs)
        self.stages = nn.ModuleList(Stage(b, 2 * code, 2 if b == widths[0] else 1) for _, b in pairs)
        self.to_picture = nn.ModuleList(nn.Conv2d(width, 3, 1) for width in widths[:0:-1])
        self.head = nn.Conv2d(widths[0], 4 * (config.references + 7), 3, padding=1)
        nn.init.normal_(self.head.weight, std=1e-3)
        nn.init.zeros_(self.head.get_parameter("bias"))
        self.fusion = Fusion(config.fusion) if config.fusion else None

    @classmethod
    def debug(cls) -> "Generator":
        """A tiny random generator for tests."""
        return cls(GeneratorConfig(content=16, code=16, embedding=16, widths=(8, 16, 16))).eval()

    @classmethod
    def from_pretrained(cls, name_or_path: str = "g4g") -> "Generator":
        """Load the shipped generator, or one from a directory or hub id."""
        return build_pretrained(cls, GeneratorConfig, name_or_path)

    def config_dict(self) -> dict[str, Any]:
        """What ``config.json`` holds."""
        return {"class": "Generator", "model": asdict(self.config)}

    # -- alignment -------------------------------------------------------------------------------

    def see(self, context: Tensor, hidden: Tensor, maps: Tensor, mesh: Tensor) -> tuple[list[Tensor], Tensor]:
        """Intra-modal alignment of the masked face to the mesh; arguments as in :class:`GeneratorInputs`.

        Returns:
            Features of the face at every scale, finest first, the coarsest aligned; and the mesh code f_m (B,
            code).
        """
        f_m = self.mesh(maps, mesh)
        picture = torch.cat([context * 2 - 1, hidden], 1)
        pyramid = self.face(picture, maps, f_m if self.config.intra_modal else torch.zeros_like(f_m))
        for block in self.aligned:
            pyramid[-1] = block(pyramid[-1], f_m if self.config.intra_modal else torch.zeros_like(f_m))
        return pyramid, f_m

    def embed_face(self, pyramid: list[Tensor]) -> Tensor:
        """Aligned face embedding (B, embedding), of length 1."""
        return F.normalize(self.visual_head(pyramid[-1]), dim=1)

    def embed_speech(self, f_a: Tensor) -> Tensor:
        """Speech embedding (B, embedding), of length 1."""
        return F.normalize(self.audio_head(f_a), dim=1)

    # -- picture ---------------------------------------------------------------------------------

    def remember(self, references: Tensor) -> list[Tensor]:
        """Features of reference crops (N, 3, P, P) in [0, 1] at every scale; they can be used again."""
        code = self.reference_code.expand(len(references), -1)
        pyramid: list[Tensor] = self.reference(references * 2 - 1, None, code)
        return pyramid

    def forward(self, inputs: GeneratorInputs, remembered: list[Tensor] | None = None) -> GeneratorOutput:
        """Draw a batch.

        Args:
            inputs: of the batch.
            remembered: features of its references (B, R, C, H, W) at every scale, from :meth:`remember`; by
                default they are computed from the crops.
        """
        f_a = self.speech(inputs.content, inputs.level)
        pyramid, f_m = self.see(inputs.context, inputs.hidden, inputs.maps, inputs.mesh)
        if remembered is None:
            shape = inputs.references.shape[:2]
            remembered = [
                torch.unflatten(f, 0, shape) for f in self.remember(inputs.references.flatten(0, 1))
            ]
        code = torch.cat([f_m, f_a], 1)
        deformed, shares = self._deform(pyramid, remembered, inputs, code)
        h = self.start(self.first_merge(torch.cat([pyramid[-1], deformed[-1]], 1)), code)
        scales = []
        for level, (up, merge, stage) in enumerate(zip(self.up, self.merge, self.stages, strict=True)):
            scales.append(torch.sigmoid(self.to_picture[level](h)))
            h = F.interpolate(up(h), scale_factor=2.0, mode="nearest")
            parts = [h, pyramid[-2 - level], deformed[-2 - level]]
            if level == len(self.up) - 1:
                parts.append(F.pixel_unshuffle(inputs.seeds.flatten(1, 2) * 2 - 1, 2))
            h = stage(merge(torch.cat(parts, 1)), code)
        return self._finish(h, shares, inputs, scales, (self.embed_face(pyramid), self.embed_speech(f_a)))

    def _deform(
        self, pyramid: list[Tensor], remembered: list[Tensor], inputs: GeneratorInputs, code: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Reference features at every scale, in place and mixed; logits of the shares at the finest."""
        deformed: list[Tensor] = []
        flow: Tensor | None = None
        shares: Tensor | None = None
        for depth, (face, features) in enumerate(zip(reversed(pyramid), reversed(remembered), strict=True)):
            size = (face.shape[-2], face.shape[-1])
            grids = _resized_grids(inputs.grids, size)
            if depth < len(self.transforms):
                own, logits = self.transforms[depth](face, features, grids, self._masks(inputs, size), code)
                flow = own if flow is None else own + _resized_grids(flow, size)
                shares = logits if shares is None else logits + _resized(shares, size)
            else:
                assert flow is not None  # the coarsest scale has a transform
                assert shares is not None
                flow, shares = _resized_grids(flow, size), _resized(shares, size)
            moved = sample(features, grids + flow)
            deformed.insert(0, (shares.softmax(1)[:, :, None] * moved).sum(1))
        assert shares is not None
        return deformed, shares

    def _masks(self, inputs: GeneratorInputs, size: tuple[int, int]) -> Tensor:
        """Masks (B, 2, h, w) at one scale: what is hidden and the inside of the mouth."""
        inside = F.adaptive_avg_pool2d(inputs.maps[:, 3:4], size)
        return torch.cat([F.adaptive_avg_pool2d(inputs.hidden, size), inside], 1)

    def _finish(
        self,
        h: Tensor,
        shares: Tensor,
        inputs: GeneratorInputs,
        scales: list[Tensor],
        embedded: tuple[Tensor, Tensor],
    ) -> GeneratorOutput:
        """The output from the decoder's last features ``h`` and the logits ``shares`` of the references."""
        count = self.config.references
        out = pixel_shuffle(self.head(F.silu(h)), 2)
        logits, residual, color, mask = torch.split(out, [count, 3, 3, 1], 1)
        contrast = 1.0 if self.training else self.config.choosing
        weights = (contrast * (logits + _resized(shares, (logits.shape[-2], logits.shape[-1])))).softmax(1)
        residual, color, mask = 0.5 * torch.tanh(residual), torch.sigmoid(color), torch.sigmoid(mask - 3)
        if self.fusion is not None:
            mouth = (1 - mask) * ((weights[:, :, None] * inputs.seeds).sum(1) + residual) + mask * color
            tone = self.fusion(mouth, inputs.context, inputs.hidden)
            residual, color = residual + tone, color + tone
        return GeneratorOutput(weights, residual, color, mask, inputs.hidden, scales, *embedded)


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (B, C, h, w) at another size."""
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def _resized_grids(grids: Tensor, size: tuple[int, int]) -> Tensor:
    """Grids or flows (B, R, h, w, 2) at another size; values are relative to the side and do not change."""
    flat = grids.flatten(0, 1).movedim(-1, 1)
    smaller = flat.shape[-1] >= size[-1]
    moved = F.adaptive_avg_pool2d(flat, size) if smaller else _resized(flat, size)
    return torch.unflatten(moved.movedim(1, -1), 0, grids.shape[:2])
