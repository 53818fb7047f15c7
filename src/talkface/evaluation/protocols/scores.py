"""Rows of figures, one per clip, and figures of all clips together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from talkface.evaluation import report
from talkface.evaluation.figures import motion, picture, sync
from talkface.evaluation.figures.distributions import frechet_of_faces
from talkface.evaluation.tracking import TrackedFace

Faces = tuple[np.ndarray, np.ndarray]
Curves = tuple[np.ndarray, np.ndarray]
_MOTION_RATIOS = ("pose_variance", "gaze_std", "jitter", "blinks_per_minute")


@dataclass
class Scores:
    """A row of figures per clip, and what figures of all clips are computed from.

    Attributes:
        rows: Name, group and figures of each clip.
        strips: Pictures of each clip, for the contact sheets.
        generated, real: Tracked faces of each clip; the real lips are those that belong to the sound.
        faces: Descriptors (N, 128) of frames of each clip, real and generated.
        curves: By sync judge, mean distance (31,) of pictures and sound at each shift, generated and real.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    strips: list[np.ndarray] = field(default_factory=list)
    generated: list[TrackedFace] = field(default_factory=list)
    real: list[TrackedFace] = field(default_factory=list)
    faces: list[Faces | None] = field(default_factory=list)
    curves: list[dict[str, Curves]] = field(default_factory=list)

    def add(
        self,
        row: dict[str, Any],
        generated: TrackedFace,
        real: TrackedFace,
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
        whole = {"all": list(range(len(self.rows))), **report.members(self.rows)}
        return {name: self._group(indices) for name, indices in whole.items()}

    def csim_of_strangers(self) -> dict[str, float]:
        """Mean CSIM of each clip's person and the next one's, for comparison; empty for fewer than three."""
        first = [faces[0][0] for faces in self.faces if faces]
        if len(first) < 3:
            return {}
        following = first[1:] + first[:1]
        alike = [picture.cosine(a, b) for a, b in zip(first, following, strict=True)]
        return {"csim_neighbours_in_list": float(np.mean(alike))}

    def _group(self, indices: list[int]) -> dict[str, Any]:
        rows = [self.rows[k] for k in indices]
        made, real = ([which[k] for k in indices] for which in (self.generated, self.real))
        figures: dict[str, Any] = dict(report.summarise(rows))
        speaking = [k for k, row in enumerate(rows) if "aperture_r" in row]
        spoken = [made[k] for k in speaking], [real[k] for k in speaking]
        figures["offset_frames"] = _common_offset(*spoken)
        figures["aperture_r_chance"] = _chance(*spoken)
        figures["ratio_to_real"] = _ratios(rows)
        if sum(map(len, made)) > 500:
            figures |= motion.similarity_of_natural_dynamics(made, real)
        figures |= frechet_of_faces([faces for k in indices if (faces := self.faces[k])])
        return figures | self._mean_curves(indices)

    def _mean_curves(self, indices: list[int]) -> dict[str, list[float]]:
        """Mean distances at each shift, of generated and real videos."""
        means = {}
        for judge in sorted({name for k in indices for name in self.curves[k]}):
            known = [self.curves[k][judge] for k in indices if judge in self.curves[k]]
            for name, which in ((f"{judge}_curve", 0), (f"real_{judge}_curve", 1)):
                means[name] = np.mean([pair[which] for pair in known], 0).round(4).tolist()
        return means


def _common_offset(made: list[TrackedFace], real: list[TrackedFace]) -> float:
    """Lag in frames of the highest mean correlation over clips; positive: the generated lips are late."""
    curves = [
        sync.correlation_curve(a.opening, b.opening, sync.MAX_LAG) for a, b in zip(made, real, strict=True)
    ]
    return float(np.argmax(np.mean(curves, 0)) - sync.MAX_LAG) if curves else float("nan")


def _chance(made: list[TrackedFace], real: list[TrackedFace]) -> float:
    """``aperture_r`` of mismatched clips: each generated one with the next real one."""
    scores = []
    for a, b in zip(made, real[1:] + real[:1], strict=True):
        length = min(len(a), len(b))
        if len(made) > 1 and length > 10:
            scores.append(sync.best_correlation(a.opening[:length], b.opening[:length]))
    return round(float(np.mean(scores)), 4) if scores else float("nan")


def _ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Mean over clips of each generated figure, divided by that of the real one."""
    sync_names = sorted({name for row in rows for name in row if name.endswith(("lse_d", "lse_c"))})
    names = [*_MOTION_RATIOS, *(name for name in sync_names if not name.startswith("real_"))]
    return {n: _ratio(rows, n) for n in names if any(n in row and f"real_{n}" in row for row in rows)}


def _ratio(rows: list[dict[str, Any]], name: str) -> float:
    pairs = [(row[name], row[f"real_{name}"]) for row in rows if name in row and f"real_{name}" in row]
    made, real = np.nanmean(pairs, axis=0)
    return round(float(made) / float(real), 4) if real else float("nan")


def write_tests(
    output: Path,
    settings: dict[str, Any],
    tests: Mapping[str, Scores],
    left_out: Sequence[str],
    whole: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the report of several tests.

    Args:
        output: Folder of the report.
        settings: What the figures depend on beside the clips.
        tests: Scores by test.
        left_out: Names of the clips that could not be scored.
        whole: Figures of all tests together.

    Returns:
        What report.json holds.
    """
    result, rows = report.headed_tests(settings, {test: scores.rows for test, scores in tests.items()})
    result["left_out"] = list(left_out)
    result["tests"] = {test: {"groups": scores.groups()} for test, scores in tests.items()}
    result |= whole
    report.write(output, result, rows, {test: scores.strips for test, scores in tests.items()})
    return result


def write_single(
    output: Path, settings: dict[str, Any], scores: Scores, whole: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the report of a single test; the arguments are those of :func:`write_tests`."""
    result = report.headed(settings, [row["name"] for row in scores.rows])
    result["groups"] = scores.groups()
    result |= {**whole, **scores.csim_of_strangers()}
    report.write(output, result, scores.rows, {"sheet": scores.strips})
    return result
