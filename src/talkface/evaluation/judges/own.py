"""This project's own judge of sync: the evaluation expert (G4G's sync expert of another architecture)."""

import logging
from functools import cache

import numpy as np
import torch

from talkface.errors import ModelUnavailable
from talkface.evaluation.judges.sync import fingerprint
from talkface.face.crop import MOUTH_REGION, region_matrix
from talkface.speech.features import ContentEncoder, FeatureStream
from talkface.systems.g4g.experts import SYNC_CROP_PIXELS, SyncExpert

logger = logging.getLogger(__name__)


class OwnJudge:
    """The evaluation expert, another architecture trained on other clips than the generator's loss has.

    Args:
        name_or_path: The shipped weights, or others of a directory or hub id.

    Raises:
        ModelUnavailable: There are none.
    """

    name, crop_pixels, padded = "lse", SYNC_CROP_PIXELS, False

    def __init__(self, name_or_path: str = "sync-evaluation") -> None:
        self._network = SyncExpert.from_pretrained(name_or_path)
        self._features = FeatureStream(ContentEncoder.from_pretrained())
        self.identity = f"{name_or_path} {fingerprint(self._network)}"

    def matrices(self, points: np.ndarray) -> np.ndarray:
        """Crops of the mouth, upright along the eyes."""
        scale = self.crop_pixels / MOUTH_REGION.pixels
        return np.stack([region_matrix(mesh, MOUTH_REGION) * scale for mesh in points])

    @torch.inference_mode()
    def embed_crops(self, crops: np.ndarray) -> np.ndarray:
        """See :class:`talkface.evaluation.judges.sync.SyncJudge`."""
        mouths = torch.from_numpy(crops).movedim(-1, 1).float() / 255
        return self._network.embed_video(mouths[None])[0].numpy()

    @torch.inference_mode()
    def embed_sound(self, samples: np.ndarray) -> np.ndarray:
        """See :class:`talkface.evaluation.judges.sync.SyncJudge`."""
        stretches = list(self._features([samples]))
        content = torch.cat([stretch.content for stretch in stretches])
        level = torch.cat([stretch.level for stretch in stretches])
        whole = len(level) // 2 * 2
        return self._network.embed_audio(content[None, :whole], level[None, :whole])[0].numpy()


@cache
def own_judge() -> OwnJudge | None:
    """The project's judge, or None where its weights are missing: its figures are then left out."""
    try:
        return OwnJudge()
    except (ModelUnavailable, ImportError) as error:
        logger.warning("LSE-D and LSE-C are left out: %s", error)
        return None
