"""Texts that anybody may have written, made fit for a report."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from finetune.evaluation.safe_text import html_text, markdown_block, markdown_line, shown

ANY = st.text(alphabet=st.characters(), max_size=80)
"""Halves of surrogate pairs, control and bidirectional characters included."""


def test_what_cannot_be_seen_is_named() -> None:
    assert shown("a\x00b\u202ec\ud800") == "a<U+0000>b<U+202E>c<U+D800>"
    assert shown("tab\t line\n क्‍ष 👩‍🚀") == "tab\t line\n क्‍ष 👩‍🚀"


def test_long_texts_are_cut_and_counted() -> None:
    assert shown("x" * 12, 10) == "xxxxxxxxxx… (2 more characters)"
    assert shown("x" * 10, 10) == "x" * 10


def test_a_block_ends_where_its_text_ends() -> None:
    text = "```\n````\n~~~"
    block = markdown_block(text).splitlines()
    assert block[0] == "`````text"
    assert block[-1] == "`````"
    assert block[1:-1] == text.splitlines()


@given(ANY)
def test_any_text_can_be_written_and_is_no_markup(text: str) -> None:
    for made in (shown(text), html_text(text), markdown_line(text), markdown_block(text)):
        made.encode("utf-8")
        assert not re.search("[\x00-\x08\x0e-\x1f\u202a-\u202e]", made)
    assert not set("<>\"'") & set(html_text(text))
    line = markdown_line(text)
    assert not set("<>|`*_[]\n\\") & set(line)
