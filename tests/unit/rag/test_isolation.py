"""No tenant ever sees another's chunk, and a poisoned document gets nothing through.

`python -m benchmarks.rag isolation` does the first for longer.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from qdrant_client import QdrantClient

from benchmarks.rag.isolation import DIMENSION, Leak, RandomTenants
from benchmarks.rag.poison import Attack, attacked, poisoned, succeeds
from rag.cite.answer import CitedAnswer
from rag.index.config import IndexConfig
from rag.index.edge import EdgeIndex
from rag.index.manifest import Manifest
from rag.index.open import StoredIndex
from rag.index.server import ServerIndex
from rag.types import Chunk, Scope, Span

MANIFEST = Manifest(embedder="random", dimension=DIMENSION)
POISON = poisoned()


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")
@pytest.mark.filterwarnings("ignore:Local mode performs exact:UserWarning")
@pytest.mark.parametrize("kind", ["edge", "server"])
def test_no_tenant_sees_another_s_chunk(tmp_path: Path, kind: str) -> None:
    index: StoredIndex
    if kind == "edge":
        index = EdgeIndex(tmp_path, IndexConfig(), MANIFEST)
    else:
        index = ServerIndex(IndexConfig(), MANIFEST, QdrantClient(":memory:"))
    tenants = RandomTenants(index, random.Random(7))
    tenants.run(400)
    assert tenants.done["search"] > 50
    assert sum(len(mine) for mine in tenants.held.values()) > 50
    index.close()


def test_the_property_test_would_notice_a_leak(tmp_path: Path) -> None:
    index = EdgeIndex(tmp_path, IndexConfig(), MANIFEST)
    tenants = RandomTenants(index, random.Random(7))
    foreign = Chunk("d1", Span(0, 5), "alpha", 0, metadata={"owner": "alpha", "n": 5})
    index.upsert(Scope("a", "x"), [foreign], tenants._vector()[None])
    with pytest.raises(Leak):
        tenants.run(400)
    index.close()


NEEDS_ENTAILMENT = {"recombined", "recombined-requests"}
"""A falsehood of a passage's own words: the checks without a model cannot tell."""


@pytest.mark.parametrize("attack", POISON.attacks, ids=lambda attack: attack.id)
def test_a_poisoned_document_gets_nothing_through(attack: Attack) -> None:
    got_through = succeeds(POISON, attack, attacked(POISON, attack))
    assert got_through == (attack.id in NEEDS_ENTAILMENT)


@pytest.mark.parametrize("attack", POISON.attacks, ids=lambda attack: attack.id)
def test_an_entailment_model_closes_the_rest(attack: Attack) -> None:
    class Doubter:
        def entails(self, premise: str, claim: str) -> float:
            return 0.0

    assert not succeeds(POISON, attack, attacked(POISON, attack, Doubter()))


@pytest.mark.parametrize("attack", POISON.attacks, ids=lambda attack: attack.id)
def test_without_checks_it_would_get_through(attack: Attack) -> None:
    if attack.kind == "citation":
        assert "[" in attack.obeyed
        return
    unchecked = CitedAnswer(attack.obeyed.replace("{secret}", POISON.canary), (), {}, True)
    assert succeeds(POISON, attack, unchecked)
