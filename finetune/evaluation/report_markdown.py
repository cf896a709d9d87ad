"""The report as `report.md`; its plots are files beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from finetune.evaluation import tables
from finetune.evaluation.result import Evaluation, Shown
from finetune.evaluation.safe_text import markdown_block, markdown_line


def markdown(found: Evaluation, plots: Iterable[str]) -> str:
    """The page; `plots` are names of SVG files in `plots/`."""
    lines = ["# Evaluation", "", f"**{tables.verdict(found)}**", ""]
    lines += [f"- {name}: {markdown_line(text)}" for name, text in tables.facts(found)]
    lines += [f"- Note: {markdown_line(text, 400)}" for text in found.warnings]
    if found.gate.rules:
        rows = [tables.gate_row(each) for each in found.gate.rules]
        lines += ["", "## Gate", "", *_table(tables.GATE_HEAD, rows)]
    if found.metrics:
        rows = [tables.metric_row(each, found) for each in found.metrics.values()]
        lines += ["", "## Metrics", "", *_table(tables.metric_head(found), rows)]
    lines += ["", *(f"![{name}](plots/{name}.svg)\n" for name in plots)]
    if found.slices:
        rows = [tables.slice_row(each, found) for each in found.slices]
        lines += ["## Slices", "", *_table(tables.slice_head(found), rows), ""]
    lines += _shown(tables.SAMPLES, found.shown)
    lines += _shown(tables.FORGOTTEN, found.forgotten)
    return "\n".join(lines).rstrip() + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(markdown_line(cell, 400) for cell in row)} |" for row in rows),
    ]


def _shown(title: str, shown: Sequence[Shown]) -> list[str]:
    lines = [f"## {title}", ""] if shown else []
    for each in shown:
        lines += [f"### {markdown_line(each.name)}", "", "prompt", markdown_block(each.prompt)]
        lines += ["reference", markdown_block(each.reference)]
        for version, text in each.answers.items():
            lines += [tables.answer_label(version, each.over_long), markdown_block(text)]
        lines.append("")
    return lines
