"""What comes back from a machine with a borrowed GPU: models, cut into parts of a size, and one report.

The machine may be taken back at any moment, so the folder is always complete: parts are written under names
of their own first, and the report, which names them and their SHA-256, replaces the older one last.
"""

import hashlib
import io
import json
import logging
import os
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from talkface.errors import InvalidOption
from talkface.hub import CONFIG, WEIGHTS
from talkface.training.measure import read_figures

logger = logging.getLogger(__name__)

PART_BYTES, MOST_PARTS = 15 * 2**20, 7
"""Most bytes of a part, and most parts: with the report they are eight files."""
REPORT, SHEET = "report.json", "samples.jpg"
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # the same for all: the same models give the same bytes


class GpuResults:
    """The folder that a run of trainings brings back: the best models so far, and the report.

    Attributes:
        out: the folder.
        report: content of the report.
    """

    def __init__(self, out: Path) -> None:
        self.out = Path(out)
        self.report: dict[str, Any] = {"parts": [], "trainings": {}}
        self.out.mkdir(parents=True, exist_ok=True)
        self._models: dict[str, dict[str, bytes]] = {}
        self._marks: dict[str, str | None] = {}

    def send(self, name: str, model: str, run: Path, wanted: bool, ended: int | None = None) -> None:
        """Add what a training has exported since the last call, and write everything anew.

        Args:
            name: of the training.
            model: what it trains.
            run: its folder.
            wanted: whether the model itself is to come back.
            ended: how the training's process ended, if it did.
        """
        mark = _mark(run / "export")
        if mark == self._marks.get(model) and ended is None:
            return
        files = _files(run) if mark != self._marks.get(model) else None
        if files is None and ended is None:
            return
        if files:
            self._marks[model] = mark
        if files and wanted:
            self._models[model] = files
        state = {"model": model, "mark": self._marks.get(model), "ended": ended} | read_figures(run)
        if ended:
            state["error"] = (run / "output.log").read_text(errors="replace")[-2000:]
        self.report["trainings"][name] = state
        self._write(model)

    def _write(self, newest: str) -> None:
        """Write all models and the report; leave the newest model out where it does not fit."""
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for model, files in self._models.items():
                for name, data in files.items():
                    archive.writestr(zipfile.ZipInfo(f"{model}/{name}", _ZIP_DATE), data)
        data = file.getvalue() if self._models else b""
        pieces = [data[k : k + PART_BYTES] for k in range(0, len(data), PART_BYTES)]
        if len(pieces) > MOST_PARTS:
            logger.warning(
                "%d MiB do not fit into %d parts: %s is left out", len(data) >> 20, MOST_PARTS, newest
            )
            self.report.setdefault("left_out", []).append(newest)
            del self._models[newest]
            self._write(newest)
            return
        parts = []
        for piece in pieces:
            digest = hashlib.sha256(piece).hexdigest()
            parts.append({"name": f"{digest[:16]}.part", "sha256": digest, "bytes": len(piece)})
            _put(self.out / f"{digest[:16]}.part", piece)
        self.report["parts"] = parts
        _put(self.out / REPORT, json.dumps(self.report, indent=1).encode())
        for old in set(self.out.glob("*.part")) - {self.out / str(part["name"]) for part in parts}:
            old.unlink()


def join(folder: Path, target: Path) -> dict[str, Any]:
    """The report of a run, and its models as directories in ``target``.

    Raises:
        InvalidOption: it is no such folder, or a part is missing or damaged.
    """
    try:
        report: dict[str, Any] = json.loads((folder / REPORT).read_text())
    except (OSError, ValueError) as error:
        raise InvalidOption(f"{folder} holds no {REPORT}: give the folder that `train` wrote") from error
    pieces = []
    for part in report["parts"]:
        piece = (folder / part["name"]).read_bytes() if (folder / part["name"]).is_file() else b""
        if hashlib.sha256(piece).hexdigest() != part["sha256"]:
            raise InvalidOption(
                f"{folder / part['name']} is {'damaged' if piece else 'missing'}: copy it again"
            )
        pieces.append(piece)
    if pieces:
        with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
            archive.extractall(target)
    return report


def complete(export: Path) -> dict[str, bytes] | None:
    """Config and weights of an export; None while it is being written.

    The config holds the weights' SHA-256.
    """
    with suppress(OSError, ValueError, KeyError):
        found = {name: (export / name).read_bytes() for name in (CONFIG, WEIGHTS)}
        if hashlib.sha256(found[WEIGHTS]).hexdigest() == json.loads(found[CONFIG])["_sha256"]:
            return found
    return None


def _mark(export: Path) -> str | None:
    """SHA-256 of the weights that an export's config tells."""
    with suppress(OSError, ValueError, KeyError):
        return str(json.loads((export / CONFIG).read_text())["_sha256"])
    return None


def _files(run: Path) -> dict[str, bytes] | None:
    """A model's files, and the last contact sheet that was drawn of it; None while they are being written."""
    found = complete(run / "export")
    if found is None:
        return None
    sheets = sorted((run / "samples").glob("*.png"))
    if sheets:
        from PIL import Image

        file = io.BytesIO()
        with suppress(OSError):  # it may be being written
            Image.open(sheets[-1]).convert("RGB").save(file, "JPEG", quality=88)
            found[SHEET] = file.getvalue()
    return found


def _put(path: Path, data: bytes) -> None:
    """Write a file so that it is there as a whole or not at all."""
    if path.suffix == ".part" and path.is_file():
        return
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_bytes(data)
    os.replace(partial, path)
