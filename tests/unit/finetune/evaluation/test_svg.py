"""Plots: everything is drawn inside, nothing of a label is markup."""

from __future__ import annotations

import math
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from finetune.evaluation.statistics import Estimate
from finetune.evaluation.svg import Line, Row, curves, intervals

VALUES = st.floats(-1e9, 1e9)
PLACES = ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy")


def _drawn(svg: str) -> ElementTree.Element:
    root = ElementTree.fromstring(svg)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for each in root.iter():
        for name in PLACES:
            if name in each.attrib:
                limit = width if "x" in name else height
                assert -0.1 <= float(each.attrib[name]) <= limit + 0.1, each.attrib
    return root


def _count(root: ElementTree.Element, tag: str) -> int:
    return sum(1 for each in root.iter() if each.tag.endswith(tag))


@given(st.lists(st.tuples(st.integers(0, 10**6), VALUES), max_size=30))
def test_any_curve_stays_inside(points: list[tuple[int, float]]) -> None:
    root = _drawn(curves("Loss", "step", [Line("training", points, 0)]))
    assert _count(root, "polyline") == bool(points)


@given(st.lists(st.tuples(VALUES, VALUES, VALUES), max_size=8))
def test_any_intervals_stay_inside(found: list[tuple[float, float, float]]) -> None:
    rows = [Row("m", [Estimate(*(sorted(each)[i] for i in (1, 0, 2)))]) for each in found]
    root = _drawn(intervals("Answers", rows, [("candidate", 2)]))
    assert _count(root, "circle") == len(rows) + 1, "one a row, and one in the legend"


def test_what_is_not_finite_is_left_out() -> None:
    line = Line("training", [(1, 2.0), (2, math.nan), (3, math.inf)], 0)
    assert _count(_drawn(curves("Loss", "step", [line])), "circle") == 2
    row = Row("m", [Estimate(math.nan), None, Estimate(1.0)])
    series = [("base", 0), ("live", 1), ("candidate", 2)]
    assert _count(_drawn(intervals("Answers", [row], series)), "circle") == 4


def test_labels_are_only_text() -> None:
    label = '</text><script>"&\x00\ud800'
    svg = intervals(label, [Row(label, [Estimate(1.0)])], [(label, 0)])
    root = _drawn(svg)
    assert _count(root, "script") == 0
    texts = [each.text for each in root.iter() if each.tag.endswith("text")]
    assert any(text and text.startswith("</text><script>") for text in texts)
