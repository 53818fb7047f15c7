"""Figures as tables of text, for the terminal and the HTML page; tables.toml lists the figures."""

import math
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

_JUDGES = {"lse": "evaluation expert", "syncnet_lse": "SyncNet"}
# Sections of tables.toml: for reports of several tests, where the head's motion is that of the source or
# imagined, so that comparing it says nothing; for reports of a single test.
_OF_TESTS = ("sync", "judge", "fill", "picture", "imagine")
_OF_SINGLE = ("sync", "judge", "picture", "motion")


@dataclass(frozen=True)
class Figure:
    """A figure in the tables.

    Attributes:
        name: Its key in the report; a dot leads into a dictionary.
        better: Which way is better: up, down, or towards a number.
        meaning: What it is.
        digits: After the decimal point.
    """

    name: str
    better: str
    meaning: str
    digits: int = 3


@dataclass(frozen=True)
class Table:
    """Cells of text.

    Attributes:
        title: Above it.
        columns: Heads of the columns after the first two, which are name and direction.
        rows: The figure and its cells.
    """

    title: str
    columns: list[str]
    rows: list[tuple[Figure, list[str]]]


@cache
def figures_of(section: str) -> tuple[Figure, ...]:
    """The figures of a section of tables.toml, in order; those of judges for each judge."""
    text = files("talkface.evaluation").joinpath("tables.toml").read_text(encoding="utf-8")
    rows = tomllib.loads(text)[section].items()
    if section != "judge":
        return tuple(Figure(name, *row) for name, row in rows)
    return tuple(
        Figure(name.format(judge=judge), better, meaning.format(whose=whose), *digits)
        for judge, whose in _JUDGES.items()
        for name, (better, meaning, *digits) in rows
    )


def tables_of(result: dict[str, Any]) -> list[Table]:
    """The tables of a report: one, or one for each test; a column for each group of clips."""
    if "tests" in result:
        return [_table(test, part["groups"], _OF_TESTS) for test, part in result["tests"].items()]
    return [_table(result["settings"]["system"], result["groups"], _OF_SINGLE)]


def _table(title: str, groups: dict[str, dict[str, Any]], sections: tuple[str, ...]) -> Table:
    # With a single group, the column of all clips would only repeat it.
    shown = groups if len(groups) > 2 else dict(list(groups.items())[:1])
    columns = [f"{name} ({_clips(group)})" for name, group in shown.items()]
    figures = [figure for section in sections for figure in figures_of(section)]
    rows = [(figure, [_cell(group, figure) for group in shown.values()]) for figure in figures]
    return Table(title, columns, [row for row in rows if any(row[1])])


def _clips(group: dict[str, Any]) -> int:
    """How many clips a group has: the largest count of its figures."""
    counts = [value["count"] for value in group.values() if isinstance(value, dict) and "count" in value]
    return max(map(round, counts), default=0)


def _cell(group: dict[str, Any], figure: Figure) -> str:
    """Mean and interval, or the number; empty if there is none."""
    value: Any = group
    for key in figure.name.split("."):
        value = value.get(key, {}) if isinstance(value, dict) else {}
    if not isinstance(value, dict):
        return "" if math.isnan(value) else f"{value:.{figure.digits}f}"
    if "mean" not in value:
        return ""
    mean, *interval = (f"{value[key]:.{figure.digits}f}" for key in ("mean", "low", "high") if key in value)
    return f"{mean} [{', '.join(interval)}]" if interval else mean
