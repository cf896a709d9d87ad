"""Packing loses nothing, repeats nothing, and keeps examples apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.packing import IGNORED, pack, plan_packs
from finetune.data.tokenizer import Encoded


def _example(tokens: list[int]) -> Encoded:
    return Encoded(tokens, [token % 3 > 0 for token in tokens])


EXAMPLES = st.lists(st.lists(st.integers(0, 1000), min_size=1, max_size=16), max_size=40)


@given(EXAMPLES, st.integers(16, 40))
def test_no_token_is_lost_or_repeated_and_no_pack_is_too_long(
    texts: list[list[int]], max_length: int
) -> None:
    examples = [_example(tokens) for tokens in texts]
    plan = plan_packs([len(tokens) for tokens in texts], max_length)
    assert sorted(index for group in plan for index in group) == list(range(len(texts)))
    for group in plan:
        packed = pack([examples[index] for index in group])
        assert 0 < len(packed.tokens) <= max_length
        assert packed.tokens == [token for index in group for token in texts[index]]
        edges = list(zip(packed.cu_seqlens, packed.cu_seqlens[1:], strict=False))
        assert [packed.tokens[low:high] for low, high in edges] == [texts[i] for i in group]
        assert packed.max_seqlen == max(high - low for low, high in edges)
        for (low, high), index in zip(edges, group, strict=True):
            assert packed.position_ids[low:high] == list(range(high - low))
            learnt = [t if flag else IGNORED for t, flag in
                      zip(texts[index], examples[index].trainable, strict=True)]  # fmt: skip
            assert packed.labels[low:high] == [IGNORED, *learnt[1:]]


@given(st.lists(st.integers(1, 30), max_size=60), st.integers(30, 50))
def test_the_plan_is_first_fit_decreasing(lengths: list[int], max_length: int) -> None:
    bins: list[int] = []
    expected: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fits = [at for at, used in enumerate(bins) if used + lengths[index] <= max_length]
        if not fits:
            bins.append(0)
            expected.append([])
        at = fits[0] if fits else len(bins) - 1
        bins[at] += lengths[index]
        expected[at].append(index)
    assert plan_packs(lengths, max_length) == expected


@pytest.mark.parametrize("length", [0, 11])
def test_an_example_that_fits_nowhere_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=rf"example 1 has {length} tokens, not 1 to 10"):
        plan_packs([5, length], 10)
