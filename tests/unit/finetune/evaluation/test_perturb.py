"""Perturbed prompts: the same each time, and still the same question."""

from __future__ import annotations

import random
import re

from hypothesis import given
from hypothesis import strategies as st

from finetune.config.evaluation import Perturbation
from finetune.evaluation.perturb import perturb, typos

TEMPLATES = ("Please answer: {prompt}", "{prompt} Answer briefly.")
QUESTION = "What is the capital of the northern province, founded in 1847?"


def test_a_slip_stays_within_one_word_in_seven() -> None:
    changed = typos(QUESTION, random.Random(0))
    before, after = QUESTION.split(), changed.split()
    differing = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert len(differing) == 1
    ((old, new),) = differing
    assert old[0] == new[0]
    assert abs(len(old) - len(new)) <= 1
    assert "1847" in changed


def test_case_and_wording_change_and_nothing_else() -> None:
    assert perturb(QUESTION, "case", TEMPLATES, 0).casefold() == QUESTION.casefold()
    assert perturb(QUESTION, "case", TEMPLATES, 0) != QUESTION
    wordings = {perturb(QUESTION, "paraphrase", TEMPLATES, seed) for seed in range(20)}
    assert wordings == {f"Please answer: {QUESTION}", f"{QUESTION} Answer briefly."}


def test_braces_in_a_question_are_only_text() -> None:
    hostile = "{prompt} {0} {x.__class__} %s"
    found = {perturb(hostile, "paraphrase", TEMPLATES, seed) for seed in range(20)}
    assert found == {f"Please answer: {hostile}", f"{hostile} Answer briefly."}


@given(st.text(max_size=80), st.integers(0, 5))
def test_perturbing_any_text_repeats(text: str, seed: int) -> None:
    hows: tuple[Perturbation, ...] = ("typos", "case", "paraphrase")
    for how in hows:
        changed = perturb(text, how, TEMPLATES, seed)
        assert changed == perturb(text, how, TEMPLATES, seed)
    slipped = perturb(text, "typos", TEMPLATES, seed)
    assert re.sub(r"[^\W\d_]", "", slipped) == re.sub(r"[^\W\d_]", "", text)
