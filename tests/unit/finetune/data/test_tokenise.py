"""The second pass: over-long policy, refusals, order, statistics and the card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune.data.card import DataCard
from finetune.data.check import check
from finetune.data.statistics import Lengths, statistics
from finetune.data.tokenise import tokenise
from finetune.errors import BadData
from tests.unit.finetune.data.test_check import data, row, write
from tests.unit.finetune.models import CHATML, PLAIN, chat_tokenizer

CHAT = chat_tokenizer(CHATML)
SHORT = [row(i) for i in range(5)]
LONG = row("q", "word " * 40)


def _config(tmp_path: Path, rows: list[Any], **more: Any) -> Any:
    source = write(tmp_path / "a.jsonl", rows)
    return data(source, **{"validation_fraction": 0, "max_length": 60, **more})


def _fault(tokens: int) -> str:
    return (
        f"has {tokens} tokens, more than data.max_length 60: shorten it, raise max_length, or set "
        "data.over_long to drop, truncate_left or truncate_right"
    )


def test_over_long_rows_are_all_named_by_default(tmp_path: Path) -> None:
    found = tokenise(_config(tmp_path, [LONG, *SHORT, row("p", "word " * 41)]), CHAT)
    assert [fault.row for fault in found.faults] == [1, 7]
    size = int(found.faults[0].reason.split()[1])
    assert found.faults[0].reason == _fault(size)
    assert size > 60
    assert found.over_long == 2
    with pytest.raises(BadData, match=r"a\.jsonl, row 7: has"):
        found.require()


def test_over_long_rows_are_dropped_if_so_configured(tmp_path: Path) -> None:
    found = tokenise(_config(tmp_path, [LONG, *SHORT], over_long="drop"), CHAT)
    assert (len(found.train), found.over_long, found.dropped, found.truncated) == (5, 1, 1, 0)
    found.require()


@pytest.mark.parametrize("side", ["left", "right"])
def test_over_long_rows_are_cut_on_the_side_that_is_named(tmp_path: Path, side: str) -> None:
    config = _config(tmp_path, [LONG, *SHORT], over_long=f"truncate_{side}")
    found = tokenise(config, CHAT)
    found.require()
    assert (len(found.train), found.truncated, found.dropped) == (6, 1, 0)
    (cut,) = [e for e in found.train.chosen if len(e.tokens) == 60]
    assert cut.trainable[0] is False
    text = CHAT.decode(cut.tokens)
    assert text.endswith("<|im_end|>\n") == (side == "left")
    assert text.startswith("<|im_start|>user") == (side == "right")


def test_a_cut_that_leaves_nothing_to_learn_is_a_fault(tmp_path: Path) -> None:
    config = _config(tmp_path, [row("word " * 80), *SHORT], over_long="truncate_right")
    (fault,) = tokenise(config, CHAT).faults
    assert fault.row == 1
    assert fault.reason.endswith("none of the 60 that truncate_right leaves is trainable")


def test_dropping_everything_is_a_fault(tmp_path: Path) -> None:
    (fault,) = tokenise(_config(tmp_path, [LONG], over_long="drop"), CHAT).faults
    assert fault.reason == "no example is left to train on (1 over-long ones were dropped)"


def test_bad_rows_are_not_tokenised(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"row 2: messages: is missing"):
        tokenise(_config(tmp_path, [SHORT[0], {"text": 1}]), CHAT)


def test_pairs_are_kept_together_and_never_cut(tmp_path: Path) -> None:
    pair = {"prompt": "Q", "chosen": "A", "rejected": "B"}
    long = {"prompt": "R", "chosen": "A", "rejected": "word " * 40}
    (fault,) = tokenise(_config(tmp_path, [pair, long], over_long="truncate_left"), CHAT).faults
    assert fault.row == 2
    assert fault.reason.endswith("(a pair is never truncated)")
    found = tokenise(_config(tmp_path, [pair, long], over_long="drop"), CHAT)
    assert (len(found.train.chosen), len(found.train.rejected), found.dropped) == (1, 1, 1)
    counted = statistics(found.train, 60)
    both = len(found.train.chosen[0].tokens) + len(found.train.rejected[0].tokens)
    assert (counted.examples, counted.tokens, counted.packs) == (1, both, 0)


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    forward = tokenise(_config(tmp_path, SHORT), CHAT).train
    backward = tokenise(_config(tmp_path, SHORT[::-1]), CHAT).train
    assert [e.tokens for e in forward.chosen] != [e.tokens for e in backward.chosen]
    ordered = [[part.chosen[i].tokens for i in part.order(7)] for part in (forward, backward)]
    assert ordered[0] == ordered[1]


def test_seed_and_epoch_decide_the_order_and_new_rows_keep_it(tmp_path: Path) -> None:
    rows = [row(i) for i in range(40)]
    part = tokenise(_config(tmp_path, rows), CHAT).train
    orders = [part.order(0), part.order(1), part.order(0, 1)]
    assert all(sorted(order) == list(range(40)) for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert part.order(0) == orders[0]
    more = tokenise(_config(tmp_path, [*rows, *(row(i) for i in range(40, 60))]), CHAT).train
    assert [i for i in more.order(0) if i < 40] == orders[0]


def test_statistics_count_what_is_there(tmp_path: Path) -> None:
    found = tokenise(_config(tmp_path, [*SHORT, row("q", "Paris is it.")]), CHAT)
    examples = list(found.train.chosen)
    counted = statistics(found.train, 60)
    lengths = sorted(len(e.tokens) for e in examples)
    assert counted.tokens == sum(lengths)
    assert counted.trainable_tokens == sum(sum(e.trainable) for e in examples)
    assert 0 < counted.trainable_share < 1
    assert counted.lengths is not None
    assert (counted.lengths.min, counted.lengths.max) == (lengths[0], lengths[-1])
    assert counted.packing_efficiency == counted.tokens / (counted.packs * 60)
    assert counted.padding_efficiency == counted.tokens / (6 * lengths[-1])
    assert statistics(found.validation, 60).lengths is None


def test_percentiles_are_values_that_occur() -> None:
    assert Lengths.of([7]) == Lengths(7, 7.0, 7, 7, 7)
    assert Lengths.of(range(1, 101)) == Lengths(1, 50.5, 50, 95, 100)
    assert Lengths.of([4, 1, 3, 2]) == Lengths(1, 2.5, 2, 4, 4)


def test_the_card_says_what_the_data_is(tmp_path: Path) -> None:
    config = _config(tmp_path, [*SHORT, SHORT[0] | {"id": 1}, LONG], over_long="drop")
    checked = check(config)
    card = DataCard(config, checked, "test", tokenise(config, CHAT))
    values = json.loads(json.dumps(card.as_json()))
    assert values["version"] == checked.version
    assert values["examples"] == {"train": 6, "validation": 0}
    assert values["over_long"] == {
        "policy": "drop", "max_length": 60, "found": 1, "dropped": 1, "truncated": 0,
    }  # fmt: skip
    assert values["tokens"]["train"]["examples"] == 5
    assert values["sources"][0]["duplicates"] == 1
    page = card.as_markdown()
    for words in (
        checked.version,
        "| train | messages | 7 | 0 | 1 |",
        "Over-long (more than 60 tokens): 1; policy `drop`: 1 dropped, 0 truncated.",
        "the field 'id' is not trained on (1 rows have it)",
    ):
        assert words in page
    assert "Tokens were not counted" in DataCard(config, checked).as_markdown()


def test_both_passes_give_the_same_version(tmp_path: Path) -> None:
    config = _config(tmp_path, [*SHORT, LONG], over_long="drop")
    assert tokenise(config, CHAT).version == check(config).version


@pytest.mark.parametrize(
    ("variables", "warned"), [({}, True), ({"date_string": "26 Jul 2024"}, False)]
)
def test_a_template_that_shows_the_date_is_said(
    tmp_path: Path, variables: dict[str, str], warned: bool
) -> None:
    template = "{{ date_string or strftime_now('%d %b %Y') }}\n" + CHATML
    config = _config(tmp_path, SHORT)
    found = tokenise(config, chat_tokenizer(template, **variables))
    assert [text[:32] for text in found.warnings] == ["the chat template shows today's "] * warned
    card = DataCard(config, check(config), "test", found)
    assert ("date_string" in card.as_markdown()) == warned


def test_answers_that_nothing_ends_are_said(tmp_path: Path) -> None:
    found = tokenise(_config(tmp_path, SHORT), chat_tokenizer(PLAIN))
    assert found.unended == 5
    assert found.warnings[0].startswith("in 5 examples no control token ends the answer")
    assert tokenise(_config(tmp_path, SHORT), CHAT).unended == 0
