"""Sizes of the face LDM's parts. The defaults are the compact preset."""

from dataclasses import dataclass

COMPACT_PIXELS = 256
"""Side of the pictures that the compact face LDM makes."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Autoencoder: eight times smaller, four channels.

    Attributes:
        channels: of the latents.
        encoder: widths at a quarter and at an eighth of the picture's size.
        decoder: widths at an eighth, a quarter and half of it.
        blocks: of the decoder at these sizes; the encoder has one and two.
    """

    channels: int = 4
    encoder: tuple[int, int] = (64, 128)
    decoder: tuple[int, ...] = (192, 96, 32)
    blocks: tuple[int, int, int] = (3, 2, 1)


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """U-Net, text encoder and mesh encoder.

    Attributes:
        widths: of the U-Net at an eighth of the picture's size, a sixteenth and so on.
        attention: whether there is self- and cross-attention at each size; it is costly at large ones.
        layers: residual blocks at each size.
        heads: of attention.
        channels: of the latents.
        text: width of the tokens.
        text_layers: of the text encoder.
        mesh: channels that the mesh encoder adds to the latents; 0 for none.
        mirrored: whether the U-Net is given the mirror image of the latents, too: without it the two eyes
            meet only in its smallest layers, and come out unlike each other.
        spectrum: amplitude of samples over that of real latents, at 1, 2, ... cycles a side; measured after
            training.
        steps: of the sampler that it was distilled to; 0 if it was not.
        guided: whether classifier-free guidance was distilled into the velocity, which is then computed once
            a step, not twice.
    """

    widths: tuple[int, ...] = (64, 128, 256)
    attention: tuple[bool, ...] = (False, True, True)
    layers: int = 1
    heads: int = 8
    channels: int = 4
    text: int = 192
    text_layers: int = 2
    mesh: int = 16
    mirrored: bool = True
    spectrum: tuple[float, ...] = ()
    steps: int = 0
    guided: bool = False

    @property
    def inputs(self) -> int:
        """Channels that the U-Net is given."""
        return self.channels * (2 if self.mirrored else 1) + self.mesh
