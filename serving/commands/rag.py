"""`corral rag`: documents as a knowledge base; what it does is `rag`'s own command."""

from __future__ import annotations

import typer


def rag(context: typer.Context) -> None:
    """Bring documents into an index, search them, ask them. `corral rag --help`."""
    from rag.__main__ import main

    raise typer.Exit(main(context.args, program="corral rag"))
