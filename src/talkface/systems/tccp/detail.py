"""Detail that latents cannot hold: the face of the moved reference, in the light of the drawn picture."""

import numpy as np

from talkface.systems.tccp.border import continued, membrane


def with_reference(drawn: np.ndarray, moved: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """A drawn picture whose face is the moved reference's.

    The difference of the two around the face is interpolated into it as a membrane, so that colours and light
    are those of the drawn picture; what is around the face does not change.

    Args:
        drawn: (H, W, 3) float32, 0 to 255, from latents.
        moved: (H, W, 3) the reference, moved to where it was drawn.
        inside: (H, W) float32 in [0, 1] where the face is, 0 in most of the picture.

    Returns:
        (H, W, 3) float32.
    """
    free = inside > 0
    if free.all() or not free.any():
        return drawn
    moved = moved.astype(np.float32)
    apart = membrane(continued(drawn - moved, (~free).astype(np.float32)), free)
    detailed: np.ndarray = drawn + inside[..., None] * (moved + apart - drawn)
    return detailed
