"""Rows of a Hub data set. The one file that imports `datasets`."""

from __future__ import annotations

from collections.abc import Iterator

import datasets

from finetune.config import HubSource
from finetune.data.rows import RawRow
from finetune.errors import SourceUnreadable


def read(source: HubSource) -> Iterator[RawRow]:
    """Rows in the split's order, from the library's cache on disk, so that the second reading
    downloads nothing. Raises SourceUnreadable."""
    try:
        rows = datasets.load_dataset(
            source.name, source.subset, split=source.split, revision=source.revision
        )
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as exc:
        raise SourceUnreadable(
            f"cannot read the data set {source.path}: {exc}. Check its name, subset and split, "
            "and the network (HF_ENDPOINT, HF_TOKEN)"
        ) from exc
    for number, value in enumerate(rows, start=1):
        yield RawRow(number, value)
