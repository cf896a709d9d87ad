"""Conversations of many lengths, always the same."""

from __future__ import annotations

import json
import random
from pathlib import Path

_WORDS = [
    "the",
    "a",
    "of",
    "to",
    "and",
    "in",
    "that",
    "is",
    "was",
    "for",
    "with",
    "as",
    "on",
    "by",
    "an",
    "at",
    "from",
    "river",
    "stone",
    "light",
    "paper",
    "engine",
    "letter",
    "number",
    "garden",
    "window",
    "copper",
    "signal",
    "harbour",
    "winter",
    "method",
    "record",
    "valley",
    "market",
]


def write_rows(path: Path, count: int, seed: int) -> Path:
    """`count` conversations of one question and one answer, whose lengths are log-normal as those
    of real ones: a median of 60 words, some of several hundred."""
    draw = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for index in range(count):
            asked, answered = (_text(draw, median) for median in (35, 45))
            question = {"role": "user", "content": f"{index}: {asked}?"}
            answer = {"role": "assistant", "content": f"{answered}."}
            file.write(json.dumps({"messages": [question, answer]}) + "\n")
    return path


def _text(draw: random.Random, median: int) -> str:
    words = min(170, max(3, round(draw.lognormvariate(0, 0.8) * median)))
    return " ".join(draw.choices(_WORDS, k=words))
