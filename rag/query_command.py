"""`python -m rag search`, `ask`, `eval`, `snapshot` and `restore`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from configs import parse
from rag.base import KnowledgeBase, opened
from rag.cite.answer import Citation, CitedAnswer, answer
from rag.evaluate.answers import GeneratorJudge
from rag.evaluate.labelled import Question, read_questions
from rag.evaluate.run import Evaluation, evaluate_answers, evaluate_retrieval
from rag.generate import HttpGenerator
from rag.index.portable import restore, snapshot
from rag.ingest.command import TENANT, home, rag_config
from rag.retrieve.config import RetrieveConfig
from rag.types import Hit, Scope

__all__ = ["register"]


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the five commands."""
    search = _command(commands, "search", "find passages")
    search.add_argument("question")
    search.add_argument("--limit", type=int)
    search.set_defaults(run=_search)
    ask = _command(commands, "ask", "answer from the documents, with checked citations")
    ask.add_argument("question")
    ask.set_defaults(run=_ask)
    evaluate = _command(commands, "eval", "measure on labelled questions")
    evaluate.add_argument("questions", type=Path, help="JSON Lines: rag/evaluate/labelled.py")
    evaluate.add_argument(
        "--against", action="append", default=[], metavar="A.B=VALUE",
        help="also measure with this changed in `retrieve`, and compare",
    )  # fmt: skip
    evaluate.add_argument("--answers", action="store_true", help="also ask, and measure answers")
    evaluate.add_argument("--judge", action="store_true", help="the model judges answers too")
    evaluate.add_argument("--limit", type=int, default=10, help="the k of nDCG@k")
    evaluate.add_argument("--out", type=Path, metavar="DIR", help="report.md and report.html")
    evaluate.set_defaults(run=_eval)
    save = _command(commands, "snapshot", "write the whole index to one file")
    save.add_argument("file", type=Path)
    save.set_defaults(run=_snapshot)
    load = _command(commands, "restore", "fill an empty index from a snapshot")
    load.add_argument("file", type=Path)
    load.set_defaults(run=_restore)


def _command(
    commands: argparse._SubParsersAction[Any], name: str, about: str
) -> argparse.ArgumentParser:
    found: argparse.ArgumentParser = commands.add_parser(name, help=about)
    found.add_argument("--config", default="default", help="a file, or a name in configs/rag/")
    found.add_argument("--set", action="append", default=[], metavar="A.B=VALUE")
    found.add_argument("--store", default="default", help="the knowledge base")
    found.add_argument("--json", action="store_true", help="print JSON")
    return found


def _search(args: argparse.Namespace) -> int:
    with opened(rag_config(args), home()) as base:
        scope = Scope(TENANT, args.store)
        hits = base.retriever().search(scope, args.question, limit=args.limit).hits
    for hit in hits:
        print(json.dumps(_hit(hit), ensure_ascii=False) if args.json else _shown(hit))
    return 0 if hits else 1


def _ask(args: argparse.Namespace) -> int:
    config = rag_config(args)
    with opened(config, home()) as base, closing(HttpGenerator(config.generate)) as model:
        retriever, scope = base.retriever(), Scope(TENANT, args.store)
        passages = retriever.passages(scope, retriever.search(scope, args.question))
        found = answer(args.question, passages, model, config.cite)
    if args.json:
        print(json.dumps(_answer(found), ensure_ascii=False))
        return 0 if found.in_documents else 1
    print(found.text)
    for line in dict.fromkeys(_source(citation) for citation in found.citations):
        print(line)
    if found.removed:
        counts = ", ".join(f"{count} {reason}" for reason, count in found.removed.items())
        print(f"removed from the answer: {counts}", file=sys.stderr)
    return 0 if found.in_documents else 1


def _eval(args: argparse.Namespace) -> int:
    questions = read_questions(args.questions)
    config = rag_config(args)
    with opened(config, home()) as base:
        found = [_evaluation(base, "configuration", base.config.retrieve, questions, args)]
        if args.against:
            other = parse(RetrieveConfig, config.retrieve.model_dump(), args.against)
            name = ", ".join(args.against)
            found.append(_evaluation(base, name, other, questions, args))
    _report(found, args)
    return 0


def _evaluation(
    base: KnowledgeBase,
    name: str,
    config: RetrieveConfig,
    questions: list[Question],
    args: argparse.Namespace,
) -> Evaluation:
    retriever, scope = base.retriever(config), Scope(TENANT, args.store)
    found = evaluate_retrieval(name, retriever, scope, questions, args.limit)
    if not (args.answers or args.judge):
        return found
    with closing(HttpGenerator(base.config.generate)) as model:
        answers = evaluate_answers(
            name, retriever, scope, questions,
            lambda question, passages: answer(question, passages, model, base.config.cite),
            embedder=base.embedder, judge=GeneratorJudge(model) if args.judge else None,
        )  # fmt: skip
    return Evaluation(name=name, values={**found.values, **answers.values})


def _report(found: list[Evaluation], args: argparse.Namespace) -> None:
    from rag.evaluate.report import comparisons, markdown, write

    if args.out is not None:
        write(found, args.out)
    if not args.json:
        print(markdown(found), end="")
        return
    means = {one.name: {n: e.model_dump() for n, e in one.estimates().items()} for one in found}
    differences = {name: one.model_dump() for name, one in comparisons(found).items()}
    print(json.dumps({"configurations": means, "comparison": differences}))


def _snapshot(args: argparse.Namespace) -> int:
    with opened(rag_config(args), home()) as base:
        count = snapshot(base.index, args.file)
    print(json.dumps({"chunks": count}) if args.json else f"{count} chunks in {args.file}")
    return 0


def _restore(args: argparse.Namespace) -> int:
    with opened(rag_config(args), home()) as base:
        count = restore(base.index, args.file)
        base.index.optimize()
        base.index.flush()
    print(json.dumps({"chunks": count}) if args.json else f"{count} chunks restored")
    return 0


def _shown(hit: Hit) -> str:
    text = " ".join(hit.chunk.text.split())
    return (
        f"{hit.score:7.3f}  {_where(hit.chunk.uri, hit.chunk.heading_path, hit.chunk.page)}\n"
        + (f"         {text[:200]}")
    )


def _where(uri: str, headings: Iterable[str], page: int | None) -> str:
    return " > ".join([uri, *headings]) + (f", page {page}" if page else "")


def _source(citation: Citation) -> str:
    chunk = citation.passage.chunk
    where = _where(chunk.uri, chunk.heading_path, chunk.page)
    return f"[{citation.passage.number}] {where}"


def _hit(hit: Hit) -> dict[str, Any]:
    chunk = hit.chunk
    return {
        "score": hit.score, "chunk": chunk.id, "uri": chunk.uri, "title": chunk.title,
        "headings": chunk.heading_path, "page": chunk.page, "start": chunk.span.start,
        "end": chunk.span.end, "text": chunk.text, "metadata": dict(chunk.metadata),
    }  # fmt: skip


def _answer(found: CitedAnswer) -> dict[str, Any]:
    return {
        "text": found.text,
        "in_documents": found.in_documents,
        "removed": found.removed,
        "citations": [
            {
                "number": one.passage.number,
                "uri": one.passage.chunk.uri,
                "claim": [one.claim.start, one.claim.end],
                "support": [one.support.start, one.support.end],
            }
            for one in found.citations
        ],
    }
