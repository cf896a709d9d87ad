"""Schemas, regexes and grammars that requests bring: how far they unroll when compiled.

A grammar compiler copies what a bound repeats: `(a{99}){99}` is 9,801 copies from eleven
characters. Counting is linear and does not compile anything.
"""

from __future__ import annotations

import re
from typing import Any

_PATTERN_KEYS = frozenset({"regex", "pattern", "grammar", "structural_tag", "whitespace_pattern"})
_BOUND_KEYS = frozenset(
    {"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"}
)
_TOKENS = re.compile(
    r"\\.|\[(?:\\.|[^\]\\])*\]|\{\s*(?P<low>\d{1,9})\s*(?:,\s*(?P<high>\d{0,9})\s*)?\}|[()]|.",
    re.DOTALL,
)


def pattern_copies(pattern: str) -> int:
    """Atoms in the largest bounded repetition of a regex or grammar; 0 without one."""
    largest, sizes, last = 0, [0], 0
    for token in _TOKENS.finditer(pattern):
        match token.group():
            case "(":
                sizes.append(0)
                last = 0
            case ")" if len(sizes) > 1:
                last = sizes.pop()
                sizes[-1] += last
            case _ if token["low"] is not None:
                times = max(int(token["low"]), int(token["high"] or 0))
                copies = max(1, last) * times
                largest = max(largest, copies)
                sizes[-1] += copies - last
                last = copies
            case _:
                last = 1
                sizes[-1] += 1
    return largest


def schema_copies(value: Any, outer: int = 1) -> int:
    """The same for a decoded JSON Schema, or for any JSON that holds patterns.

    Bounds multiply along the nesting: ten items of ten items are a hundred.
    """
    match value:
        case dict():
            bounds = [
                bound
                for key, bound in value.items()
                if key in _BOUND_KEYS and isinstance(bound, (int, float))
            ]
            own = outer * int(max([1, *bounds]))
            largest = own if bounds else 0
            for key, inner in value.items():
                if key in _PATTERN_KEYS and isinstance(inner, str):
                    largest = max(largest, own * pattern_copies(inner))
                else:
                    largest = max(largest, schema_copies(inner, own))
            return largest
        case list():
            return max((schema_copies(inner, outer) for inner in value), default=0)
        case _:
            return 0
