"""A report as one self-contained HTML file."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import cv2

from talkface.evaluation.tables import Table, tables_of

_PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>talkface evaluate: $title</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1200px; padding: 0 1em }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .15em .8em; text-align: left; border-bottom: 1px solid #ddd }
img { max-width: 100%; display: block; margin-bottom: 1em }
.note { color: #666 }
</style>
<h1>talkface evaluate: $title</h1>
<p class="note">Protocol $protocol: $settings. Means over clips, with bootstrap
95&nbsp;% confidence intervals.</p>
$tables
$plots
$sheets
</html>
""")
_PLOT = Template("""<figure>
<svg width="480" height="200" viewBox="0 0 480 200" role="img" aria-label="$title">
<line x1="240" y1="10" x2="240" y2="170" stroke="#ccc"/>
<polyline points="$real" fill="none" stroke="#999" stroke-width="2"/>
<polyline points="$generated" fill="none" stroke="#c33" stroke-width="2"/>
<text x="10" y="192" font-size="12">-$reach frames</text>
<text x="400" y="192" font-size="12">+$reach frames</text>
<text x="10" y="14" font-size="12">$high</text>
<text x="10" y="172" font-size="12">$low</text>
</svg>
<figcaption>$title: mean distance of picture and sound embeddings at each shift
(grey: real video)</figcaption>
</figure>""")


def page(result: dict[str, Any], sheets: Sequence[Path]) -> str:
    """HTML of a report.

    Args:
        result: The figures, as in report.json.
        sheets: Contact sheets; the page holds them.
    """
    settings = ", ".join(f"{name} {value}" for name, value in result["settings"].items())
    return _PAGE.substitute(
        title=escape(str(result["settings"]["system"])),
        protocol=result["protocol"],
        settings=escape(settings),
        tables="\n".join(map(_table, tables_of(result))),
        plots="\n".join(_plots(result)),
        sheets="\n".join(map(_sheet, sheets)),
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in ("figure", "", *table.columns, "meaning"))
    lines = [
        "".join(f"<td>{escape(cell)}</td>" for cell in (figure.name, figure.better, *cells, figure.meaning))
        for figure, cells in table.rows
    ]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f"<h2>{escape(table.title)}</h2>\n<table>\n<tr>{head}</tr>\n{body}\n</table>"


def _plots(result: dict[str, Any]) -> list[str]:
    """Distances over shifts, of every test and sync judge."""
    parts = result["tests"] if "tests" in result else {result["settings"]["system"]: result}
    return [
        _plot(f"{name}, {key.removesuffix('_curve')}", curve, part["groups"]["all"][f"real_{key}"])
        for name, part in parts.items()
        for key, curve in part["groups"].get("all", {}).items()
        if key.endswith("_curve") and not key.startswith("real_")
    ]


def _plot(title: str, generated: list[float], real: list[float]) -> str:
    low, high = min(generated + real), max(generated + real)

    def line(values: list[float]) -> str:
        places = [
            (460 * k / (len(values) - 1) + 10, 170 - 160 * (value - low) / (high - low or 1))
            for k, value in enumerate(values)
        ]
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)

    limits = {"low": f"{low:.2f}", "high": f"{high:.2f}", "reach": len(real) // 2}
    return _PLOT.substitute(limits, title=escape(title), generated=line(generated), real=line(real))


def _sheet(path: Path) -> str:
    """A contact sheet as JPEG; the PNG lies beside the page."""
    picture = cv2.imread(str(path))
    assert picture is not None, f"{path} has just been written"
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    text = base64.b64encode(data.tobytes()).decode()
    return (
        f'<h3>{escape(path.stem)}</h3>\n<img alt="{escape(path.stem)}" src="data:image/jpeg;base64,{text}">'
    )
