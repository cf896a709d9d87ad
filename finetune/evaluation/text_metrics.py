"""How close an answer is to the reference. Pure functions of texts.

Exact match and token F1: Rajpurkar et al. 2016 (SQuAD), section 6.1: lower case, without
punctuation and English articles. ROUGE-L: Lin 2004, section 3, with recall and precision of the
longest common subsequence weighted alike. All three take words of any script; writing without
spaces (Chinese, Japanese, Thai) counts by character.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

_ARTICLES = frozenset({"a", "an", "the"})
# Scripts that put no spaces between words: Thai to Khmer, kana, ideographs.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]"
)
_APOSTROPHES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'", "`": "'"})


def words(text: str) -> list[str]:
    """Words in lower case, without punctuation."""
    plain = unicodedata.normalize("NFKC", text).casefold().translate(_APOSTROPHES).replace("'", "")
    # Letters, numbers, and the marks that many scripts write vowels with.
    kept = (sign if unicodedata.category(sign)[0] in "LNM" else " " for sign in plain)
    return _UNSPACED.sub(r" \g<0> ", "".join(kept)).split()


def answer_words(text: str) -> list[str]:
    """Without articles too, unless nothing else is there."""
    found = words(text)
    return [word for word in found if word not in _ARTICLES] or found


def exact_match(answer: str, reference: str) -> bool:
    """Whether both have the same words. Texts of punctuation alone are compared as they are."""
    given, wanted = answer_words(answer), answer_words(reference)
    return given == wanted if given or wanted else answer.strip() == reference.strip()


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall of words, order aside; 0 to 1."""
    given, wanted = answer_words(answer), answer_words(reference)
    if not given or not wanted:
        return float(exact_match(answer, reference))
    shared = (Counter(given) & Counter(wanted)).total()
    return 2 * shared / (len(given) + len(wanted))


def rouge_l(answer: str, reference: str) -> float:
    """F-measure of the longest common subsequence of words; 0 to 1."""
    given, wanted = words(answer), words(reference)
    if not given or not wanted:
        return float(exact_match(answer, reference))
    return 2 * longest_common_subsequence(given, wanted) / (len(given) + len(wanted))


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Its length, bit-parallel (Hyyrö 2004): O(len(second)) operations on integers of
    len(first) bits."""
    places: dict[str, int] = {}
    for index, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << index
    every = (1 << len(first)) - 1
    free = every
    for word in second:
        hit = free & places.get(word, 0)
        free = ((free + hit) | (free - hit)) & every
    return len(first) - free.bit_count()


def refuses(answer: str, beginnings: Sequence[str]) -> bool:
    """Whether it begins as a refusal, after white space, quotes and marks."""
    text = " ".join(answer.casefold().translate(_APOSTROPHES).split()).lstrip("\"'*_#>- ")
    starts = (" ".join(each.casefold().translate(_APOSTROPHES).split()) for each in beginnings)
    return any(text.startswith(start) for start in starts)


def contains(answer: str, wanted: str) -> bool:
    """Whether the words of `wanted` stand in the answer, next to each other."""
    given, needed = words(answer), words(wanted)
    if not needed:
        return False
    return any(given[at : at + len(needed)] == needed for at in range(len(given)))
