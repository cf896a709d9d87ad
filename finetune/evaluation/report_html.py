"""The report as one file, `report.html`: no script, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from finetune.evaluation import tables
from finetune.evaluation.result import Evaluation, Shown
from finetune.evaluation.safe_text import html_text

# Even if a text got past the escaping, the browser would run and load nothing.
_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width"><title>Evaluation</title>
<style>
:root{color-scheme:light dark;--line:#8885;--good:#1a7f37;--bad:#c62828}
@media(prefers-color-scheme:dark){:root{--good:#5fcf7f;--bad:#ff8a80}}
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;display:block;overflow-x:auto}
th,td{border:1px solid var(--line);padding:.25rem .6rem;text-align:left;vertical-align:top}
.passed{color:var(--good)}.failed{color:var(--bad)}
.plots{display:flex;flex-wrap:wrap;gap:1rem}svg{max-width:100%;height:auto}
.answers{display:grid;grid-template-columns:repeat(auto-fit,minmax(16rem,1fr));gap:.6rem}
.answers>div,details{border:1px solid var(--line);padding:.4rem .6rem;margin:.4rem 0}
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:.2rem 0;unicode-bidi:isolate}
</style></head><body>
"""


def page(found: Evaluation, plots: Mapping[str, str]) -> str:
    """The page, with its plots (SVG by name) inside."""
    state = "passed" if found.gate.passed else "failed"
    parts = [
        _HEAD,
        f'<h1>Evaluation</h1>\n<p class="{state}"><b>{_(tables.verdict(found))}</b></p>',
    ]
    notes = [*tables.facts(found), *(("note", text) for text in found.warnings)]
    parts.append(f"<ul>{''.join(f'<li>{name}: {_(text)}</li>' for name, text in notes)}</ul>")
    if found.gate.rules:
        rows = [tables.gate_row(each) for each in found.gate.rules]
        classes = ["passed" if each.passed else "failed" for each in found.gate.rules]
        parts += ["<h2>Gate</h2>", _table(tables.GATE_HEAD, rows, classes)]
    if found.metrics:
        rows = [tables.metric_row(each, found) for each in found.metrics.values()]
        parts += ["<h2>Metrics</h2>", _table(tables.metric_head(found), rows)]
    parts.append(f'<div class="plots">{"".join(plots.values())}</div>')
    if found.slices:
        rows = [tables.slice_row(each, found) for each in found.slices]
        parts += ["<h2>Slices</h2>", _table(tables.slice_head(found), rows)]
    parts += [_shown(tables.SAMPLES, found.shown), _shown(tables.FORGOTTEN, found.forgotten)]
    return "\n".join([*parts, "</body></html>\n"])


def _(text: str) -> str:
    return html_text(text)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], classes: Iterable[str] = ()) -> str:
    given = [*classes] or [""] * len(rows)
    body = "".join(
        f'<tr class="{kind}">{"".join(f"<td>{_(cell)}</td>" for cell in row)}</tr>\n'
        for kind, row in zip(given, rows, strict=True)
    )
    return f"<table><tr>{''.join(f'<th>{_(cell)}</th>' for cell in head)}</tr>\n{body}</table>"


def _shown(title: str, shown: Sequence[Shown]) -> str:
    if not shown:
        return ""
    parts = [f"<h2>{title}</h2>"]
    for each in shown:
        texts = {"reference": each.reference}
        for version, text in each.answers.items():
            texts[tables.answer_label(version, each.over_long)] = text
        answers = "".join(
            f"<div><b>{label}</b><pre>{_(text)}</pre></div>" for label, text in texts.items()
        )
        parts.append(
            f"<details open><summary>{_(each.name)}</summary><pre>{_(each.prompt)}</pre>"
            f'<div class="answers">{answers}</div></details>'
        )
    return "\n".join(parts)
