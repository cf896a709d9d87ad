"""`corral tenants`: tenants of a running stack, and the limits of any scope."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serving.commands.client import call
from serving.home import Home

app = typer.Typer(no_args_is_help=True, help="Tenants of the running stack, and limits.")
Url = Annotated[str | None, typer.Option(help="Address of another stack.")]
Id = Annotated[str, typer.Argument(help="Id of the tenant.")]
Most = Annotated[int | None, typer.Option(min=0)]
Money = Annotated[str | None, typer.Option(help="In US dollars.")]


@app.command("create")
def create(
    id: Id,
    name: Annotated[str, typer.Option(help="What people call it.")] = "",
    model: Annotated[
        list[str] | None, typer.Option(help="Model it may use (glob). Repeatable; default: all.")
    ] = None,
    url: Url = None,
) -> None:
    """Make a tenant."""
    body = {"id": id, "name": name, "models": model}
    call(Home.from_env(), url, "POST", "/admin/tenants", json=body)
    Console().print(f"{id} is there; `corral keys create --tenant {id}`", highlight=False)


@app.command("list")
def list_tenants(url: Url = None) -> None:
    """Every tenant."""
    table = Table("id", "name", "state", "models")
    for row in call(Home.from_env(), url, "GET", "/admin/tenants")["data"]:
        models = ", ".join(row["models"]) if row["models"] is not None else "all"
        state = "disabled" if row["disabled"] else "live"
        table.add_row(*map(escape, [row["id"], row["name"], state, models]))
    Console().print(table)


@app.command("show")
def show(id: Id, url: Url = None) -> None:
    """One tenant: its keys, its limits and what it has used."""
    home = Home.from_env()
    found = call(home, url, "GET", f"/admin/tenants/{id}")
    found["limits"] = call(home, url, "GET", f"/admin/limits/tenant:{id}")
    keys = call(home, url, "GET", "/admin/keys", params={"tenant": id})["data"]
    found["keys"] = [key["id"] for key in keys]
    Console().print_json(data=found)


@app.command("disable")
def disable(id: Id, url: Url = None) -> None:
    """Refuse all its keys from now on."""
    call(Home.from_env(), url, "PATCH", f"/admin/tenants/{id}", json={"disabled": True})
    Console().print(f"{id} is disabled", highlight=False)


@app.command("enable")
def enable(id: Id, url: Url = None) -> None:
    """Let its keys in again."""
    call(Home.from_env(), url, "PATCH", f"/admin/tenants/{id}", json={"disabled": False})
    Console().print(f"{id} is enabled", highlight=False)


@app.command("limits")
def limits(
    scope: Annotated[
        str, typer.Argument(help="A tenant's id, or key:ID, model:NAME, tenant_model:ID/NAME.")
    ],
    requests_per_minute: Most = None,
    tokens_per_minute: Most = None,
    parallel_requests: Most = None,
    tokens_per_day: Most = None,
    tokens_per_month: Most = None,
    usd_per_day: Money = None,
    usd_per_month: Money = None,
    usd_per_request: Money = None,
    clear: Annotated[bool, typer.Option(help="Remove all others.")] = False,
    url: Url = None,
) -> None:
    """Set limits, or without an option show them and what is used. What is not named stays."""
    home = Home.from_env()
    path = f"/admin/limits/{scope if ':' in scope else f'tenant:{scope}'}"
    wanted = {
        "requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute,
        "parallel_requests": parallel_requests, "tokens_per_day": tokens_per_day,
        "tokens_per_month": tokens_per_month, "usd_per_day": usd_per_day,
        "usd_per_month": usd_per_month, "usd_per_request": usd_per_request,
    }  # fmt: skip
    given = {name: most for name, most in wanted.items() if most is not None}
    found: Any = call(home, url, "GET", path)
    if given or clear:
        kept = {} if clear else found["limits"]
        found = call(home, url, "PUT", path, json=kept | given)
    Console().print_json(data=found)
