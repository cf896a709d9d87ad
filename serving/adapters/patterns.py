"""Which modules a PEFT pattern means, and which patterns are safe to try.

Patterns come from whoever made the adapter, and a regular expression can be made
to run for hours or to fill the memory. vLLM tries `rank_pattern` on every module
without a limit, so patterns outside of a small subset never reach it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_LITERAL = re.compile(r"[A-Za-z0-9_.]+")
_ATOM = re.compile(r"[A-Za-z0-9_.^$-]|\\[.dwbDWB_-]|\[[A-Za-z0-9_.-]+\]")
_REPEAT = re.compile(r"[*+?]\??")
_MAX_LENGTH = 256
_MAX_CHOICES = 3
_MAX_ALTERNATIVES = 16


def is_cheap(pattern: str) -> bool:
    """Whether trying `pattern` on a module name takes microseconds whatever the name.

    Allowed: letters, digits, `.`, escapes, classes, anchors, and at most three of
    `*`, `+`, `?` and groups of alternatives. A group is neither repeated nor nested.
    """
    if len(pattern) > _MAX_LENGTH:
        return False
    choices, alternatives, position, in_group, repeatable = 0, 0, 0, False, False
    while position < len(pattern):
        if atom := _ATOM.match(pattern, position):
            position, repeatable = atom.end(), True
        elif (repeat := _REPEAT.match(pattern, position)) and repeatable:
            position, repeatable, choices = repeat.end(), False, choices + 1
        elif pattern[position] == "(" and not in_group:
            position += 3 if pattern.startswith("(?:", position) else 1
            in_group, repeatable, choices, alternatives = True, False, choices + 1, 1
        elif pattern[position] == ")" and in_group:
            position, in_group, repeatable = position + 1, False, False
        elif pattern[position] == "|" and in_group:
            position, repeatable, alternatives = position + 1, False, alternatives + 1
        else:
            return False
        if choices > _MAX_CHOICES or alternatives > _MAX_ALTERNATIVES:
            return False
    return not in_group


def is_literal(pattern: str) -> bool:
    """Whether `pattern` is a module name or the end of one."""
    return _LITERAL.fullmatch(pattern) is not None


@dataclass(frozen=True)
class Targets:
    """`target_modules` of an adapter: names, `all-linear`, or a regular expression."""

    names: frozenset[str]
    pattern: re.Pattern[str] | None = None
    every: bool = False
    """Nothing is excluded: a pattern too costly to try. vLLM goes by the tensors alone."""

    def includes(self, module: str) -> bool:
        """PEFT's rule: a whole name, the end of one after a dot, or a full match."""
        if self.every:
            return True
        if self.pattern is not None:
            return self.pattern.fullmatch(module) is not None
        ends = module
        while ends not in self.names:
            _, dot, ends = ends.partition(".")
            if not dot:
                return False
        return True


@dataclass(frozen=True)
class Ranks:
    """Rank of each module: `r`, unless a key of `rank_pattern` matches; the first one wins."""

    default: int
    by_pattern: tuple[tuple[re.Pattern[str], int], ...] = ()

    @staticmethod
    def build(default: int, rank_pattern: Mapping[str, int]) -> Ranks:
        """Compile the keys as vLLM and PEFT do. Raises re.error."""
        compiled = ((re.compile(rf"(?:.*\.)?(?:{k})$"), v) for k, v in rank_pattern.items())
        return Ranks(default, tuple(compiled))

    @property
    def largest(self) -> int:
        return max([self.default, *(rank for _, rank in self.by_pattern)])

    def of(self, module: str) -> int:
        """Rank of a module (`model.layers.0.self_attn.q_proj`)."""
        for pattern, rank in self.by_pattern:
            if pattern.match(module):
                return rank
        return self.default
