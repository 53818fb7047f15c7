"""Measures how far sound and picture of every clip are apart, with a first motion model."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from talkface.data.manifest import Manifest
from talkface.face.model import FaceModel
from talkface.nn.marks import check_built_on
from talkface.performance.lip_shape import lip_readout
from talkface.performance.model import MotionModel
from talkface.training import ClosedFormTask
from talkface.training.datasets.clips import ClipReader
from talkface.training.tasks.thpad_motion import MotionTrainConfig, marks_of, predict


def measure_sync(
    motion_model: str, config: MotionTrainConfig, manifest: Manifest, reference: float = -0.5, lags: int = 5
) -> dict[str, float | None]:
    """Estimate how far sound and picture of every clip are apart and write ``sync.json`` for later trainings.

    A first model trained on uncorrected clips learns the average offset; its prediction is compared with each
    clip. Offsets are in frames, relative to ``reference``, the offset of the corpora recorded in a studio.
    Clips whose best correlation is below 0.3 or at the end of the range get None and train nothing.
    """
    face = FaceModel.from_pretrained(config.face_model)
    reader = ClipReader(manifest, face, config.features, config.encoder)
    reader.offsets = {}
    check_built_on(motion_model, marks_of(reader))
    model = MotionModel.from_pretrained(motion_model)
    readout, offsets = lip_readout(face), {}
    for item in reader.items("train"):
        example = reader.read(item)
        predicted, real = predict(model, example) @ readout, example.beta_mouth @ readout
        lag, best = fractional_lag(predicted[:, 0], real[:, 0], lags)
        offsets[item.key] = None if best < 0.3 or abs(lag) > lags - 0.6 else round(lag - reference, 2)
    (manifest.directory / "sync.json").write_text(json.dumps(offsets))
    return offsets


@dataclass(frozen=True, kw_only=True)
class SyncConfig:
    """Where the first motion model lies and how it was trained."""

    motion: MotionTrainConfig = field(default_factory=MotionTrainConfig)
    motion_model: str = "runs/thpad-motion-first/export"


class SyncTask(ClosedFormTask[SyncConfig]):
    """The recipe's entry for :func:`measure_sync`."""

    def solve(self, output: Path) -> dict[str, float]:
        """Write sync.json into the prepared folder with the first model's estimates."""
        offsets = measure_sync(self.config.motion_model, self.config.motion, self.manifest)
        known = [abs(value) for value in offsets.values() if value is not None]
        return {
            "clips": float(len(offsets)),
            "in_sync": float(len(known)),
            "median_offset": float(np.median(known)) if known else float("nan"),
        }


def fractional_lag(predicted: np.ndarray, real: np.ndarray, lags: int) -> tuple[float, float]:
    """Lag in frames (positive: prediction late) of the highest correlation, by a parabola; and that one."""
    scores = []
    for lag in range(-lags, lags + 1):
        a = predicted[max(0, lag) : len(predicted) + min(0, lag)]
        b = real[max(0, -lag) : len(real) + min(0, -lag)]
        varied = len(a) > 10 and a.std() > 1e-6 and b.std() > 1e-6
        scores.append(float(np.corrcoef(a, b)[0, 1]) if varied else -1.0)
    k = int(np.argmax(scores))
    if 0 < k < 2 * lags:
        left, middle, right = scores[k - 1 : k + 2]
        bend = left - 2 * middle + right
        return k - lags + (0.5 * (left - right) / bend if bend < 0 else 0.0), scores[k]
    return float(k - lags), scores[k]
