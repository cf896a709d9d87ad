"""Rows to text: each row carries the names of its columns, so that it can be found alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

__all__ = ["grid", "labelled"]


def labelled(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """`Name: Ada; Born: 1815` for every row after the first, which names the columns.

    If the first row is no header (a cell is empty or twice there), cells stand without names.
    """
    rows = iter(rows)
    header = next(rows, None)
    if header is None:
        return
    names = [" ".join(name.split()) for name in header]
    if not (all(names) and len(set(names)) == len(names)):
        yield _join(header)
        yield from map(_join, rows)
        return
    bare = True
    for row in rows:
        bare = False
        cells = zip([*names, *[""] * (len(row) - len(names))], row, strict=False)
        yield "; ".join(f"{name}: {cell}" if name else cell for name, cell in cells if cell.strip())
    if bare:
        yield _join(header)


def grid(rows: Iterable[Sequence[str]]) -> str:
    """Rows as lines with ` | ` between the cells; empty rows are left out."""
    lines = (" | ".join(" ".join(cell.split()) for cell in row) for row in rows)
    return "\n".join(line for line in lines if line.strip(" |"))


def _join(row: Sequence[str]) -> str:
    return " | ".join(cell for cell in row if cell.strip())
