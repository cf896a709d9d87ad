"""Plots as SVG: curves, and values with their intervals. Text by hand, so that colours follow
the reader's light or dark theme and no label can be taken for markup."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from finetune.evaluation.safe_text import html_text
from finetune.evaluation.statistics import Estimate

_WIDTH = 640
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 20, 44, 36
_STYLE = """<style>
.plot{font:12px system-ui,sans-serif;--ink:#222;--grid:#ddd;--c0:#8a8f98;--c1:#c77700;--c2:#0b6bcb}
@media(prefers-color-scheme:dark){.plot{--ink:#ddd;--grid:#444;--c0:#9aa0aa;--c1:#f0a030;--c2:#5aa9f5}}
.plot text{fill:var(--ink)}.plot .grid{stroke:var(--grid)}.plot .title{font-weight:600}
.plot .s0{color:var(--c0)}.plot .s1{color:var(--c1)}.plot .s2{color:var(--c2)}
</style>"""


@dataclass(frozen=True)
class Line:
    """One curve; points that are not finite are left out."""

    label: str
    points: Sequence[tuple[float, float]]
    series: int
    """Which colour: 0, 1 or 2."""


@dataclass(frozen=True)
class Row:
    """One named group of values, one for each series; None where there is none."""

    label: str
    values: Sequence[Estimate | None]


def curves(title: str, x_label: str, lines: Sequence[Line]) -> str:
    """Curves over a common axis."""
    finite = [
        Line(each.label, [p for p in each.points if all(map(math.isfinite, p))], each.series)
        for each in lines
    ]
    drawn = [each for each in finite if each.points]
    height = 320
    every = [point for line in drawn for point in line.points] or [(0.0, 0.0)]
    across = _Axis([x for x, _ in every], _LEFT, _WIDTH - _RIGHT, whole=True)
    up = _Axis([y for _, y in every], height - _BOTTOM, _TOP)
    parts = [_legend([(each.label, each.series) for each in drawn])]
    for value in up.ticks():
        y = up.at(value)
        parts.append(_segment(_LEFT, y, _WIDTH - _RIGHT, y, "grid"))
        parts.append(_text(_LEFT - 6, y + 4, f"{value:.4g}", "end"))
    for value in across.ticks():
        parts.append(_text(across.at(value), height - _BOTTOM + 16, f"{value:.4g}", "middle"))
    parts.append(_text((_LEFT + _WIDTH) / 2, height - 4, x_label, "middle"))
    for line in drawn:
        at = " ".join(f"{across.at(x):.1f},{up.at(y):.1f}" for x, y in line.points)
        parts.append(
            f'<g class="s{line.series}"><polyline points="{at}" fill="none" '
            'stroke="currentColor" stroke-width="1.5"/>'
        )
        if len(line.points) < 40:
            parts += [_dot(across.at(x), up.at(y)) for x, y in line.points]
        parts.append("</g>")
    return _document(title, height, parts)


def intervals(title: str, rows: Sequence[Row], series: Sequence[tuple[str, int]]) -> str:
    """One line a row and series: the value as a dot, its interval as a bar."""
    left, step = 190, 16
    each = step * len(series) + 10
    height = _TOP + each * max(1, len(rows)) + _BOTTOM
    across = _Axis(list(_numbers(rows)) or [0.0, 1.0], left, _WIDTH - _RIGHT - 40)
    parts = [_legend(series)]
    for value in across.ticks():
        x = across.at(value)
        parts.append(_segment(x, _TOP, x, height - _BOTTOM, "grid"))
        parts.append(_text(x, height - _BOTTOM + 16, f"{value:.4g}", "middle"))
    for index, row in enumerate(rows):
        top = _TOP + each * index
        parts.append(_text(left - 8, top + each / 2 + 4, row.label, "end"))
        for at, found in enumerate(row.values):
            if found is not None and found.finite:
                y = top + step * (at + 0.5) + 5
                parts.append(_interval(found, across, y, series[at][1]))
    return _document(title, height, parts)


def _interval(found: Estimate, across: _Axis, y: float, series: int) -> str:
    bar = ""
    if found.low is not None and found.high is not None:
        bar = (
            f'<line x1="{across.at(found.low):.1f}" x2="{across.at(found.high):.1f}" '
            f'y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor" stroke-width="3" opacity="0.45"/>'
        )
    right = across.at(found.value if found.high is None else found.high) + 8
    text = _text(right, y + 4, f"{found.value:.3g}", "start")
    return f'<g class="s{series}">{bar}{_dot(across.at(found.value), y)}</g>{text}'


def _numbers(rows: Sequence[Row]) -> Iterator[float]:
    for row in rows:
        for found in row.values:
            if found is not None and found.finite:
                yield from (v for v in (found.value, found.low, found.high) if v is not None)


class _Axis:
    """Values to places, with round ticks."""

    def __init__(
        self, values: Sequence[float], start: float, end: float, *, whole: bool = False
    ) -> None:
        low, high = min(values), max(values)
        if high - low < 1e-12 * max(1.0, abs(high)):
            low, high = low - 0.5, high + 0.5
        rough = (high - low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        self._step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
        if whole:
            self._step = max(1.0, self._step)
        self._low, self._high = low, high
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        """Its place, in pixels."""
        share = (value - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        """Round values in range."""
        first = math.ceil(self._low / self._step)
        last = math.floor(self._high / self._step)
        return [index * self._step for index in range(first, last + 1)]


def _document(title: str, height: float, parts: Sequence[str]) -> str:
    label = html_text(title, 200)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" role="img" aria-label="{label}" '
        f'viewBox="0 0 {_WIDTH} {height:.0f}" width="{_WIDTH}" height="{height:.0f}">{_STYLE}'
        f'<text x="8" y="16" class="title">{label}</text>{"".join(parts)}</svg>\n'
    )


def _legend(series: Sequence[tuple[str, int]]) -> str:
    parts = []
    x = 8.0
    for label, index in series:
        parts.append(
            f'<g class="s{index}">{_dot(x + 4, 31)}</g>{_text(x + 12, 35, label, "start")}'
        )
        x += 30 + 7 * min(len(label), 30)
    return "".join(parts)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    found = html_text(" ".join(text.split()), 28)
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{found}</text>'


def _segment(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _dot(x: float, y: float) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="currentColor"/>'
