"""Where a picture shows people: MediaPipe's selfie segmentation (Apache-2.0)."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from talkface.face.tfjs import TfjsGraph
from talkface.hub import model_path

_SIDE = 256


class PersonMatte:
    """Tells people from what is behind them.

    Args:
        device: where it runs.

    Raises:
        ModelUnavailable: the model is not here and cannot be fetched.
    """

    def __init__(self, device: str | torch.device = "cpu") -> None:
        paths = model_path("selfie.json"), model_path("selfie.bin")
        self.device = torch.device(device)
        self._network = TfjsGraph(*paths, ("activation_10",)).to(self.device)

    @torch.inference_mode()
    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """How much of each pixel is a person.

        Args:
            images: (H, W, 3) RGB each, 0 to 255, about square.

        Returns:
            (H, W) float32 in [0, 1] each.
        """
        small = [cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) for image in images]
        batch = torch.from_numpy(np.stack(small).astype(np.float32)).clamp(0, 255) / 255
        mattes = self._network(batch.to(self.device))[0][..., 0].float().cpu().numpy()
        return [
            cv2.resize(matte, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
            for matte, image in zip(mattes, images, strict=True)
        ]
