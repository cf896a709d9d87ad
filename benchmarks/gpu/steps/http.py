"""Single requests to an engine, where no load is wanted."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from benchmarks.gpu.context import StepFailed

__all__ = ["first_token_s", "post"]

JSON = {"content-type": "application/json"}


def post(
    url: str,
    body: Any = None,
    timeout_s: float = 120.0,
    headers: Mapping[str, str] | None = None,
) -> Any:
    """The JSON answer. Raises StepFailed with the server's own words."""
    data = b"" if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, JSON | dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            text = response.read()
    except urllib.error.HTTPError as exc:
        raise StepFailed(f"{url} answered {exc.code}: {exc.read()[:300].decode()}") from exc
    except OSError as exc:
        raise StepFailed(f"{url} did not answer: {exc}") from exc
    return json.loads(text) if text.strip() else None


def first_token_s(
    url: str, model: str, prompt: Any, headers: Mapping[str, str] | None = None
) -> float:
    """Seconds from the request to the first byte of a streamed answer's first event."""
    body = {"model": model, "prompt": prompt, "max_tokens": 2, "stream": True, "ignore_eos": True}
    data = json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/v1/completions", data, JSON | dict(headers or {}))
    began = time.perf_counter()
    try:
        with urllib.request.urlopen(request, timeout=120.0) as response:
            line = response.readline()
            seconds = time.perf_counter() - began
            response.read()
    except urllib.error.HTTPError as exc:
        raise StepFailed(f"{url} answered {exc.code}: {exc.read()[:300].decode()}") from exc
    except OSError as exc:
        raise StepFailed(f"{url} did not answer: {exc}") from exc
    if not line.startswith(b"data:"):
        raise StepFailed(f"{url} streamed {line[:200]!r} instead of an event")
    return seconds
