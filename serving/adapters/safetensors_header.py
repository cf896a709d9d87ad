"""Reads the header of a safetensors file without loading a weight.

The format: an 8-byte little-endian length N, N bytes of JSON, then the tensors'
bytes. Stricter than need be on purpose, as the reference parser is: offsets must
cover the data exactly, without holes or overlaps.
Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.adapters.files import open_regular, parse_json, show
from serving.errors import AdapterRefused

ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_MAX_DIMENSION = 1 << 40
_MEND = "save the adapter again with save_pretrained(..., safe_serialization=True)"


@dataclass(frozen=True)
class TensorInfo:
    """One entry of the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int
    """Offsets within the data, in bytes."""


@dataclass(frozen=True)
class Header:
    """What a safetensors file says it holds."""

    tensors: dict[str, TensorInfo]
    file_bytes: int


def read_header(path: Path, max_header_bytes: int, max_tensors: int) -> Header:
    """Parse and verify the header of `path`. Raises AdapterRefused."""
    with open_regular(path, "only safetensors adapters are served") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        if start[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            raise AdapterRefused(f"{path.name} is a pickle under another name; {_MEND}")
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > size - 8:
            raise AdapterRefused(
                f"{path.name} is truncated or not safetensors: {size} bytes, of which the header "
                f"claims {length}; copy it again"
            )
        if length > max_header_bytes:
            raise AdapterRefused(
                f"{path.name}: a header of {length} bytes is more than the {max_header_bytes} "
                "that an adapter can need"
            )
        entries = parse_json(file.read(length), f"{path.name}: the header")
    _check_metadata(path.name, entries.pop("__metadata__", None))
    if len(entries) > max_tensors:
        raise AdapterRefused(
            f"{path.name}: {len(entries)} tensors are more than the {max_tensors} that an "
            "adapter can have"
        )
    tensors = {key: _tensor(f"{path.name}: {show(key)}", entries[key]) for key in entries}
    _check_layout(path.name, tensors, size - 8 - length)
    return Header(tensors, size)


def _check_metadata(where: str, metadata: Any) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise AdapterRefused(f"{where}: __metadata__ must map strings to strings; {_MEND}")


def _tensor(where: str, entry: Any) -> TensorInfo:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise AdapterRefused(f"{where} lacks dtype, shape or data_offsets; {_MEND}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise AdapterRefused(
            f"{where} has dtype {show(dtype)}; adapters are {', '.join(ITEM_BYTES)}"
        )
    if not _whole_numbers(shape) or not _whole_numbers(offsets) or len(offsets) != 2:
        raise AdapterRefused(
            f"{where} has shape {show(shape)} and data_offsets {show(offsets)}: both must be "
            f"lists of whole numbers; {_MEND}"
        )
    start, end = offsets
    if end - start != math.prod(shape) * ITEM_BYTES[dtype]:
        raise AdapterRefused(
            f"{where} has {end - start} bytes, which a {dtype} tensor of shape {show(shape)} "
            f"does not take; {_MEND}"
        )
    return TensorInfo(dtype, tuple(shape), start, end)


def _whole_numbers(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= 8
        and all(type(item) is int and 0 <= item <= _MAX_DIMENSION for item in value)
    )


def _check_layout(where: str, tensors: dict[str, TensorInfo], data_bytes: int) -> None:
    position = 0
    for key, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.start != position:
            raise AdapterRefused(
                f"{where}: {show(key)} begins at byte {tensor.start} of the data where "
                f"{position} is due: tensors overlap or leave a hole; {_MEND}"
            )
        position = tensor.end
    if position != data_bytes:
        raise AdapterRefused(
            f"{where}: the tensors take {position} bytes and the file has {data_bytes} for "
            "them; copy it again"
        )
