"""A sentence-transformers model in this process. The one file here that loads torch.

The pipeline's own modules run on ids that were tokenised once, in passes of texts of like
length, which spares most of the padding.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from tokenizers import Encoding, Tokenizer

from rag.embed.config import SentenceTransformersConfig
from rag.embed.tokenizer import ModelTokens
from rag.errors import EmbedderUnavailable, TextTooLong
from rag.protocols import EmbedKind
from rag.types import Vectors

__all__ = ["LocalEmbedder"]

_PASS_TOKENS_ON_CPU = 1024
"""Longer passes are no faster per token on a CPU, and take more memory."""


class LocalEmbedder:
    """Implements `Embedder` and `TokenVectors`."""

    def __init__(self, folder: Path, config: SentenceTransformersConfig) -> None:
        """Load it. Raises EmbedderUnavailable."""
        try:
            device = config.device
            if device == "auto":
                device = "cuda" if torch.cuda.is_available() else "cpu"
            self._model: Any = SentenceTransformer(
                str(folder), device=device, local_files_only=True
            )
        except (OSError, ValueError, RuntimeError, KeyError) as exc:
            raise EmbedderUnavailable(
                f"{folder} cannot be loaded as a sentence-transformers model: {exc}"
            ) from exc
        self._model.eval()
        self._device = device
        backend = getattr(self._model.tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise EmbedderUnavailable(f"{folder} has no fast tokenizer (tokenizer.json)")
        self._tokens = ModelTokens(
            Tokenizer.from_str(backend.to_str()), int(self._model.max_seq_length)
        )
        self._name = folder.name
        self._pad = int(self._model.tokenizer.pad_token_id or 0)
        self._typed = "token_type_ids" in self._model.tokenizer.model_input_names
        self._prompts = {kind: self._prompt(kind) for kind in ("document", "query")}
        self._pass_tokens = min(
            config.batch_tokens, _PASS_TOKENS_ON_CPU if device == "cpu" else config.batch_tokens
        )
        self._one_pass = threading.Lock()

    @property
    def name(self) -> str:
        """The folder's name and the prompt that documents get, if any."""
        prompt = self._prompts["document"]
        return f"{self._name}+{prompt!r}" if prompt else self._name

    @property
    def dimension(self) -> int:
        return int(self._model.get_embedding_dimension())

    @property
    def max_tokens(self) -> int:
        """What texts may have; the longer prompt's tokens are taken off."""
        return self._tokens.max_tokens - max(self._tokens.count_tokens([*self._prompts.values()]))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """See `Tokens.count_tokens`."""
        return self._tokens.count_tokens(texts)

    def token_spans(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """See `Tokens.token_spans`."""
        return self._tokens.token_spans(texts)

    def encode(self, texts: Sequence[str], kind: EmbedKind = "document") -> Vectors:
        """See `Embedder.encode`."""
        found = np.empty((len(texts), self.dimension), np.float32)
        prompt = self._prompts[kind]
        for rows, features in self._passes([prompt + text for text in texts]):
            vectors = features["sentence_embedding"].float()
            found[rows] = torch.nn.functional.normalize(vectors, dim=-1).cpu().numpy()
        return found

    def encode_tokens(self, texts: Sequence[str]) -> list[Vectors]:
        """See `TokenVectors.encode_tokens`; special tokens are left out."""
        found: list[Vectors] = [np.empty((0, 0), np.float32)] * len(texts)
        special = set(self._model.tokenizer.all_special_ids)
        for rows, features in self._passes(texts):
            vectors = torch.nn.functional.normalize(features["token_embeddings"].float(), dim=-1)
            ids = features["input_ids"].cpu().numpy()
            kept = (features["attention_mask"].cpu().numpy() == 1) & ~np.isin(ids, list(special))
            for row, matrix, mask in zip(rows, vectors.cpu().numpy(), kept, strict=True):
                found[row] = np.ascontiguousarray(matrix[mask])
        return found

    def _passes(self, texts: Sequence[str]) -> Any:
        """(rows, features) of each pass; like lengths together, the longest first."""
        encoded = self._tokens.tokenizer.encode_batch_fast(list(texts))
        lengths = [len(one) for one in encoded]
        most = int(self._model.max_seq_length)
        if lengths and max(lengths) > most:
            raise TextTooLong(
                f"a text has {max(lengths)} tokens, {self._name} takes {most}: split it smaller"
            )
        order = sorted(range(len(texts)), key=lengths.__getitem__, reverse=True)
        at = 0
        while at < len(order):
            count = max(1, self._pass_tokens // max(1, lengths[order[at]]))
            rows = order[at : at + count]
            with self._one_pass, torch.inference_mode():
                features = self._model(self._features([encoded[row] for row in rows]))
            yield rows, features
            at += count

    def _features(self, batch: Sequence[Encoding]) -> dict[str, torch.Tensor]:
        shape = (len(batch), max(len(one) for one in batch))
        ids = np.full(shape, self._pad, np.int64)
        mask = np.zeros(shape, np.int64)
        for row, one in enumerate(batch):
            ids[row, : len(one)] = one.ids
            mask[row, : len(one)] = 1
        arrays = {"input_ids": ids, "attention_mask": mask}
        if self._typed:
            arrays["token_type_ids"] = np.zeros(shape, np.int64)
        return {name: torch.from_numpy(one).to(self._device) for name, one in arrays.items()}

    def _prompt(self, kind: str) -> str:
        prompts = self._model.prompts or {}
        return str(prompts.get(kind) or prompts.get(self._model.default_prompt_name or "") or "")
