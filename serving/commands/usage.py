"""`corral usage`: what was used and what it cost, as a table or CSV."""

from __future__ import annotations

import csv
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serving.commands.client import call, duration_s
from serving.errors import CorralError
from serving.home import Home

_SUMS = ("requests", "input_tokens", "cached_tokens", "output_tokens", "embedding_tokens")
_MONEY = ("cost_usd", "gpu_seconds")


def usage(
    by: Annotated[
        str,
        typer.Option(help="Any of key,tenant,model,adapter,day,endpoint,status, with commas."),
    ] = "tenant,model",
    since: Annotated[str | None, typer.Option(help="A date, or an age: 2026-11-01, 7d.")] = None,
    until: Annotated[str | None, typer.Option(help="A date, or an age.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Of this tenant only.")] = None,
    key: Annotated[str | None, typer.Option(help="Of this key only (its lineage).")] = None,
    model: Annotated[str | None, typer.Option(help="Of this model only.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values.")] = False,
    url: Annotated[str | None, typer.Option(help="Address of another stack.")] = None,
) -> None:
    """What was used and what it cost, by key, tenant, model, adapter, day or endpoint."""
    groups = [name.strip() for name in by.split(",") if name.strip()]
    params: dict[str, Any] = {"by": groups, "since": _moment(since), "until": _moment(until)}
    params |= {"tenant": tenant, "key": key, "model": model}
    params = {name: value for name, value in params.items() if value is not None}
    rows = call(Home.from_env(), url, "GET", "/admin/usage", params=params)["data"]
    header = [*groups, *_SUMS, *_MONEY]
    cells = [
        [*(row["group"][name] for name in groups), *(str(row[name]) for name in _SUMS + _MONEY)]
        for row in rows
    ]
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerows([header, *cells])
        return
    Console().print(_table(header, len(groups), cells) if cells else "nothing was used")


def _table(header: list[str], groups: int, cells: list[list[str]]) -> Table:
    """Without the sums that are zero in every row, so that the rest fits a terminal."""
    shown = [
        column
        for column in range(len(header))
        if column <= groups or any(line[column].strip("0.") for line in cells)
    ]
    table = Table()
    for column in shown:
        name = header[column].removesuffix("_tokens").replace("_", " ")
        table.add_column(name, justify="left" if column < groups else "right", overflow="fold")
    for line in cells:
        table.add_row(*(escape(line[column]) for column in shown))
    return table


def _moment(text: str | None) -> str | None:
    """ISO 8601 of a date or of an age. Raises CorralError."""
    if text is None:
        return None
    if text[-1:] in "smhd" and text[:-1].isdigit():
        return (datetime.now(UTC) - timedelta(seconds=duration_s(text))).isoformat()
    try:
        found = datetime.fromisoformat(text)
    except ValueError as exc:
        raise CorralError(f"{text!r} is neither a date (2026-11-01) nor an age (7d)") from exc
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()
