"""One exception, two envelopes; and which status corral's own errors have."""

from __future__ import annotations

import json

import pytest

from serving.errors import (
    AdapterNotFound,
    AdapterRefused,
    CorralError,
    EngineStalled,
    ModelUnavailable,
    PoolBusy,
    PoolUnavailable,
    StartError,
)
from serving.gateway.errors import ApiError, from_corral, from_engine


def test_openais_envelope_has_four_fields() -> None:
    error = ApiError(404, 'no "x" – sorry', code="model_not_found", param="model")
    assert json.loads(error.body("/v1/completions")) == {
        "error": {
            "message": 'no "x" – sorry',
            "type": "not_found_error",
            "param": "model",
            "code": "model_not_found",
        }
    }


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_anthropics_envelope_names_itself_an_error(path: str) -> None:
    assert json.loads(ApiError(429, "slow down").body(path)) == {
        "type": "error",
        "error": {"type": "rate_limit_error", "message": "slow down"},
    }


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (413, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "service_unavailable_error"),
    ],
)
def test_the_type_follows_from_the_status(status: int, kind: str) -> None:
    assert ApiError(status, "").type == kind


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (PoolBusy("busy", 0.0), 429, "overloaded", b"1"),
        (PoolBusy("busy", 4.2), 429, "overloaded", b"5"),
        (PoolUnavailable("gone"), 503, "model_unavailable", b"5"),
        (EngineStalled("hung"), 503, "model_unavailable", b"5"),
        (AdapterNotFound("none"), 404, "model_not_found", None),
        (AdapterRefused("bad rank"), 400, "adapter_refused", None),
        (ModelUnavailable("no weights"), 500, "internal_error", None),
        (StartError("broken", "mend it"), 500, "internal_error", None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, CorralError) else None,
)
def test_corrals_errors_have_their_status(
    error: CorralError, status: int, code: str, retry_after: bytes | None
) -> None:
    found = from_corral(error)
    assert (found.status, found.code, found.message) == (status, code, str(error))
    assert dict(found.headers).get(b"retry-after") == retry_after


@pytest.mark.parametrize(
    ("status", "body", "message", "param", "code"),
    [
        (400, b'{"error": {"message": "m", "type": "Bad Request", "param": "p", "code": 400}}',
         "m", "p", None),
        (400, b'{"error": {"message": "maximum context length is 9", "param": "input_tokens"}}',
         "maximum context length is 9", "input_tokens", "context_length_exceeded"),
        (404, b'{"type": "error", "error": {"type": "x", "message": "no", "param": "model"}}',
         "no", "model", "model_not_found"),
        (405, b'{"detail": "Method Not Allowed"}', "Method Not Allowed", None, None),
        (500, b"Internal Server Error", "Internal Server Error", None, None),
        (502, b"", "HTTP 502", None, None),
    ],
)  # fmt: skip
def test_an_engines_error_wears_our_envelope(
    status: int, body: bytes, message: str, param: str | None, code: str | None
) -> None:
    error = from_engine(status, body)
    assert (error.status, error.message) == (status, message)
    assert (error.param, error.code) == (param, code)
