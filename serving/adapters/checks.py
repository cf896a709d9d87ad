"""Decides whether an adapter directory may reach the engine. Loads no weights.

What passes is what vLLM 0.32 serves as trained (vllm/lora/lora_model.py and
utils.py): vLLM looks only at the last component of a tensor's name, so a key
with a wrong path or layer would be dropped in silence and the base model would
answer. Whether the weights do anything at all is found out at load, by logits.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from serving.adapters.base_model import EMBEDDINGS, BaseModel, Dims
from serving.adapters.files import is_inside, show
from serving.adapters.peft_config import CONFIG, PeftConfig, parse_config, read_base_name
from serving.adapters.safetensors_header import TensorInfo, read_header
from serving.errors import AdapterRefused

WEIGHTS = "adapter_model.safetensors"
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
_MAX_ENTRIES = 1000
_MAX_KEY = 256
_KEY = re.compile(
    r"base_model\.model\.(?P<module>\w+(?:\.\w+)*)\."
    r"(?P<kind>lora_(?P<side>[AB])\.weight|lora_embedding_(?P<embedding_side>[AB])"
    r"|base_layer\.weight)",
    re.ASCII,
)


@dataclass(frozen=True)
class Limits:
    """Sizes beyond which nothing is read further."""

    max_rank: int = 64
    max_config_bytes: int = 1 << 20
    max_header_bytes: int = 4 << 20
    max_tensors: int = 8192


@dataclass(frozen=True)
class CheckedAdapter:
    """What is known of an adapter that passed."""

    path: Path
    base_name: str
    """The base model's name as the adapter gives it."""
    rank: int
    """The largest rank of any of its modules."""
    target_modules: tuple[str, ...]
    """Last components of the adapted modules' names, sorted."""
    pairs: int
    """Adapted modules, all layers counted."""
    size_bytes: int
    """Of the weights file."""


def check(
    path: Path, base: BaseModel, limits: Limits | None = None, *, inside: Path | None = None
) -> CheckedAdapter:
    """Verify the PEFT directory at `path` for `base`, reading only headers.

    With `inside`, neither the directory nor a file in it may lead out of that
    folder; without, the path is trusted (it was named in the configuration).
    Raises AdapterRefused with the file, what is wrong with it, and the mend.
    """
    limits = limits or Limits()
    check_directory(path, inside)
    named = read_base_name(path, limits.max_config_bytes)
    if not base.accepts(named.name):
        raise AdapterRefused(
            f"{CONFIG}: base_model_name_or_path is {show(named.name)}, which is none of "
            f"{', '.join(base.known_as)}; serve that model, or correct the name if it is the same"
        )
    peft = parse_config(named.config, base, limits.max_rank)
    header = read_header(path / WEIGHTS, limits.max_header_bytes, limits.max_tensors)
    modules = _pair_up(header.tensors, peft, base)
    return CheckedAdapter(
        path=path,
        base_name=named.name,
        rank=max(peft.ranks.of(module) for module in modules),
        target_modules=tuple(sorted({module.rpartition(".")[2] for module in modules})),
        pairs=len(modules),
        size_bytes=header.file_bytes,
    )


def check_directory(path: Path, inside: Path | None) -> None:
    """Refuse links out of `inside`, pickles and what is no directory. Raises AdapterRefused."""
    if inside is not None and not is_inside(path, inside):
        raise AdapterRefused(f"{path} leads out of {inside}; copy the adapter into that folder")
    try:
        with os.scandir(path) as entries:
            for count, entry in enumerate(entries):
                if count >= _MAX_ENTRIES:
                    raise AdapterRefused(f"{path} has more than {_MAX_ENTRIES} files")
                _check_entry(entry, inside)
    except NotADirectoryError:
        raise AdapterRefused(f"{path} is not a directory; give the one with {CONFIG}") from None
    except FileNotFoundError:
        raise AdapterRefused(f"{path} does not exist") from None
    except OSError as exc:
        raise AdapterRefused(f"{path} cannot be read: {exc.strerror}") from None


def _check_entry(entry: os.DirEntry[str], inside: Path | None) -> None:
    name = show(entry.name)
    if entry.name.lower().endswith(_PICKLES):
        raise AdapterRefused(
            f"{name} is a pickle, which can run code when it is read: only safetensors adapters "
            f"are served; {CONFIG} and {WEIGHTS} are all that is needed, so remove it"
        )
    if inside is not None and entry.is_symlink() and not is_inside(entry.path, inside):
        raise AdapterRefused(f"{name} is a link out of {inside}; copy the file itself there")


@dataclass(frozen=True)
class _Slot:
    """Which module a tensor belongs to, and whether it is its A, its B or its own weight."""

    module: str
    side: str | None


def _slot(key: str) -> _Slot:
    match = _KEY.fullmatch(key) if len(key) <= _MAX_KEY else None
    if match is None:
        _refuse(
            key,
            "is no LoRA tensor as PEFT names them (base_model.model.….lora_A.weight)",
            "save the adapter with PEFT's save_pretrained",
        )
    module, kind = match["module"], match["kind"]
    is_embedding = module.rpartition(".")[2] == "embed_tokens"
    if kind != "base_layer.weight" and kind.startswith("lora_embedding_") != is_embedding:
        _refuse(key, "is named as PEFT names tensors of another kind of module")
    return _Slot(module, match["side"] or match["embedding_side"])


def _pair_up(tensors: dict[str, TensorInfo], peft: PeftConfig, base: BaseModel) -> set[str]:
    """Names of the adapted modules, each with an A and a B that fit. Raises AdapterRefused."""
    sides: dict[str, set[str]] = {}
    for key, tensor in tensors.items():
        slot = _slot(key)
        dims = _dims(key, slot.module, base)
        if slot.side is None:
            _check_base_layer(key, slot.module, tensor, dims)
            continue
        if not peft.targets.includes(slot.module):
            _refuse(
                key,
                f"belongs to a module that target_modules of {CONFIG} leaves out",
                "keep the two files of one adapter together",
            )
        _check_shape(key, slot.side, tensor.shape, peft.ranks.of(slot.module), dims)
        sides.setdefault(slot.module, set()).add(slot.side)
    for module, found in sides.items():
        if len(found) != 2:
            lacking = "B" if "A" in found else "A"
            raise AdapterRefused(f"{WEIGHTS}: {show(module)} has no lora_{lacking}; save it again")
    if not sides:
        raise AdapterRefused(f"{WEIGHTS} holds no LoRA tensor; was the adapter saved with PEFT?")
    return set(sides)


def _dims(key: str, module: str, base: BaseModel) -> Dims | None:
    if base.shape is None:
        return None
    try:
        return base.shape.dims(module)
    except LookupError as exc:
        _refuse(key, f"does not fit {base.name}: {exc}")


def _check_base_layer(key: str, module: str, tensor: TensorInfo, dims: Dims | None) -> None:
    """PEFT saves an adapted embedding's own weights beside the adapter; vLLM passes over them."""
    if module.rpartition(".")[2] not in EMBEDDINGS:
        _refuse(key, "holds weights of the base model, which an adapter must not bring")
    if dims is not None and sorted(tensor.shape) != sorted((dims.inputs, dims.outputs)):
        _refuse(key, f"has shape {list(tensor.shape)}: the vocabulary was resized")


def _check_shape(key: str, side: str, shape: tuple[int, ...], rank: int, dims: Dims | None) -> None:
    rank_axis, other_axis = (0, 1) if side == "A" else (1, 0)
    if len(shape) != 2 or shape[rank_axis] != rank or shape[other_axis] == 0:
        _refuse(key, f"has shape {list(shape)} where {CONFIG} gives it rank {rank}")
    size = None if dims is None else (dims.inputs if side == "A" else dims.outputs)
    if size is not None and shape[other_axis] != size:
        wanted = [rank, size] if side == "A" else [size, rank]
        _refuse(key, f"has shape {list(shape)}, and the base model needs {wanted}")


def _refuse(
    key: str, problem: str, mend: str = "train the adapter on the model it is served with"
) -> NoReturn:
    raise AdapterRefused(f"{WEIGHTS}: {show(key)} {problem}; {mend}")
