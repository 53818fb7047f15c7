"""Solves the linear heads of data/attributes.py from a few portraits that were labelled by hand."""

import csv
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from talkface.data.attributes import HEADS, AttributeHeads, measures, portrait_descriptions
from talkface.data.faces import portraits
from talkface.hub import save_pretrained
from talkface.training import ClosedFormTask


@dataclass(frozen=True, kw_only=True)
class AttributeConfig:
    """Settings.

    Attributes:
        labels: a table (TSV) of portraits: ``key``, and in ``attributes`` the HEADS that apply, separated by
            spaces.
        penalty: weight of the squared weights in the ridge regression.
    """

    labels: str = ""
    penalty: float = 300.0


class AttributeTask(ClosedFormTask[AttributeConfig]):
    """Solves the linear heads by ridge regression; they are judged by sixfold cross-validation."""

    def solve(self, output: Path) -> dict[str, float]:
        """Fit the heads, judge them, and save them in ``output``/export."""
        config, album = self.config, {portrait.key: portrait for portrait in portraits(self.manifest)}
        with Path(config.labels).open(newline="") as file:
            rows = [(row["key"], row["attributes"].split()) for row in csv.DictReader(file, delimiter="\t")]
        known = portrait_descriptions(self.manifest, list(album.values()))
        design = np.stack([measures(album[key].image(), album[key].points, known[key]) for key, _ in rows])
        labels = np.array([[float(name in said) for name in HEADS] for _, said in rows])
        metrics = _cross_validated(design, labels, config.penalty)
        heads = AttributeHeads.solve(design, labels, config.penalty)
        state = {field.name: torch.from_numpy(getattr(heads, field.name)) for field in fields(heads)}
        save_pretrained(output / "export", {"class": "AttributeHeads", "metrics": metrics}, state, card=None)
        return metrics


def _cross_validated(measures: np.ndarray, labels: np.ndarray, penalty: float) -> dict[str, float]:
    """Area under the curve of each head on portraits that it was not fitted to."""
    scores = np.zeros_like(labels)
    fold = np.arange(len(labels)) % 6
    for held in range(6):
        heads = AttributeHeads.solve(measures[fold != held], labels[fold != held], penalty)
        scores[fold == held] = [list(heads(row).values()) for row in measures[fold == held]]
    return {f"val_auc_{name}": _auc(scores[:, k], labels[:, k]) for k, name in enumerate(HEADS)}


def _auc(scores: np.ndarray, labels: np.ndarray) -> float:
    ranks, positive = scores.argsort().argsort(), int(labels.sum())
    negative = len(labels) - positive
    return float((ranks[labels > 0].sum() - positive * (positive - 1) / 2) / max(1, positive * negative))
