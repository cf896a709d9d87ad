"""The first pass: detection, duplicates, the split, leakage, the version."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from finetune.config import DataConfig, FileSource
from finetune.data.check import Pass, Ticker, check
from finetune.data.digest import is_held_out
from finetune.errors import BadData


def row(question: object, answer: object = "A", **more: Any) -> dict[str, Any]:
    messages = [
        {"role": "user", "content": f"{question}"},
        {"role": "assistant", "content": f"{answer}"},
    ]
    return {"messages": messages, **more}


def write(path: Path, rows: Sequence[Any]) -> FileSource:
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return FileSource(path=str(path))


def data(*train: FileSource, **more: Any) -> DataConfig:
    return DataConfig(train=train, **{"min_examples": 1, **more})


def _placed(config: DataConfig) -> dict[str, str]:
    """The part of each question."""
    return {item.example.messages[0]["content"]: item.part for item in Pass(config)}  # type: ignore[union-attr]


def test_good_data_has_no_faults_and_is_counted(tmp_path: Path) -> None:
    config = data(write(tmp_path / "a.jsonl", [row(i) for i in range(200)]))
    checked = check(config)
    assert checked.faults == ()
    assert checked.train + checked.validation == 200
    assert checked.validation > 0
    assert [(each.format, each.rows, each.bad) for each in checked.sources] == [
        ("messages", 200, 0)
    ]
    checked.require()


def test_the_split_is_about_the_fraction_and_stays_when_rows_are_added(tmp_path: Path) -> None:
    few = data(write(tmp_path / "a.jsonl", [row(i) for i in range(1000)]), validation_fraction=0.1)
    before = _placed(few)
    assert 70 < list(before.values()).count("validation") < 130
    rows = [row(i) for i in range(-500, 1500)]
    random.Random(0).shuffle(rows)
    after = _placed(data(write(tmp_path / "a.jsonl", rows), validation_fraction=0.1))
    assert {question: after[question] for question in before} == before


def test_a_larger_fraction_only_adds_to_validation() -> None:
    digests = [i.to_bytes(16, "little")[::-1][8:] * 2 for i in range(0, 2**64, 2**55)]
    small = {d for d in digests if is_held_out(d, 0.1)}
    assert small < {d for d in digests if is_held_out(d, 0.3)}
    assert not any(is_held_out(d, 0.0) for d in digests)


def test_answers_to_the_same_prompt_stay_on_one_side(tmp_path: Path) -> None:
    rows = [row(i % 50, f"answer {i}") for i in range(200)]
    config = data(write(tmp_path / "a.jsonl", rows), validation_fraction=0.3)
    sides: dict[str, set[str]] = {}
    for item in Pass(config):
        sides.setdefault(item.example.messages[0]["content"], set()).add(item.part)  # type: ignore[union-attr]
    assert all(len(parts) == 1 for parts in sides.values())
    assert {part for parts in sides.values() for part in parts} == {"train", "validation"}


def test_duplicates_are_counted_and_left_out_or_kept(tmp_path: Path) -> None:
    same = row("q", id=2)
    same["messages"][1]["weight"] = 1
    rows = [row("q", id=1), same, row("q", "other")]
    source = write(tmp_path / "a.jsonl", rows)
    checked = check(data(source, validation_fraction=0))
    assert (checked.train, checked.sources[0].duplicates) == (2, 1)
    checked = check(data(source, validation_fraction=0, deduplicate=False))
    assert (checked.train, checked.sources[0].duplicates) == (3, 1)


def test_a_held_out_row_that_is_trained_on_is_a_fault(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", [row("a"), row("b"), row("c")])
    held = write(tmp_path / "held.jsonl", [row("x"), row("b"), row("c", "another answer")])
    checked = check(data(train, validation=(held,)))
    (fault,) = checked.faults
    assert str(fault) == (
        f"{held.path}, row 2: is also in the training data ({train.path}, row 2): "
        "remove one of the two"
    )
    (warning,) = checked.warnings
    assert warning.startswith("1 validation examples have the prompt of a training example")
    assert (checked.train, checked.validation) == (3, 2)


def test_the_version_follows_content_and_nothing_else(tmp_path: Path) -> None:
    rows = [row(i) for i in range(50)]
    one = check(data(write(tmp_path / "a.jsonl", rows))).version
    shuffled = [{"id": i, **each} for i, each in enumerate(reversed(rows))]
    files = write(tmp_path / "b.jsonl", shuffled[:20]), write(tmp_path / "c.jsonl", shuffled[20:])
    assert check(data(*files)).version == one
    changed = [*rows[:-1], row(49, "A ")]
    assert check(data(write(tmp_path / "d.jsonl", changed))).version != one
    assert check(data(files[0], files[1], validation_fraction=0.5)).version != one
    assert len(one) == 64


def test_a_format_is_detected_at_the_first_row_that_fits(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [{"text": "x"}, {"instruction": "Q", "output": "A"}])
    checked = check(data(source, validation_fraction=0))
    assert checked.sources[0].format == "alpaca"
    (fault,) = checked.faults
    assert fault.row == 1
    assert fault.reason.startswith("fits no format: its fields are text; messages (messages);")


def test_a_row_of_several_formats_is_for_a_person_to_decide(tmp_path: Path) -> None:
    both = row("Q") | {"prompt": "Q", "chosen": "A", "rejected": "B"}
    source = write(tmp_path / "a.jsonl", [both])
    (fault, _) = check(data(source)).faults
    assert fault.reason == "fits several formats (messages, preference): set the source's `format`"
    chosen = FileSource(path=source.path, format="preference")
    checked = check(data(chosen, validation_fraction=0))
    assert checked.faults == ()
    assert checked.method == "preference"
    assert any("'messages' is not trained on (1 rows have it)" in text for text in checked.warnings)


def test_preferences_and_conversations_cannot_be_mixed(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", [row("Q")])
    pair = {"prompt": "Q", "chosen": "A", "rejected": "B"}
    second = write(tmp_path / "b.jsonl", [pair])
    (fault,) = check(data(first, second, validation_fraction=0)).faults
    assert fault.row == 0
    assert fault.reason == f"preference rows cannot be mixed with those of {first.path} (messages)"


def test_too_few_examples_and_empty_files_are_faults(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [])
    checked = check(data(source, min_examples=10))
    assert [str(fault) for fault in checked.faults] == [
        f"{source.path}: holds no rows",
        "all training data: 0 good examples to train on, and data.min_examples is 10",
    ]
    with pytest.raises(BadData, match="holds no rows\nall training data") as caught:
        checked.require()
    assert caught.value.faults == checked.faults
    assert check(DataConfig()).faults[0].reason == "names no file or data set"


def test_an_empty_validation_part_is_said(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [row("Q")])
    (warning,) = check(data(source, validation_fraction=0.0001)).warnings
    assert warning.startswith("no example fell into validation")


def test_progress_is_silent_until_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("finetune.data.check.time.monotonic", lambda: now[0])
    lines: list[str] = []
    ticker = Ticker(lines.append)
    for second in (0.5, 1.9, 2.1, 3.0, 4.2):
        now[0] = second
        ticker.tick("{:,} rows", round(second * 1000))
    assert lines == ["2,100 rows", "4,200 rows"]
