"""`corral keys`: API keys of a running stack."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from serving.commands.client import call, duration_s
from serving.home import Home
from serving.runtime import admin_key

app = typer.Typer(
    no_args_is_help=True,
    help="API keys of the running stack. A key is shown once, when it is made.",
)
Url = Annotated[str | None, typer.Option(help="Address of another stack.")]
Id = Annotated[str, typer.Argument(help="Id of the key, or its public part (sk-PUBLIC-…).")]
Globs = Annotated[list[str] | None, typer.Option(help="Glob pattern. Repeatable; default: all.")]


@app.command("create")
def create(
    tenant: Annotated[str, typer.Option(help="Whose key it is.")] = "default",
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    owner: Annotated[str, typer.Option(help="Who answers for it.")] = "",
    role: Annotated[str, typer.Option(help="member, service or admin.")] = "member",
    expires: Annotated[str | None, typer.Option(help="Lifetime: 90d, 12h, 30m.")] = None,
    model: Globs = None,
    adapter: Globs = None,
    store: Globs = None,
    endpoint: Globs = None,
    url: Url = None,
) -> None:
    """Make a key and print it, this once."""
    ends = None
    if expires is not None:
        ends = (datetime.now(UTC) + timedelta(seconds=duration_s(expires))).isoformat()
    body = {
        "tenant": tenant, "name": name, "owner": owner, "role": role, "expires": ends,
        "models": model, "adapters": adapter, "stores": store, "endpoints": endpoint,
    }  # fmt: skip
    _show_new(call(Home.from_env(), url, "POST", "/admin/keys", json=body))


@app.command("admin")
def show_admin() -> None:
    """Print the admin key of this home, from $CORRAL_HOME/credentials."""
    print(admin_key(Home.from_env()))


@app.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Of this tenant only.")] = None,
    url: Url = None,
) -> None:
    """Every key: whose it is, what it may do, and whether it still lets in."""
    params = {} if tenant is None else {"tenant": tenant}
    rows = call(Home.from_env(), url, "GET", "/admin/keys", params=params)["data"]
    table = Table(Column("id", no_wrap=True), Column("key", no_wrap=True), "tenant", "name")
    for name in ("owner", "role", "state", "models"):
        table.add_column(name)
    for row in rows:
        models = ", ".join(row["models"]) if row["models"] is not None else "all"
        cells = [row["id"], f"sk-{row['prefix']}-…", row["tenant"], row["name"], row["owner"]]
        table.add_row(*map(escape, [*cells, row["role"], _state(row), models]))
    Console().print(table if rows else "no keys")


@app.command("revoke")
def revoke(id: Id, url: Url = None) -> None:
    """Let nobody in with it any more."""
    key = call(Home.from_env(), url, "POST", f"/admin/keys/{_public(id)}/revoke")
    Console().print(f"{key['id']} is revoked", highlight=False)


@app.command("rotate")
def rotate(
    id: Id,
    overlap: Annotated[str, typer.Option(help="How long the old key still works.")] = "1h",
    url: Url = None,
) -> None:
    """A new key in place of an old one, with the same rights, limits and usage."""
    body = {"overlap_s": duration_s(overlap)}
    path = f"/admin/keys/{_public(id)}/rotate"
    _show_new(call(Home.from_env(), url, "POST", path, json=body))


def _show_new(made: Any) -> None:
    print(made["secret"])
    key = made["key"]
    hint = f"{key['id']} of {key['tenant']}. Keep the key now: it is not shown again."
    Console(stderr=True).print(hint, highlight=False, markup=False)


def _state(row: Any) -> str:
    if row["revoked"] is not None:
        return "revoked"
    if row["expires"] is None:
        return "live"
    ends = datetime.fromisoformat(row["expires"])
    if ends <= datetime.now(UTC):
        return "expired"
    return f"until {ends:%Y-%m-%d %H:%M} UTC"


def _public(id: str) -> str:
    """Of a whole key only the public part goes into a path; paths end up in logs."""
    return id.split("-")[1] if id.startswith("sk-") and id.count("-") >= 1 else id
