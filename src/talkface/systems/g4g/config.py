"""Sizes of G4G's networks. ``compact`` is what the package ships; ``paper`` is the published scale."""

from dataclasses import dataclass

from talkface.face.coefficients import MOUTH_COEFFICIENTS, ROTATION
from talkface.face.draw import MAP_CHANNELS


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """Architecture of :class:`~talkface.systems.g4g.model.Generator`.

    Attributes:
        pixels: side of the mouth crop.
        content: content features per 20 ms.
        code: size of the codes that modulate.
        embedding: size of the space in which faces and speech are aligned.
        widths: channels at 1/2, 1/4, ... of the crop's side.
        references: reference frames per frame.
        reach: how far the adaptive spatial transform may move a feature, as a share of the crop's side.
        scales: at how many of the coarser scales the adaptive spatial transform finds its own flow.
        choosing: factor on the logits of the references' shares outside of training. Above 1 the best
            reference dominates; a mean of several would be blurred.
        maps: channels of the mesh maps (:func:`~talkface.face.draw.mesh_maps`).
        mesh: size of the mesh code (:func:`~talkface.systems.g4g.geometry.mesh_code`).
        intra_modal: modulate the masked face by the mesh (off: an ablation).
        seeded: MeshWarp puts the references in place first (off: an ablation).
        fusion: channels of the fusion network (0: none, an ablation; the mask alone blends).
    """

    pixels: int = 128
    content: int = 512
    code: int = 128
    embedding: int = 128
    widths: tuple[int, ...] = (24, 48, 64)
    references: int = 2
    reach: float = 0.06
    scales: int = 2
    choosing: float = 3.0
    maps: int = MAP_CHANNELS
    mesh: int = MOUTH_COEFFICIENTS + ROTATION
    intra_modal: bool = True
    seeded: bool = True
    fusion: int = 16


PAPER = GeneratorConfig(
    pixels=256,
    content=512,
    code=512,
    embedding=512,
    widths=(64, 128, 256, 512),
    references=5,
    scales=3,
    fusion=24,
)
