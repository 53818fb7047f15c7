"""Writes a report: figures of many clips as JSON, CSV, contact sheets and an HTML page."""

import csv
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from talkface._version import __version__

CELL_PIXELS = 160  # side of a picture in a contact sheet


def summarise(rows: Sequence[dict[str, Any]], seed: int = 0) -> dict[str, dict[str, float]]:
    """Mean, median, count, and a bootstrap 95 % interval of the mean, of every figure over clips."""
    names = sorted({name for row in rows for name, value in row.items() if isinstance(value, float)})
    return {name: _summary([row[name] for row in rows if name in row], seed) for name in names}


def _summary(values: list[float], seed: int) -> dict[str, float]:
    known = np.array([v for v in values if not math.isnan(v)])
    if not len(known):
        return {"count": 0.0}
    if np.isinf(known).any():  # the PSNR of equal pictures, which has no interval
        return {"mean": math.inf, "median": float(np.median(known)), "count": float(len(known))}
    draws = np.random.default_rng(seed).choice(known, (1000, len(known))).mean(1)
    low, high = np.percentile(draws, [2.5, 97.5])
    figures = {"mean": known.mean(), "median": np.median(known), "low": low, "high": high}
    figures["count"] = len(known)
    return {name: round(float(value), 5) for name, value in figures.items()}


def protocol_hash(settings: dict[str, Any]) -> str:
    """Twelve hexadecimal digits that are the same for two reports if they were made in the same way."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:12]


def headed(settings: dict[str, Any], clips: Sequence[str]) -> dict[str, Any]:
    """The beginning of a report: settings, and a hash of them, of the version and of the clips' names."""
    settings = {**settings, "talkface": __version__}
    return {"protocol": protocol_hash({**settings, "clips": sorted(clips)}), "settings": settings}


def headed_tests(
    settings: dict[str, Any], tests: Mapping[str, Sequence[dict[str, Any]]]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The beginning of a report of several tests, and the rows of all of them, with the test's name."""
    rows = [{"test": test, **row} for test, part in tests.items() for row in part]
    return headed(settings, [f"{row['test']}/{row['name']}" for row in rows]), rows


def members(rows: Sequence[dict[str, Any]]) -> dict[str, list[int]]:
    """Indices of the rows of each group, by the group's name."""
    names = sorted({row["group"] for row in rows})
    return {name: [k for k, row in enumerate(rows) if row["group"] == name] for name in names}


def write(
    folder: Path,
    result: dict[str, Any],
    rows: Sequence[dict[str, Any]],
    strips: Mapping[str, Sequence[np.ndarray]],
) -> None:
    """Write report.json, clips.csv, sheets/*.png and report.html.

    Args:
        folder: Where they go.
        result: What report.json holds.
        rows: The figures of each clip.
        strips: Pictures of each clip, by the name of their contact sheets.
    """
    from talkface.evaluation.page import page

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(result, indent=2) + "\n")
    names = list(dict.fromkeys(name for row in rows for name in row))
    with (folder / "clips.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    sheets = [path for name, part in strips.items() for path in write_sheets(folder / "sheets", part, name)]
    (folder / "report.html").write_text(page(result, sheets))


def strip(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures (H, W, 3) of any size side by side as squares."""
    return np.concatenate([_square(picture) for picture in pictures], 1)


def _square(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    scale = CELL_PIXELS / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    cell = np.full((CELL_PIXELS, CELL_PIXELS, 3), 32, np.uint8)
    top, left = (CELL_PIXELS - small.shape[0]) // 2, (CELL_PIXELS - small.shape[1]) // 2
    cell[top : top + small.shape[0], left : left + small.shape[1]] = small
    return cell


def write_sheets(
    folder: Path, strips: Sequence[np.ndarray], name: str = "sheet", height: int = 2000
) -> list[Path]:
    """Contact sheets, about ``height`` pixels each, as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    rows = max(1, height // max((len(strip) for strip in strips), default=1))
    for start in range(0, len(strips), rows):
        part = strips[start : start + rows]
        width = max(s.shape[1] for s in part)
        sheet = np.concatenate([np.pad(s, ((0, 4), (0, width - s.shape[1]), (0, 0))) for s in part])
        paths.append(folder / f"{name}_{start // rows:02d}.png")
        cv2.imwrite(str(paths[-1]), sheet[:, :, ::-1])
    return paths
