"""How close answers are: against values computed by hand and against properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.config import EvaluationConfig
from finetune.evaluation.text_metrics import (
    contains,
    exact_match,
    longest_common_subsequence,
    refuses,
    rouge_l,
    token_f1,
    words,
)

LISTS = st.lists(st.sampled_from("abcd"), max_size=12)
REFUSALS = EvaluationConfig().refusals


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The cat, the DOG!", ["the", "cat", "the", "dog"]),
        ("don't  stop\n3.5", ["dont", "stop", "3", "5"]),
        ("Straße ÉCOLE", ["strasse", "école"]),
        ("東京タワー", ["東", "京", "タ", "ワ", "ー"]),
        ("हिन्दी भाषा।", ["हिन्दी", "भाषा"]),
        ("... !", []),
    ],
)
def test_words_have_neither_case_nor_punctuation(text: str, found: list[str]) -> None:
    assert words(text) == found


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("The Eiffel Tower.", "eiffel tower", True),
        ("Eiffel  tower\n", "Eiffel Tower", True),
        ("Tower Eiffel", "Eiffel Tower", False),
        ("", "Eiffel Tower", False),
        ("A", "a", True),
        ("the", "a", False),
        ("?", "!", False),
        ("?", " ? ", True),
    ],
)
def test_exact_match_forgives_case_punctuation_and_articles(
    answer: str, reference: str, same: bool
) -> None:
    assert exact_match(answer, reference) is same


def test_token_f1_is_that_of_squad() -> None:
    # Precision 2/3, recall 2/4.
    assert token_f1("quick brown dog", "quick brown fox jumps") == pytest.approx(4 / 7)
    # A word counts as often as it stands in both.
    assert token_f1("no no no", "no yes") == pytest.approx(2 / 5)
    assert token_f1("", "yes") == 0
    assert token_f1("?", "?") == 1


def test_rouge_l_is_that_of_the_paper() -> None:
    # Lin 2004, section 3.1: the two candidates for "police killed the gunman".
    reference = "police killed the gunman"
    assert rouge_l("police kill the gunman", reference) == pytest.approx(3 / 4)
    assert rouge_l("the gunman kill police", reference) == pytest.approx(2 / 4)
    # Of unequal lengths: recall 3/4, precision 3/6.
    assert rouge_l("the police then killed a gunman", reference) == pytest.approx(0.6)
    assert rouge_l("", reference) == 0


@given(LISTS, LISTS)
def test_the_subsequence_is_the_longest(first: list[str], second: list[str]) -> None:
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            table[i + 1][j + 1] = (
                table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
            )
    assert longest_common_subsequence(first, second) == table[-1][-1]


@given(st.text(max_size=60), st.text(max_size=60))
def test_scores_are_shares_and_symmetric(answer: str, reference: str) -> None:
    for score in (token_f1, rouge_l):
        assert 0 <= score(answer, reference) <= 1
        assert score(answer, reference) == pytest.approx(score(reference, answer))
        assert score(answer, answer) == 1
    assert exact_match(answer, answer)
    if exact_match(answer, reference) and words(answer):
        assert token_f1(answer, reference) == 1
    # In order or not: what is shared in order is shared.
    if words(answer) == words(reference) != []:
        assert rouge_l(answer, reference) == 1


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but no.",
        "  I\u2019m sorry",
        '"I cannot do that"',
        "**I can't**",
        "as an ai model,",
    ],
)
def test_refusals_are_told_by_their_beginning(answer: str) -> None:
    assert refuses(answer, REFUSALS)


@pytest.mark.parametrize(
    "answer", ["", "Tell them: I'm sorry.", "I can", "Sorry to hear that. Here is how:"]
)
def test_other_answers_are_no_refusals(answer: str) -> None:
    assert not refuses(answer, REFUSALS)


def test_an_answer_contains_whole_words_in_order() -> None:
    assert contains("It is Leonardo da Vinci!", "da vinci")
    assert not contains("It is Vinci, da.", "da vinci")
    assert not contains("184", "8")
    assert contains("2 + 2 = 4.", "4")
    assert not contains("anything", "?!")
