"""From what a configuration calls a model to a directory an engine can load."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serving.errors import ModelUnavailable
from serving.home import Home
from serving.models import builtin, hub, manifest
from serving.models.child import Progress

PICKLES = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}


class NotPrepared(ModelUnavailable):
    """The source is fine, but its weights are not here yet; `prepare` gets them."""


@dataclass(frozen=True)
class PreparedModel:
    """Weights ready to load. An adapter belongs to this base if it names one of `aliases`."""

    path: Path
    kind: Literal["builtin", "local", "hub"]
    aliases: tuple[str, ...]


def prepare(source: str, home: Home, *, progress: Progress) -> PreparedModel:
    """Find `source`, converting or downloading what is missing.

    `progress` is called with one line at a time, at least every two seconds
    while there is something to wait for. Safe to call from several processes
    at once. Raises ModelUnavailable.
    """
    if known := builtin.BUILTINS.get(source):
        path = builtin.prepare_builtin(known, home.models, progress)
        return PreparedModel(path, "builtin", (*known.aliases, str(path)))
    if local := _local(source):
        return local
    _require_hub_id(source)
    path = hub.cached(source) or hub.download(source, progress)
    return _from_hub(source, path)


def resolve(source: str, home: Home) -> PreparedModel:
    """Find `source` if it is ready; changes nothing, asks no network.

    Raises NotPrepared when `prepare` would get it, else ModelUnavailable.
    """
    if known := builtin.BUILTINS.get(source):
        path = home.models / known.name
        if not builtin.is_ready(known, path):
            raise NotPrepared(_unprepared(known, path))
        return PreparedModel(path, "builtin", (*known.aliases, str(path)))
    if local := _local(source):
        return local
    _require_hub_id(source)
    cached = hub.cached(source)
    if cached is None:
        raise NotPrepared(f"{source} is not in the local cache")
    return _from_hub(source, cached)


def _unprepared(known: builtin.Builtin, path: Path) -> str:
    if not path.exists():
        return f"{known.name} is not prepared in {path.parent}"
    faults = manifest.verify(path) or ["it was made by an older recipe"]
    return f"{known.name} must be prepared anew: {'; '.join(faults)}"


def _from_hub(source: str, path: Path) -> PreparedModel:
    repo = source.partition("@")[0]
    return PreparedModel(path, "hub", tuple(dict.fromkeys((repo, source, str(path)))))


def _local(source: str) -> PreparedModel | None:
    """`source` as a directory; None if it cannot be meant as a path. Raises ModelUnavailable."""
    path = Path(source).expanduser()
    explicit = source.startswith((".", "/", "~"))
    if not path.exists():
        if explicit:
            raise ModelUnavailable(f"{path} does not exist: check the model's `source`")
        return None
    if path.is_file():
        raise ModelUnavailable(_file_advice(path))
    path = path.resolve()
    if not (path / "config.json").is_file():
        if not explicit and "/" not in source:
            return None
        raise ModelUnavailable(
            f"{path} holds no config.json: a model directory has config.json, safetensors weights "
            "and tokenizer files, as `save_pretrained` or `hf download` write them"
        )
    if not any(path.glob("*.safetensors")):
        raise ModelUnavailable(
            f"{path} holds no safetensors weights. Pickled ones run code when they are loaded and "
            "are refused: load the model with transformers and `save_pretrained` it again"
        )
    return PreparedModel(path, "local", tuple(dict.fromkeys((source, str(path), *_named(path)))))


def _named(path: Path) -> list[str]:
    """The name that the model's own configuration gives it, if any."""
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except ValueError as exc:
        raise ModelUnavailable(f"{path / 'config.json'} is not valid JSON: {exc}") from exc
    name = config.get("_name_or_path") if isinstance(config, dict) else None
    return [name] if isinstance(name, str) and name else []


def _file_advice(path: Path) -> str:
    if path.suffix == ".gguf":
        return (
            f"{path} is a GGUF file; a model directory is needed. Load it with transformers "
            f"(`from_pretrained({str(path.parent)!r}, gguf_file={path.name!r})`), "
            "`save_pretrained` it and give that directory"
        )
    if path.suffix in PICKLES:
        return (
            f"{path} is a pickle, which runs code when it is loaded, and is refused. Give the "
            "directory of a model in safetensors"
        )
    return f"{path} is a file; give the directory with config.json that holds the model"


def _require_hub_id(source: str) -> None:
    """Refuse what is neither a built-in name nor a path nor of the form org/name."""
    if hub.HUB_ID.fullmatch(source):
        return
    near = difflib.get_close_matches(source.lower(), builtin.BUILTINS, n=2, cutoff=0.5)
    meant = f"Did you mean {' or '.join(near)}? " if near else ""
    raise ModelUnavailable(
        f"there is no model {source!r}. {meant}Built in are {', '.join(builtin.BUILTINS)}; "
        "otherwise give a directory or a Hub id (org/name)"
    )
