"""`corral store`: backup, restore, migrate and check. These open the database themselves."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from serving.errors import CorralError
from serving.home import Home
from serving.processes import read_state

if TYPE_CHECKING:
    from serving.store.config import StoreConfig

app = typer.Typer(no_args_is_help=True, help="The database of keys, limits and usage.")
Config = Annotated[
    str, typer.Option("--config", "-c", help="The configuration that the stack is served with.")
]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override one value. Repeatable.")]
File = Annotated[Path, typer.Argument(help="The backup, a tar file.")]


@app.command("backup")
def backup(
    file: File,
    blobs: Annotated[bool, typer.Option(help="Take the blobs along.")] = True,
    config: Config = "local",
    override: Set = None,
) -> None:
    """Write database and blobs into one file, also while the stack serves."""
    from serving.store.backup import backup as write
    from serving.store.blobs import BlobStore
    from serving.store.database import connect

    settings, folder = _place(config, override)
    with closing(connect(settings, folder)) as store:
        files = BlobStore(store, settings.blobs or str(folder / "blobs")) if blobs else None
        size = write(store, files, file.absolute())
    Console().print(f"{file}: {size / 2**20:.1f} MiB", highlight=False)


@app.command("restore")
def restore(
    file: File,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    config: Config = "local",
    override: Set = None,
) -> None:
    """Replace the store by a backup. The stack must be stopped."""
    from serving.store.backup import restore as read

    home = Home.from_env()
    state = read_state(home.run)
    if state is not None and state.alive:
        raise CorralError(f"the stack serves at {state.url}; stop it first: `corral stop`")
    settings, folder = _place(config, override)
    about = read(settings, folder, file, force=force)
    Console().print(f"restored {file} (step {about['revision']})", highlight=False)


@app.command("migrate")
def migrate(config: Config = "local", override: Set = None) -> None:
    """Bring the tables up to date. `corral serve` does it too."""
    from serving.store.database import connect
    from serving.store.migrating import HEAD
    from serving.store.migrating import migrate as apply

    settings, folder = _place(config, override)
    with closing(connect(settings, folder)) as store:
        changed = apply(store)
    Console().print(f"{'migrated to' if changed else 'already at'} step {HEAD}", highlight=False)


@app.command("check")
def check(config: Config = "local", override: Set = None) -> None:
    """Whether the database answers, has the right tables, and whether its sums agree."""
    from serving.store.checking import check as look
    from serving.store.database import connect

    settings, folder = _place(config, override)
    with closing(connect(settings, folder)) as store:
        faults = look(store)
        place = store.place
    for fault in faults:
        Console().print(f"[red]fault[/red] {fault}", highlight=False)
    if faults:
        raise typer.Exit(1)
    Console().print(f"{place} is in order", highlight=False)


def _place(config: str, override: list[str] | None) -> tuple[StoreConfig, Path]:
    from configs import load
    from serving.cli import config_path
    from serving.config import ServeConfig

    settings = load(ServeConfig, config_path(config), override or [])
    return settings.store, Home.from_env().store
