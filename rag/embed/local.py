"""A sentence-transformers model in this process. Imports torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from rag.embed.config import SentenceTransformersConfig
from rag.errors import EmbedderUnavailable, TextTooLong
from rag.protocols import EmbedKind
from rag.types import Vectors

__all__ = ["LocalEmbedder"]


class LocalEmbedder:
    """`Embedder` and `TokenVectors`. Nothing is truncated: a longer text is an error."""

    def __init__(self, config: SentenceTransformersConfig, models: Path) -> None:
        """Load `config.model`, a folder or a name under `models`. Raises EmbedderUnavailable."""
        folder = Path(config.model) if Path(config.model).is_dir() else models / config.model
        if not (folder / "tokenizer.json").is_file():
            raise EmbedderUnavailable(
                f"no embedding model in {folder}: `corral models prepare {config.model}`, or set "
                "`embed.model` to a folder that has one"
            )
        self._batch_tokens = config.batch_tokens
        device = None if config.device == "auto" else config.device
        self._model = SentenceTransformer(str(folder), device=device, local_files_only=True)
        self._model.eval()
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.name = folder.name
        self.dimension = _dimension(self._model)
        self._limit = _limit(folder)
        self.max_tokens = self._limit - self._tokenizer.num_special_tokens_to_add(False)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(encoding.ids) for encoding in encodings]

    def token_spans(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [np.array(e.offsets, np.int64).reshape(-1, 2) for e in encodings]

    def encode(self, texts: Sequence[str], kind: EmbedKind = "document") -> Vectors:
        found = np.zeros((len(texts), self.dimension), np.float32)
        for rows, output, _ in self._passes(texts):
            vectors = torch.nn.functional.normalize(output["sentence_embedding"].float(), dim=-1)
            found[rows] = vectors.cpu().numpy()
        return found

    def encode_tokens(self, texts: Sequence[str]) -> list[Vectors]:
        found: list[Vectors] = [np.zeros((0, self.dimension), np.float32)] * len(texts)
        for rows, output, special in self._passes(texts):
            vectors = torch.nn.functional.normalize(output["token_embeddings"].float(), dim=-1)
            kept = vectors.cpu().numpy()
            for at, row in enumerate(rows):
                found[row] = kept[at, : len(special[at])][~special[at]]
        return found

    def _passes(
        self, texts: Sequence[str]
    ) -> Iterator[tuple[list[int], dict[str, Any], list[NDArray[np.bool_]]]]:
        """Batches of texts of about one length, through the model: rows, output, special tokens."""
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        for row, encoding in enumerate(encodings):
            if len(encoding.ids) > self._limit:
                raise TextTooLong(
                    f"text {row} has {len(encoding.ids)} tokens and {self.name} takes "
                    f"{self._limit}: split it smaller (`split.max_tokens`)"
                )
        order = sorted(range(len(texts)), key=lambda row: -len(encodings[row].ids))
        at = 0
        while at < len(order):
            width = len(encodings[order[at]].ids)
            rows = order[at : at + max(1, self._batch_tokens // width)]
            at += len(rows)
            ids = torch.zeros((len(rows), width), dtype=torch.long)
            mask = torch.zeros_like(ids)
            for line, row in enumerate(rows):
                length = len(encodings[row].ids)
                ids[line, :length] = torch.tensor(encodings[row].ids)
                mask[line, :length] = 1
            inputs = {"input_ids": ids, "attention_mask": mask}
            with torch.inference_mode():
                output = self._model({k: v.to(self._model.device) for k, v in inputs.items()})
            special = [np.array(encodings[row].special_tokens_mask, np.bool_) for row in rows]
            yield rows, output, special


def _dimension(model: SentenceTransformer) -> int:
    dimension = model.get_embedding_dimension()
    assert dimension is not None
    return int(dimension)


def _limit(folder: Path) -> int:
    """Tokens in one input, special ones included, as the model's card has it."""
    path = folder / "sentence_bert_config.json"
    if path.is_file():
        limit = json.loads(path.read_text(encoding="utf-8")).get("max_seq_length")
        if limit is not None:
            return int(limit)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return int(config["max_position_embeddings"])
