"""`corral doctor`: is everything there that a configuration needs, and if not, how to mend it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from serving.config import ServeConfig
from serving.doctor import Check, Status
from serving.doctor.machine import machine_checks
from serving.doctor.stack import stack_checks
from serving.home import Home

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Check", "Status", "render", "run_checks"]

MARKS = {
    Status.OK: "[green]ok[/green]  ",
    Status.WARN: "[yellow]warn[/yellow]",
    Status.FAIL: "[red]FAIL[/red]",
}


def run_checks(home: Home, config: ServeConfig) -> list[Check]:
    """Look at everything. Changes nothing; reads the weights once for their checksums."""
    return [*machine_checks(home, config), *stack_checks(home, config)]


def render(checks: Sequence[Check], console: Console) -> bool:
    """Print each finding, with its mend unless all is well. Returns whether none failed."""
    from rich.markup import escape
    from rich.padding import Padding

    for check in checks:
        console.print(f"{MARKS[check.status]}  [bold]{escape(check.name)}[/bold]: ", end="")
        console.print(check.detail, markup=False, highlight=False)
        if check.status is not Status.OK:
            console.print(Padding(f"→ {escape(check.mend)}", (0, 0, 0, 6)), highlight=False)
    failed = sum(check.status is Status.FAIL for check in checks)
    warned = sum(check.status is Status.WARN for check in checks)
    console.print(f"{len(checks)} checks, {failed} failed, {warned} warnings")
    return failed == 0
