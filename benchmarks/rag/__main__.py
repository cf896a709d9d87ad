"""Retrieval on labelled sets:

    python -m benchmarks.rag quality --data DIR --cache DIR
    python -m benchmarks.rag latency --data DIR --cache DIR --sizes 1000 10000 100000
    python -m benchmarks.rag isolation --operations 100000
    python -m benchmarks.rag poison

DIR has the folders `cranfield`, `chunking_eval` and `xquad`. Each command replaces its own part of
the results.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

from benchmarks.rag import data, isolation, latency, poison, quality
from benchmarks.rag.cache import CachedEmbedder
from rag.embed.config import SentenceTransformersConfig
from rag.embed.open import open_embedder
from rag.generate import GenerateConfig, HttpGenerator
from rag.index.config import Bm25Config, HnswConfig, IndexConfig
from rag.index.edge import EdgeIndex
from rag.index.manifest import Manifest
from rag.protocols import Embedder, Generator, TokenVectors


class Local(Embedder, TokenVectors, Protocol):
    """What an embedder in this process gives."""


RESULTS = Path(__file__).parents[1] / "results" / "rag.json"
SETS: dict[str, Callable[[Path], data.Labelled]] = {
    "cranfield": data.cranfield,
    "chunking_eval": data.span_documents,
    "xquad": data.xquad,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one part; 0."""
    args = _parser().parse_args(argv)
    _store(args.out, args.part, args.run(args))
    return 0


def _quality(args: argparse.Namespace) -> dict[str, Any]:
    embedder = CachedEmbedder(_local(args.model), args.cache)
    generator = _generator(args)
    found: dict[str, Any] = {"embedder": embedder.name, "sets": {}}
    for name in args.sets:
        with tempfile.TemporaryDirectory(prefix="corral-quality-") as folder:
            labelled = _first(SETS[name](args.data / name), args.questions)
            prepared = quality.prepare(labelled, embedder, Path(folder) / "i")
            found["sets"][name] = quality.measure(
                prepared, args.configurations, generator, args.generated
            )
            if name == "cranfield":
                found["bm25_against_bm25s"] = _agreement(prepared, Path(folder))
            prepared.index.close()
            graph = IndexConfig(hnsw=HnswConfig(exact_below_kib=1))
            again = quality.prepare(prepared.labelled, embedder, Path(folder) / "g", graph)
            found["sets"][name]["hnsw"] = quality.hnsw_recall(again)
            again.index.close()
    return found


def _first(labelled: data.Labelled, count: int | None) -> data.Labelled:
    """The set with every nth question, so that about `count` are left; all of them if None."""
    if count is None or count >= len(labelled.questions):
        return labelled
    every = -(-len(labelled.questions) // count)
    return replace(labelled, questions=labelled.questions[::every])


def _agreement(prepared: quality.Prepared, folder: Path) -> dict[str, Any]:
    """With the configured average length, and with the set's own."""
    configured = quality.bm25_agreement(prepared)
    own = IndexConfig(bm25=Bm25Config(average_tokens=configured["average_tokens"]))
    fitted = quality.prepare(prepared.labelled, prepared.embedder, folder / "fitted", own)
    found = {"configured": configured, "same_average": quality.bm25_agreement(fitted)}
    fitted.index.close()
    return found


def _latency(args: argparse.Namespace) -> dict[str, Any]:
    embedder = _local(args.model)
    cached = CachedEmbedder(embedder, args.cache)
    labelled = [SETS[name](args.data / name) for name in ("cranfield", "xquad")]
    with tempfile.TemporaryDirectory(prefix="corral-latency-") as folder:
        prepared = [quality.prepare(one, cached, Path(folder) / one.name) for one in labelled]
        for one in prepared:
            one.index.close()
    chunks = [chunk for one in prepared for chunk in one.chunks]
    vectors = cached.encode([chunk.embedded for chunk in chunks])
    questions = [q.question for one in labelled for q in one.questions[:100]]
    rows = {
        str(size): latency.measure(
            size, chunks, vectors, questions, embedder, embedder, args.reranked
        )
        for size in args.sizes
    }
    return {"embedder": embedder.name, "cpus": os.cpu_count(), "sizes": rows}


def _isolation(args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="corral-isolation-") as folder:
        manifest = Manifest(embedder="random", dimension=isolation.DIMENSION)
        index = EdgeIndex(Path(folder), IndexConfig(), manifest)
        tenants = isolation.RandomTenants(index, random.Random(args.seed))
        began = time.perf_counter()
        tenants.run(args.operations)
        took = time.perf_counter() - began
        index.close()
    return {
        "engine": "embedded",
        "operations": args.operations,
        "by_kind": dict(sorted(tenants.done.items())),
        "seed": args.seed,
        "leaks": 0,
        "seconds": round(took, 1),
    }


def _poison(args: argparse.Namespace) -> dict[str, Any]:
    return poison.measure()


def _local(model: str) -> Local:
    home = Path(os.environ.get("CORRAL_HOME", "~/.corral")).expanduser()
    embedder: Any = open_embedder(SentenceTransformersConfig(model=model), home)
    return cast(Local, embedder)


def _generator(args: argparse.Namespace) -> Generator | None:
    if args.generator_url is None:
        return None
    return HttpGenerator(GenerateConfig(url=args.generator_url, model=args.generator_model))


def _store(path: Path, part: str, found: dict[str, Any]) -> None:
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known[part] = _merged(known.get(part, {}), found)
    path.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1, ensure_ascii=False))


def _merged(known: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """`found`, with what is known of sets and sizes that this run left out."""
    merged = {**known, **found} if {"sets", "sizes"} & set(found) else found
    for part in {"sets", "sizes"} & set(known) & set(found):
        merged[part] = {**known[part], **found[part]}
    return merged


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.rag",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    parts = parser.add_subparsers(required=True, metavar="PART", dest="part")
    for name, run in (("quality", _quality), ("latency", _latency)):
        part = parts.add_parser(name)
        part.add_argument("--data", type=Path, required=True, help="the labelled sets")
        part.add_argument("--cache", type=Path, required=True, help="embeddings are kept here")
        part.add_argument("--model", default="all-minilm-l6-v2")
        part.set_defaults(run=run)
        if name == "quality":
            part.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
            names = list(quality.CONFIGURATIONS)
            part.add_argument("--configurations", nargs="+", choices=names, default=names)
            part.add_argument("--questions", type=int, help="of each set, spread evenly")
            part.add_argument("--generator-url", help="OpenAI endpoint, for the query options")
            part.add_argument("--generator-model", default="smollm2-135m")
            part.add_argument("--generated", type=int, default=50, help="questions for these")
        else:
            part.add_argument("--reranked", type=int, default=40, help="questions with MaxSim")
            part.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    part = parts.add_parser("isolation")
    part.add_argument("--operations", type=int, default=100_000)
    part.add_argument("--seed", type=int, default=0)
    part.set_defaults(run=_isolation)
    parts.add_parser("poison").set_defaults(run=_poison)
    return parser


if __name__ == "__main__":
    sys.exit(main())
