"""Fine-tuning from the command line: `python -m finetune COMMAND`; each has a `--help`.

Exit status 2 if something could not be read at all, 130 after Ctrl-C; else as the command says.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Protocol, cast

from configs import ConfigError
from finetune.commands import (
    check,
    compare,
    estimate,
    evaluate,
    export,
    list,
    logs,
    merge,
    run,
    sweep,
)
from finetune.errors import FinetuneError


class Command(Protocol):
    """What a file in `finetune/commands/` has."""

    NAME: str
    SUMMARY: str

    def arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


COMMANDS: tuple[Command, ...] = (
    check,
    estimate,
    run,
    list,
    logs,
    compare,
    sweep,
    merge,
    export,
    evaluate,
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    # Read when torch is loaded: threads that wait on a busy machine sleep soon instead of spinning.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    args = _parser().parse_args(argv)
    command = cast(Command, args.command)
    try:
        return command.run(args)
    except (ConfigError, FinetuneError) as exc:
        print(exc, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m finetune",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        one = commands.add_parser(
            command.NAME,
            help=command.SUMMARY,
            description=command.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.arguments(one)
        one.set_defaults(command=command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
