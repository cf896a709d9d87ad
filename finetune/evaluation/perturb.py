"""Prompts as people also write them: with slips, in other case, in other words.

Pure functions of a text, a seed and a name: the same on every machine.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from finetune.config.evaluation import Perturbation

_WORD = re.compile(r"[^\W\d_]{4,}")
_SHARE = 0.15
"""Of the words of four letters or more that get a slip; at least one does."""


def perturb(text: str, how: Perturbation, templates: Sequence[str], seed: int) -> str:
    """Another way to ask the same. Where nothing can be changed, the text itself."""
    draw = random.Random(f"{seed}\0{how}\0{text}")
    match how:
        case "typos":
            return typos(text, draw)
        case "case":
            return text.lower() if draw.random() < 0.5 else text.upper()
        case "paraphrase":
            return draw.choice(list(templates)).replace("{prompt}", text)


def typos(text: str, draw: random.Random) -> str:
    """One slip in some of the longer words: two letters swapped, one left out or doubled.

    First letters stay, and so do digits, signs and white space.
    """
    found = list(_WORD.finditer(text))
    if not found:
        return text
    hit = draw.sample(found, max(1, round(_SHARE * len(found))))
    for word in sorted(hit, key=lambda match: -match.start()):
        text = text[: word.start()] + _slip(word[0], draw) + text[word.end() :]
    return text


def _slip(word: str, draw: random.Random) -> str:
    at = draw.randrange(1, len(word) - 1)
    match draw.choice(("swap", "drop", "double")):
        case "swap":
            return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        case "drop":
            return word[:at] + word[at + 1 :]
        case _:
            return word[:at] + word[at] + word[at:]
