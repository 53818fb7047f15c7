"""Rows of figures, one a clip, and what can only be told from all clips together."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from talkface.evaluation import report
from talkface.evaluation.figures import motion, picture, sync
from talkface.evaluation.figures.performance import Performance

Faces = tuple[np.ndarray, np.ndarray]
Curves = tuple[np.ndarray, np.ndarray]
_RATIOS = ("pose_variance", "gaze_std", "jitter", "blinks_per_minute")


@dataclass
class Scores:
    """A row of figures per clip, and what can only be compared over all clips.

    Attributes:
        rows: name, group and figures of each clip.
        strips: pictures of each clip, for the contact sheets.
        generated, real: performances of each clip; the real lips are those that belong to the sound.
        faces: descriptors (N, 128) of frames of each clip, real and generated.
        curves: by expert, mean distance (31,) of pictures and sound at each shift, generated and real.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    strips: list[np.ndarray] = field(default_factory=list)
    generated: list[Performance] = field(default_factory=list)
    real: list[Performance] = field(default_factory=list)
    faces: list[Faces | None] = field(default_factory=list)
    curves: list[dict[str, Curves]] = field(default_factory=list)

    def add(
        self,
        row: dict[str, Any],
        generated: Performance,
        real: Performance,
        strip: np.ndarray,
        faces: Faces | None = None,
        curves: dict[str, Curves] | None = None,
    ) -> None:
        """Add a clip."""
        self.rows.append(row)
        self.generated.append(generated)
        self.real.append(real)
        self.strips.append(strip)
        self.faces.append(faces)
        self.curves.append(curves or {})

    def groups(self) -> dict[str, dict[str, Any]]:
        """Figures over all clips, and by group."""
        names = sorted({row["group"] for row in self.rows})
        members = {name: [k for k, row in enumerate(self.rows) if row["group"] == name] for name in names}
        whole = {"all": list(range(len(self.rows))), **members}
        return {name: self._group(indices) for name, indices in whole.items()}

    def strangers(self) -> dict[str, float]:
        """CSIM of each clip's person with the next one's, for comparison; empty for fewer than three."""
        first = [faces[0][0] for faces in self.faces if faces]
        if len(first) < 3:
            return {}
        following = first[1:] + first[:1]
        alike = [picture.likeness(a, b)["csim"] for a, b in zip(first, following, strict=True)]
        return {"csim_neighbours_in_list": float(np.mean(alike))}

    def _group(self, indices: list[int]) -> dict[str, Any]:
        rows = [self.rows[k] for k in indices]
        made, real = ([which[k] for k in indices] for which in (self.generated, self.real))
        figures: dict[str, Any] = dict(report.summarise(rows))
        tells = [k for k, row in enumerate(rows) if "aperture_r" in row]
        figures["offset_frames"] = _common_offset([made[k] for k in tells], [real[k] for k in tells])
        figures["aperture_r_chance"] = _chance([made[k] for k in tells], [real[k] for k in tells])
        figures["ratio_to_real"] = _ratios(rows)
        if sum(map(len, made)) > 500:
            figures |= motion.similarity_of_natural_dynamics(made, real)
        figures |= picture.frechet_of_faces([faces for k in indices if (faces := self.faces[k])])
        return figures | self._mean_curves(indices)

    def _mean_curves(self, indices: list[int]) -> dict[str, list[float]]:
        """Mean distances at each shift, of generated and real videos."""
        means = {}
        for expert in sorted({name for k in indices for name in self.curves[k]}):
            known = [self.curves[k][expert] for k in indices if expert in self.curves[k]]
            for name, which in ((f"{expert}_curve", 0), (f"real_{expert}_curve", 1)):
                means[name] = np.mean([pair[which] for pair in known], 0).round(4).tolist()
        return means


def _common_offset(made: list[Performance], real: list[Performance]) -> float:
    """Lag in frames of the highest mean correlation over clips; positive: the generated lips are late."""
    curves = [
        sync.correlation_curve(a.opening, b.opening, sync.SEARCH) for a, b in zip(made, real, strict=True)
    ]
    return float(np.argmax(np.mean(curves, 0)) - sync.SEARCH) if curves else float("nan")


def _chance(made: list[Performance], real: list[Performance]) -> float:
    """aperture_r over mismatched clips: each generated one against the next real one."""
    scores = []
    for a, b in zip(made, real[1:] + real[:1], strict=True):
        length = min(len(a), len(b))
        if len(made) > 1 and length > 10:
            scores.append(sync.best_correlation(a.opening[:length], b.opening[:length]))
    return round(float(np.mean(scores)), 4) if scores else float("nan")


def _ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Means over clips of generated figures over the means of the real ones."""
    sync_names = sorted({name for row in rows for name in row if name.endswith(("lse_d", "lse_c"))})
    names = [*_RATIOS, *(name for name in sync_names if not name.startswith("real_"))]
    return {n: _ratio(rows, n) for n in names if any(n in row and f"real_{n}" in row for row in rows)}


def _ratio(rows: list[dict[str, Any]], name: str) -> float:
    pairs = [(row[name], row[f"real_{name}"]) for row in rows if name in row and f"real_{name}" in row]
    made, real = np.nanmean(pairs, axis=0)
    return round(float(made) / float(real), 4) if real else float("nan")
