"""`corral adapters`: list, show, load and unload LoRA adapters of a running stack."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serving.commands.client import call
from serving.home import Home

app = typer.Typer(
    no_args_is_help=True,
    help="LoRA adapters of the running stack.\n\n"
    "Put a PEFT directory at $CORRAL_HOME/adapters/NAME/VERSION, then "
    "`corral adapters load NAME`; clients use it as model `BASE:NAME`.",
)
Url = Annotated[str | None, typer.Option(help="Address of another stack.")]
Name = Annotated[str, typer.Argument(help="NAME or NAME@VERSION.")]


@app.command("list")
def list_adapters(url: Url = None) -> None:
    """Every version on disk: its base, its rank, whether it is live, and what is wrong with it."""
    rows = call(Home.from_env(), url, "GET", "/admin/adapters")["data"]
    table = Table("adapter", "version", "base", "rank", "state")
    for row in rows:
        state = "live" if row["live"] else "available"
        if row["disabled"]:
            state = "unloaded"
        if row["error"]:
            state = f"[red]refused:[/red] {escape(row['error'])}"
        rank = str(row["rank"] or "–")
        table.add_row(escape(row["name"]), row["version"], row["base"] or "–", rank, state)
    Console().print(table if rows else "no adapters in $CORRAL_HOME/adapters")


@app.command("show")
def show(name: Name, url: Url = None) -> None:
    """All versions of one adapter, and the replicas that hold it."""
    found = call(Home.from_env(), url, "GET", f"/admin/adapters/{name.partition('@')[0]}")
    Console().print_json(data=found)


@app.command("load")
def load(name: Name, url: Url = None) -> None:
    """Check, load on every replica, and make the version live."""
    result = _act(name, url, "load")
    Console().print(f"{result['loaded']} is loaded and live as {result['live']}", highlight=False)


@app.command("unload")
def unload(name: Name, url: Url = None) -> None:
    """Stop serving it on every replica; running requests end first."""
    for engine_name in _act(name, url, "unload")["unloaded"]:
        Console().print(f"{engine_name} is unloaded", highlight=False)


def _act(name: str, url: str | None, verb: str) -> dict[str, list[str] | str]:
    adapter, _, version = name.rpartition(":")[2].partition("@")
    body = {"name": adapter, "version": version or None}
    result: dict[str, list[str] | str] = call(
        Home.from_env(), url, "POST", f"/admin/adapters/{verb}", json=body
    )
    return result
