"""`python -m rag ingest`, `status`, `show` and `remove`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import configs
from configs import load
from rag.config import RagConfig
from rag.embed.open import open_embedder
from rag.errors import RagError
from rag.index.manifest import Manifest
from rag.index.open import open_index
from rag.ingest.ledger import Ledger
from rag.ingest.pipeline import Ingestor
from rag.ingest.progress import Progress
from rag.load.pool import ParserPool
from rag.load.source import Source, open_source
from rag.protocols import Tokens
from rag.split.splitter import Splitter
from rag.types import Scope

__all__ = ["home", "ledger_path", "rag_config", "register"]

CONFIGS = Path(configs.__file__).parent / "rag"
TENANT = "local"
"""Whose chunks the command's are."""
_REPORT_EVERY_S = 1.0


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the four commands."""
    ingest = _command(commands, "ingest", "bring the index up to date with files, folders, URLs")
    ingest.add_argument("paths", nargs="+", metavar="PATH")
    ingest.add_argument("--retry-failed", action="store_true", help="parse failed files again")
    ingest.set_defaults(run=_ingest)
    status = _command(commands, "status", "what has been ingested, and what failed")
    status.add_argument("--failed", action="store_true", help="only files that failed")
    status.set_defaults(run=_status)
    show = _command(commands, "show", "the blocks and chunks that come out of a file")
    show.add_argument("path", metavar="PATH")
    show.set_defaults(run=_show)
    remove = _command(commands, "remove", "delete files from the index, by the URIs of status")
    remove.add_argument("uris", nargs="+", metavar="URI")
    remove.set_defaults(run=_remove)


def rag_config(args: argparse.Namespace) -> RagConfig:
    """The configuration that the arguments name: a file, or a name in `configs/rag/`."""
    shipped = CONFIGS / f"{args.config.removesuffix('.yaml')}.yaml"
    path = shipped if "/" not in args.config and shipped.is_file() else Path(args.config)
    return load(RagConfig, path, args.set)


def home() -> Path:
    """`$CORRAL_HOME`, by default `~/.corral`."""
    return Path(os.environ.get("CORRAL_HOME") or "~/.corral").expanduser()


def ledger_path(config: RagConfig) -> Path:
    """Beside the embedded index; for a server, under its collection's name."""
    if config.index.url is None:
        found = home() / config.index.path
        return found.with_name(f"{found.name}.ledger.db")
    return home() / "index" / f"{config.index.collection}.ledger.db"


def _command(
    commands: argparse._SubParsersAction[Any], name: str, about: str
) -> argparse.ArgumentParser:
    found: argparse.ArgumentParser = commands.add_parser(name, help=about)
    found.add_argument("--config", default="default", help="a file, or a name in configs/rag/")
    found.add_argument("--set", action="append", default=[], metavar="A.B=VALUE")
    found.add_argument("--store", default="default", help="the knowledge base")
    found.add_argument("--json", action="store_true", help="print JSON")
    return found


def _ingest(args: argparse.Namespace) -> int:
    config = rag_config(args)
    if args.retry_failed:
        config = config.model_copy(
            update={"ingest": config.ingest.model_copy(update={"retry_failed": True})}
        )
    with _ingestor(config, args, _Line() if sys.stderr.isatty() else None) as (ingestor, ledger):
        sources, faults = _sources(args.paths, config)
        progress = ingestor.run(sources)
        faults += ingestor.faults
        failed = list(ledger.files("failed"))
    for fault in faults:
        print(fault, file=sys.stderr)
    for row in failed:
        print(f"{row.uri}: {row.error}", file=sys.stderr)
    print(json.dumps(asdict(progress)) if args.json else _summary(progress))
    return 1 if faults or progress.failed else 0


def _sources(paths: list[str], config: RagConfig) -> tuple[list[Source], list[RagError]]:
    """Those that can be opened, and why the others cannot: one bad path stops no other."""
    found: list[Source] = []
    faults: list[RagError] = []
    for path in paths:
        try:
            found.append(open_source(path, config.load))
        except RagError as exc:
            faults.append(exc)
    return found, faults


@contextmanager
def _ingestor(
    config: RagConfig, args: argparse.Namespace, report: _Line | None
) -> Iterator[tuple[Ingestor, Ledger]]:
    scope = Scope(TENANT, args.store)
    with Ledger(ledger_path(config), scope) as ledger:
        embedder = open_embedder(config.embed, home())
        splitter = _splitter(config, embedder)
        manifest = Manifest(
            embedder=embedder.name,
            dimension=embedder.dimension,
            chunking=splitter.fingerprint,
            bm25=config.index.bm25,
        )
        index = open_index(config.index, manifest, home())
        try:
            with ParserPool(config.load) as parser:
                yield (
                    Ingestor(
                        index, embedder, ledger, parser, splitter, scope, config.ingest, report
                    ),
                    ledger,
                )
        finally:
            index.close()


def _splitter(config: RagConfig, tokens: Tokens) -> Splitter:
    try:
        return Splitter(config.split, tokens)
    except ValueError as exc:
        raise configs.ConfigError(str(exc)) from exc


def _status(args: argparse.Namespace) -> int:
    path = ledger_path(rag_config(args))
    if not path.is_file():
        print("nothing has been ingested", file=sys.stderr)
        return 1
    with Ledger(path, Scope(TENANT, args.store), write=False) as ledger:
        rows = list(ledger.files("failed" if args.failed else None))
    for row in rows:
        if args.json:
            print(json.dumps(asdict(row)))
        else:
            print(f"{row.state:8}{row.chunks:7} chunks  {row.uri}  {row.error}".rstrip())
    if not args.json:
        print(f"{len(rows)} files, {sum(row.chunks for row in rows)} chunks")
    return 0


def _show(args: argparse.Namespace) -> int:
    config = rag_config(args)
    splitter = _splitter(config, open_embedder(config.embed, home()))
    with ParserPool(config.load) as parser:
        for entry in open_source(args.path, config.load).entries():
            for document in parser.parse(entry.read()):
                chunks = splitter.split(document)
                if args.json:
                    found = asdict(document) | {"chunks": [asdict(chunk) for chunk in chunks]}
                    print(json.dumps(found, ensure_ascii=False))
                    continue
                print(f"{document.uri}: {document.title} ({document.media_type})")
                for chunk in chunks:
                    where = f", page {chunk.page}" if chunk.page else ""
                    print(f"\n[{chunk.position}] {chunk.span.start}-{chunk.span.end}{where}")
                    print(chunk.embedded)
    return 0


def _remove(args: argparse.Namespace) -> int:
    with _ingestor(rag_config(args), args, None) as (ingestor, ledger):
        known = set(ledger.known())
        unknown = [uri for uri in args.uris if uri not in known]
        ingestor.remove([uri for uri in args.uris if uri in known])
    for uri in unknown:
        print(
            f"{uri} has not been ingested: `python -m rag status` lists what has", file=sys.stderr
        )
    return 1 if unknown else 0


class _Line:
    """One line on a terminal, rewritten at most once a second."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now < self._next and progress.files_done < progress.files_total:
            return
        self._next = now + _REPORT_EVERY_S
        eta = "" if progress.eta_s is None else f", {progress.eta_s:.0f} s left"
        end = "\n" if progress.files_done == progress.files_total else ""
        print(
            f"\r\x1b[K{progress.files_done}/{progress.files_total} files, "
            f"{progress.chunks} chunks, {progress.files_per_s:.1f} files/s, "
            f"{progress.chunks_per_s:.1f} chunks/s{eta}",
            end=end, file=sys.stderr, flush=True,
        )  # fmt: skip


def _summary(progress: Progress) -> str:
    return (
        f"{progress.files_done} files ({progress.unchanged} unchanged, {progress.failed} failed, "
        f"{progress.removed} removed), {progress.chunks} chunks stored in "
        f"{progress.elapsed_s:.1f} s: {progress.files_per_s:.1f} files/s, "
        f"{progress.chunks_per_s:.1f} chunks/s"
    )
