"""Filters in Qdrant's terms. The embedded engine and the server's client name the same conditions
by classes of their own, so both translate through a `Dialect`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

from rag.errors import BadFilter
from rag.index.points import flag_value, metadata_path
from rag.types import AllOf, AnyOf, Compare, Filter, Scalar

__all__ = ["MAX_CONDITIONS", "Dialect", "translate"]

MAX_CONDITIONS = 1_000
MAX_DEPTH = 20
_ORDER = {"gt", "gte", "lt", "lte"}


class Dialect(Protocol):
    """How one library spells conditions."""

    def equals(self, path: str, value: str) -> Any: ...

    def within(self, path: str, **bounds: float) -> Any:
        """Bounds are `gt`, `gte`, `lt`, `lte`."""
        ...

    def combine(
        self, *, must: Sequence[Any] = (), should: Sequence[Any] = (), must_not: Sequence[Any] = ()
    ) -> Any: ...


def translate(filter: Filter, dialect: Dialect) -> Any:
    """The filter as the dialect's own. Raises BadFilter for one that has no meaning."""
    _measure(filter)
    return _translate(filter, dialect)


def _translate(filter: Filter, dialect: Dialect) -> Any:
    match filter:
        case AllOf():
            return dialect.combine(must=[_translate(part, dialect) for part in filter.filters])
        case AnyOf():
            return dialect.combine(should=[_translate(part, dialect) for part in filter.filters])
        case Compare(op="eq"):
            return _equals(filter.key, _scalar(filter), dialect)
        case Compare(op="ne"):
            return dialect.combine(must_not=[_equals(filter.key, _scalar(filter), dialect)])
        case Compare(op="in"):
            return dialect.combine(should=_members(filter, dialect))
        case Compare(op="nin"):
            return dialect.combine(must_not=_members(filter, dialect))
        case Compare():
            return dialect.within(metadata_path(filter.key), **{filter.op: _number(filter)})


def _equals(key: str, value: Scalar, dialect: Dialect) -> Any:
    if isinstance(value, bool):
        return dialect.equals(metadata_path(key, flag=True), flag_value(value))
    path = metadata_path(key)
    if isinstance(value, str):
        return dialect.equals(path, value)
    return dialect.within(path, gte=float(value), lte=float(value))


def _members(compare: Compare, dialect: Dialect) -> list[Any]:
    values = compare.value
    if not isinstance(values, tuple) or not values:
        raise BadFilter(
            f"the filter {compare.op!r} on {compare.key!r} takes a list of one value or more, "
            f"not {values!r}"
        )
    return [_equals(compare.key, value, dialect) for value in values]


def _scalar(compare: Compare) -> Scalar:
    if isinstance(compare.value, tuple):
        raise BadFilter(
            f"the filter {compare.op!r} on {compare.key!r} takes one value; use 'in' for a list"
        )
    return compare.value


def _number(compare: Compare) -> float:
    value = compare.value
    if isinstance(value, bool | str | tuple) or not math.isfinite(value):
        raise BadFilter(
            f"the filter {compare.op!r} on {compare.key!r} compares numbers, not {value!r}"
        )
    return float(value)


def _measure(filter: Filter, depth: int = 0) -> int:
    """How many conditions there are. Raises BadFilter for too many, too deep, or an empty list."""
    if depth > MAX_DEPTH:
        raise BadFilter(f"the filter is nested deeper than {MAX_DEPTH} levels")
    if isinstance(filter, Compare):
        count = len(filter.value) if isinstance(filter.value, tuple) else 1
        if filter.op not in {*_ORDER, "eq", "ne", "in", "nin"}:
            raise BadFilter(f"the filter knows no operator {filter.op!r}")
    else:
        if not filter.filters:
            raise BadFilter("an 'and' or 'or' of no filters has no meaning: leave it out")
        count = sum(_measure(part, depth + 1) for part in filter.filters)
    if count > MAX_CONDITIONS:
        raise BadFilter(f"the filter has more than {MAX_CONDITIONS} conditions")
    return count
