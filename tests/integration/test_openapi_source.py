"""The request fields that the document was made from are those of the vLLM that is installed."""

from __future__ import annotations

from typing import get_args

import pytest

from scripts.openapi import CLASSES, TARGET, encode, engine_fields, installed_schemas
from serving.gateway.fields import rules_by_path
from serving.gateway.limits import OptInField, RequestLimits

pytestmark = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
]


def test_the_committed_fields_are_the_installed_ones() -> None:
    made = encode(engine_fields(installed_schemas()))
    assert TARGET.read_text(encoding="utf-8") == made, "run `python -m scripts.openapi`"


def test_no_field_of_the_engine_is_forgotten() -> None:
    """Each is passed on or refused on purpose; a new vLLM may bring new ones."""
    schemas = installed_schemas()
    for path, classes in CLASSES.items():
        known = set(rules_by_path(RequestLimits())[path]) | set(get_args(OptInField))
        for _, name in classes:
            assert set(schemas[name]["properties"]) - known <= _UNSUPPORTED[path], path


_UNSUPPORTED: dict[str, set[str]] = {
    "/v1/chat/completions": set(),
    "/v1/completions": set(),
    "/v1/responses": {"prompt"},
    "/v1/messages": set(),
    "/v1/messages/count_tokens": set(),
    "/v1/embeddings": set(),
    "/v1/rerank": set(),
    "/v1/score": set(),
    "/tokenize": set(),
    "/detokenize": set(),
}
"""Refused as unknown: a stored prompt template needs OpenAI's own service."""
