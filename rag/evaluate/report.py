"""Evaluations as Markdown, and as one HTML file with plots. Imports matplotlib for the plots."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from pathlib import Path

from rag.evaluate.intervals import Comparison, compare
from rag.evaluate.run import Evaluation

__all__ = ["comparisons", "html_page", "markdown", "write"]


def write(evaluations: Sequence[Evaluation], folder: Path) -> None:
    """`report.md` and `report.html` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text(markdown(evaluations), encoding="utf-8")
    (folder / "report.html").write_text(html_page(evaluations), encoding="utf-8")


def comparisons(evaluations: Sequence[Evaluation]) -> dict[str, Comparison]:
    """The first two configurations, metric by metric, where both have the same questions."""
    if len(evaluations) < 2:
        return {}
    first, second = evaluations[0].values, evaluations[1].values
    return {
        metric: compare(first[metric], second[metric])
        for metric in first
        if metric in second and len(first[metric]) == len(second[metric])
    }


def markdown(evaluations: Sequence[Evaluation]) -> str:
    """A table of means with 95% intervals, and the paired comparison of the first two."""
    lines = ["# Evaluation", "", *_table(_rows(evaluations))]
    if differences := comparisons(evaluations):
        first, second = evaluations[0].name, evaluations[1].name
        lines += ["", f"## {first} against {second}", "", *_table(_difference_rows(differences))]
    return "\n".join(lines) + "\n"


def html_page(evaluations: Sequence[Evaluation]) -> str:
    """The same as one page, with a plot of the means and one of the differences."""
    body = ["<h1>Evaluation</h1>", _html_table(_rows(evaluations)), _means_plot(evaluations)]
    if differences := comparisons(evaluations):
        title = f"{evaluations[0].name} against {evaluations[1].name}"
        body += [f"<h2>{html.escape(title)}</h2>", _html_table(_difference_rows(differences))]
        body.append(_differences_plot(differences))
    style = (
        "body{font:16px/1.5 system-ui;max-width:70rem;margin:2rem auto;padding:0 1rem}"
        "td,th{padding:.25rem .75rem;text-align:left}svg{max-width:100%;height:auto}"
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Evaluation</title>"
        f"<style>{style}</style><body>{''.join(body)}</body></html>\n"
    )


def _rows(evaluations: Sequence[Evaluation]) -> list[list[str]]:
    names = list(dict.fromkeys(metric for one in evaluations for metric in one.values))
    rows = [["configuration", *names]]
    for evaluation in evaluations:
        found = evaluation.estimates()
        cells = (found.get(name) for name in names)
        rows.append(
            [
                evaluation.name,
                *(f"{e.mean:.3f} [{e.low:.3f}, {e.high:.3f}]" if e else "" for e in cells),
            ]
        )
    return rows


def _difference_rows(differences: dict[str, Comparison]) -> list[list[str]]:
    rows = [["metric", "difference", "95% interval", "p", "questions"]]
    for metric, one in differences.items():
        d = one.difference
        interval = f"[{d.low:+.3f}, {d.high:+.3f}]"
        rows.append([metric, f"{d.mean:+.3f}", interval, f"{one.p_value:.4f}", str(d.count)])
    return rows


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


def _html_table(rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

    return f"<table>{line(rows[0], 'th')}{''.join(line(row, 'td') for row in rows[1:])}</table>"


def _means_plot(evaluations: Sequence[Evaluation]) -> str:
    from matplotlib.figure import Figure

    names = list(evaluations[0].values)
    figure = Figure(figsize=(10, 1 + 0.5 * len(names) * len(evaluations)))
    axes = figure.add_subplot()
    for number, evaluation in enumerate(evaluations):
        found = evaluation.estimates()
        kept = [(at, found[name]) for at, name in enumerate(names) if name in found]
        places = [at + 0.7 * (number + 0.5) / len(evaluations) - 0.35 for at, _ in kept]
        means = [e.mean for _, e in kept]
        errors = [[e.mean - e.low for _, e in kept], [e.high - e.mean for _, e in kept]]
        axes.errorbar(means, places, xerr=errors, fmt="o", capsize=3, label=evaluation.name)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("mean, with its 95% interval")
    axes.legend()
    return _svg(figure)


def _differences_plot(differences: dict[str, Comparison]) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1 + 0.4 * len(differences)))
    axes = figure.add_subplot()
    found = [one.difference for one in differences.values()]
    errors = [[d.mean - d.low for d in found], [d.high - d.mean for d in found]]
    axes.errorbar([d.mean for d in found], range(len(found)), xerr=errors, fmt="o", capsize=3)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(found)), list(differences))
    axes.invert_yaxis()
    axes.set_xlabel("difference, with its 95% interval")
    return _svg(figure)


def _svg(figure: object) -> str:
    from matplotlib.figure import Figure

    assert isinstance(figure, Figure)
    figure.tight_layout()
    out = io.StringIO()
    figure.savefig(out, format="svg")
    text = out.getvalue()
    return text[text.index("<svg") :]
