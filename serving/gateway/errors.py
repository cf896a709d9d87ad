"""Errors as HTTP: one exception, two envelopes (OpenAI's, and Anthropic's for /v1/messages).

ApiError (Exception)      status, message, type, param, code, extra headers
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
from starlette.types import Send

from serving.errors import (
    AdapterNotFound,
    AdapterRefused,
    CorralError,
    EngineStalled,
    PoolBusy,
    PoolUnavailable,
)
from serving.store.errors import Conflict, Invalid, KeyRefused, NotFound, StoreUnavailable

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
}


class ApiError(Exception):
    """An answer with an error status. `code` is OpenAI's machine-readable reason."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: list[tuple[bytes, bytes]] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = headers or []

    @property
    def type(self) -> str:
        """OpenAI's error type for the status."""
        return _TYPES.get(
            self.status, "invalid_request_error" if self.status < 500 else "api_error"
        )

    def body(self, path: str) -> bytes:
        """The JSON body, in the envelope that clients of `path` expect."""
        if path.startswith("/v1/messages"):
            inner = {"type": self.type, "message": self.message}
            return msgspec.json.encode({"type": "error", "error": inner})
        return msgspec.json.encode(
            {
                "error": {
                    "message": self.message,
                    "type": self.type,
                    "param": self.param,
                    "code": self.code,
                }
            }
        )

    async def send(self, path: str, send: Send) -> None:
        """Answer with this error."""
        body = self.body(path)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            *self.headers,
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def from_corral(exc: CorralError) -> ApiError:
    """The HTTP face of corral's own errors."""
    match exc:
        case PoolBusy():
            seconds = max(1, math.ceil(exc.retry_after_s))
            header = [(b"retry-after", str(seconds).encode())]
            return ApiError(429, str(exc), code="overloaded", headers=header)
        case AdapterNotFound():
            return ApiError(404, str(exc), code="model_not_found", param="model")
        case AdapterRefused():
            return ApiError(400, str(exc), code="adapter_refused", param="model")
        case KeyRefused():
            header = [(b"www-authenticate", b"Bearer")]
            return ApiError(401, str(exc), code=exc.code, headers=header)
        case NotFound():
            return ApiError(404, str(exc), code="not_found")
        case Conflict():
            return ApiError(409, str(exc), code="conflict")
        case Invalid():
            return ApiError(400, str(exc), code="invalid_value")
        case StoreUnavailable():
            header = [(b"retry-after", b"5")]
            return ApiError(503, str(exc), code="store_unavailable", headers=header)
        case PoolUnavailable() | EngineStalled():
            header = [(b"retry-after", b"5")]
            return ApiError(503, str(exc), code="model_unavailable", headers=header)
        case _:
            return ApiError(500, str(exc), code="internal_error")


class _EngineError(msgspec.Struct):
    """What engines say in `error`; vLLM's `type` and `code` are its own and are not passed on."""

    message: str = ""
    param: str | None = None
    code: str | int | None = None


class _EngineAnswer(msgspec.Struct):
    error: _EngineError | None = None
    detail: Any = None


def from_engine(status: int, body: bytes) -> ApiError:
    """An engine's error answer in OpenAI's terms, whatever envelope it came in."""
    try:
        answer = msgspec.json.decode(body, type=_EngineAnswer)
    except msgspec.DecodeError:
        return ApiError(status, body.decode(errors="replace")[:500] or f"HTTP {status}")
    error = answer.error or _EngineError(message=str(answer.detail or f"HTTP {status}"))
    code = error.code if isinstance(error.code, str) else None
    if "maximum context length" in error.message:
        code = "context_length_exceeded"
    elif status == 404 and error.param == "model":
        code = "model_not_found"
    return ApiError(status, error.message, code=code, param=error.param)
