from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from itertools import islice

from benchmarks.load import LoadSpec
from benchmarks.workload import Request, TokenWorkload


def drawn(workload: TokenWorkload, stream: int = 0, count: int = 200) -> list[Request]:
    return list(islice(workload.requests(stream, "base"), count))


def test_prompts_have_the_exact_length_and_never_repeat() -> None:
    workload = TokenWorkload(input_tokens=7, seed=1, first_id=10, last_id=1000)
    requests = [request for stream in range(4) for request in drawn(workload, stream)]
    assert {len(request.prompt) for request in requests} == {7}
    assert len({tuple(request.prompt) for request in requests}) == len(requests)
    assert all(10 <= token <= 1000 for request in requests for token in request.prompt)
    assert {request.model for request in requests} == {"base"}


def test_the_seed_decides_and_another_seed_shares_nothing() -> None:
    first, again, other = (TokenWorkload(5, seed) for seed in (1, 1, 2))
    assert drawn(first) == drawn(again)
    assert not {tuple(r.prompt) for r in drawn(first)} & {tuple(r.prompt) for r in drawn(other)}


def test_shared_prefixes_are_the_same_in_every_stream() -> None:
    workload = TokenWorkload(20, 1, prefixes=2, prefix_tokens=12)
    starts = {tuple(r.prompt[:12]) for stream in range(3) for r in drawn(workload, stream, 20)}
    assert len(starts) == 2
    assert {len(request.prompt) for request in drawn(workload)} == {20}


def test_models_are_drawn_uniformly_or_by_rank() -> None:
    names = ("a", "b", "c", "d")
    even = Counter(r.model for r in drawn(TokenWorkload(1, 3, models=names), count=2000))
    assert min(even.values()) > 400
    skewed = Counter(r.model for r in drawn(TokenWorkload(1, 3, models=names, zipf=1.0), 0, 2000))
    assert [name for name, _ in skewed.most_common()] == list(names)
    assert skewed["a"] > 3 * skewed["d"]


def test_a_spec_survives_its_way_to_the_client() -> None:
    spec = LoadSpec("http://x", 2, "m", tokens=TokenWorkload(4, 1, models=("a", "b")), spread=True)
    assert LoadSpec.from_json(json.dumps(asdict(spec))) == spec
    plain = LoadSpec("http://x", 2, "m")
    assert LoadSpec.from_json(json.dumps(asdict(plain))) == plain
