"""The shipped questions, and files of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.errors import SourceUnreadable
from finetune.evaluation.forgetting import load_questions


def test_the_shipped_questions_are_many_and_different() -> None:
    found = load_questions("builtin")
    assert len(found) >= 40
    assert len({each.question for each in found}) == len(found)
    for each in found:
        assert all(each.is_right(f"I think it is {answer}.") for answer in each.answers)
        assert not each.is_right(each.question), "the question must not give the answer away"
        assert not each.is_right("")


def test_any_of_the_answers_is_right(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text('{"question": "Hue of leaves?", "answers": ["green", "verdant"]}\n')
    (question,) = load_questions(str(path))
    assert question.is_right("Mostly GREEN!")
    assert question.is_right("verdant")
    assert not question.is_right("greenish")


def test_every_wrong_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text('{"question": "a"}\nnot json\n{"question": "b", "answers": ["c"], "x": 1}\n7\n')
    with pytest.raises(SourceUnreadable) as caught:
        load_questions(str(path))
    lines = str(caught.value).splitlines()
    assert [line.split("row ")[1].split(":")[0] for line in lines] == ["1", "2", "3", "4"]
    assert "answers: Field required" in lines[0]
    assert "is not JSON" in lines[1]


def test_fewer_questions_are_of_all_topics() -> None:
    every, few = load_questions("builtin"), load_questions("builtin", 12)
    assert len(few) == len(set(few)) == 12
    assert {each.topic for each in few} == {each.topic for each in every}
    assert load_questions("builtin", 1000) == every


def test_none_asks_nothing_and_a_missing_file_is_an_error(tmp_path: Path) -> None:
    assert load_questions(None) == ()
    with pytest.raises(SourceUnreadable, match="cannot read"):
        load_questions(str(tmp_path / "absent.jsonl"))
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(SourceUnreadable, match="holds no questions"):
        load_questions(str(tmp_path / "empty.jsonl"))
