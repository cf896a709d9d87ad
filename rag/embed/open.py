"""Opens the embedder that the configuration names."""

from __future__ import annotations

from pathlib import Path

from rag.embed.config import (
    EmbedConfig,
    FakeEmbedConfig,
    HttpEmbedConfig,
    SentenceTransformersConfig,
)
from rag.errors import EmbedderUnavailable
from rag.protocols import Embedder

__all__ = ["model_folder", "open_embedder"]


def open_embedder(config: EmbedConfig, home: Path) -> Embedder:
    """Its library is imported here and not before. `home` is `$CORRAL_HOME`.

    Raises EmbedderUnavailable.
    """
    match config:
        case FakeEmbedConfig():
            from rag.embed.fake import FakeEmbedder

            return FakeEmbedder(config)
        case SentenceTransformersConfig():
            folder = model_folder(config.model, home)
            from rag.embed.local import LocalEmbedder

            return LocalEmbedder(folder, config)
        case HttpEmbedConfig():
            from rag.embed.http import HttpEmbedder

            return HttpEmbedder(config, model_folder(config.tokenizer, home))


def model_folder(name: str, home: Path) -> Path:
    """A folder, or the model of that name under `$CORRAL_HOME/models`."""
    for found in (home / "models" / name, Path(name)):
        if found.is_dir():
            return found
    raise EmbedderUnavailable(
        f"there is no model {name!r} in {home / 'models'}, nor a folder of that name: prepare the "
        "built-in ones with `corral models prepare`"
    )
