"""Summaries, the protocol's hash and tables."""

import math

import pytest

from talkface.evaluation.report import protocol_hash, summarise
from talkface.evaluation.tables import figures_of, tables_of


def test_summary_leaves_out_what_is_unknown() -> None:
    figures = summarise([{"a": 1.0}, {"a": 3.0}, {"a": float("nan")}, {"name": "x"}])["a"]
    assert figures["mean"] == 2.0
    assert figures["count"] == 2
    assert figures["low"] <= 2.0 <= figures["high"]


def test_summary_of_equal_pictures_is_infinite() -> None:
    assert summarise([{"a": float("inf")}, {"a": 3.0}])["a"]["mean"] == float("inf")


def test_protocols_differ_when_anything_does() -> None:
    assert protocol_hash({"clips": ["a"]}) == protocol_hash({"clips": ["a"]})
    assert protocol_hash({"clips": ["a"]}) != protocol_hash({"clips": ["b"]})


@pytest.mark.parametrize("section", ["sync", "judge", "fill", "picture", "motion", "imagine"])
def test_every_figure_of_the_tables_is_explained(section: str) -> None:
    figures = figures_of(section)
    assert len({figure.name for figure in figures}) == len(figures)
    for figure in figures:
        assert figure.meaning
        assert figure.better in ("", "↑", "↓", "→0", "→1")
        assert "{" not in figure.name + figure.meaning


def test_tables_show_means_with_intervals_and_leave_out_what_is_unknown() -> None:
    known = {"mean": 0.5, "median": 0.5, "low": 0.25, "high": 0.75, "count": 4.0}
    equal = {"mean": math.inf, "median": math.inf, "count": 3.0}
    group = {
        "aperture_r": known,
        "frame_psnr": equal,
        "offset_frames": 1.0,
        "aperture_r_chance": math.nan,
        "source_r": {"count": 0.0},
        "ratio_to_real": {"lse_d": 1.5},
    }
    result = {"settings": {"system": "pairs"}, "groups": {"all": group, "pairs": group}}
    (table,) = tables_of(result)
    assert table.columns == ["all (4)"]
    assert {figure.name: cells for figure, cells in table.rows} == {
        "aperture_r": ["0.500 [0.250, 0.750]"],
        "offset_frames": ["1"],
        "ratio_to_real.lse_d": ["1.500"],
        "frame_psnr": ["inf"],
    }
