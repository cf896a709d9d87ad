"""Rows of a Parquet file. The one file that imports pyarrow."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow
import pyarrow.parquet

from finetune.data.rows import RawRow
from finetune.errors import SourceUnreadable

_BATCH = 256


def read(path: str) -> Iterator[RawRow]:
    """Rows in the file's order, 256 in memory at a time. Raises SourceUnreadable."""
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                for value in batch.to_pylist():
                    number += 1
                    yield RawRow(number, value)
    except (pyarrow.ArrowException, OSError) as exc:
        after = f" after row {number}" if number else ""
        raise SourceUnreadable(f"{path} is no readable Parquet file{after}: {exc}") from exc
