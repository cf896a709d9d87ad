"""`corral registry`: versions of adapters, which is live, and who decided it."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serving.commands.client import call
from serving.errors import CorralError
from serving.home import Home

app = typer.Typer(
    no_args_is_help=True,
    help="Versions of adapters: the champion answers as BASE:NAME, the challenger as "
    "BASE:NAME@challenger, every version as BASE:NAME@VERSION.\n\n"
    "corral registry promote acme.bot@3  makes version 3 live on every replica, at once.\n\n"
    "corral registry rollback acme.bot  takes that back.",
)
Url = Annotated[str | None, typer.Option(help="Address of another stack.")]
Name = Annotated[str, typer.Argument(help="Adapter: TENANT.SUFFIX, or a folder's name.")]


@app.command("list")
def list_registry(
    tenant: Annotated[str | None, typer.Option(help="Of this tenant only.")] = None,
    url: Url = None,
) -> None:
    """Every version: its base, whether it passed its gate, whether it is live."""
    params = {} if tenant is None else {"tenant": tenant}
    _show(call(Home.from_env(), url, "GET", "/admin/registry", params=params)["data"])


@app.command("show")
def show(name: Name, url: Url = None) -> None:
    """One adapter's versions with lineage, metrics and gate, as JSON."""
    Console().print_json(data=call(Home.from_env(), url, "GET", f"/admin/registry/{name}"))


@app.command("promote")
def promote(
    name: Annotated[str, typer.Argument(help="ADAPTER@VERSION.")],
    alias: Annotated[str, typer.Option(help="champion or challenger.")] = "champion",
    url: Url = None,
) -> None:
    """Load a version on every replica, then make it the champion. If one refuses, nothing is."""
    adapter, at, version = name.rpartition(":")[2].partition("@")
    if not at:
        raise CorralError(f"which version of {adapter}? Say {adapter}@VERSION")
    body = {"version": version, "alias": alias}
    _say(call(Home.from_env(), url, "POST", f"/admin/registry/{adapter}/promote", json=body))


@app.command("rollback")
def rollback(name: Name, url: Url = None) -> None:
    """Make the champion what it was before the last promotion."""
    _say(call(Home.from_env(), url, "POST", f"/admin/registry/{name}/rollback"))


@app.command("history")
def history(name: Name, url: Url = None) -> None:
    """Who has made which version the champion or the challenger, and when."""
    rows = call(Home.from_env(), url, "GET", f"/admin/registry/{name}/history")["data"]
    table = Table("when (UTC)", "what", "alias", "version", "before", "who")
    for row in rows:
        cells = [row["at"][:19].replace("T", " "), row["action"], row["alias"]]
        cells += [row["version"] or "–", row["previous"] or "–", row["actor"]]
        table.add_row(*map(escape, cells))
    Console().print(table if rows else f"nothing was ever decided about {name}")


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table("adapter", "version", "base", "alias", "gate", "model")
    for row in rows:
        gate = row["gate"]
        verdict = "–" if gate is None else "passed" if gate["passed"] else "failed"
        if row["error"]:
            verdict = f"refused: {row['error']}"
        alias = row["alias"] or ("off" if row["disabled"] else "")
        cells = [row["adapter"], row["version"], row["base"] or "–", alias, verdict]
        table.add_row(*map(escape, [*cells, row["name"] or "–"]))
    Console().print(table if rows else "no adapters")


def _say(done: dict[str, Any]) -> None:
    words = f"{done['adapter']}: champion {done['champion'] or '–'}"
    Console().print(f"{words}, challenger {done['challenger'] or '–'}", highlight=False)
