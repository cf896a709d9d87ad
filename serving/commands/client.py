"""How commands talk to a running stack: its address, its admin key, and clear errors."""

from __future__ import annotations

import os
import ssl
from typing import Any

import httpx

from serving.errors import CorralError
from serving.home import Home
from serving.processes import read_state
from serving.runtime import read_admin_key

TIMEOUT_S = 90.0


class NotServing(CorralError):
    """No stack runs for this home."""


def base_url(home: Home, url: str | None) -> str:
    """`url`, or the address of the stack that runs for `home`. Raises NotServing."""
    if url:
        return url.rstrip("/")
    state = read_state(home.run)
    if state is None or not state.alive:
        raise NotServing(
            f"nothing is served from {home.root}. Start it with `corral serve`, "
            "or name a running one with --url"
        )
    return state.url


def trust(home: Home, url: str | None) -> ssl.SSLContext | bool:
    """How to verify the stack: for the one of this home, by its own certificate on disk.

    Another, named by `url`, must be trusted by this machine; SSL_CERT_FILE adds a certificate.
    """
    state = None if url else read_state(home.run)
    if state is None or state.certificate is None:
        return True
    context = ssl.create_default_context(cafile=state.certificate)
    context.check_hostname = False  # it is reached by an address, and known by its certificate
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def api_key(home: Home) -> str | None:
    """What the commands present: `$CORRAL_API_KEY`, or the admin key of this home if it has one."""
    return os.environ.get("CORRAL_API_KEY") or read_admin_key(home)


def call(home: Home, url: str | None, method: str, path: str, **kwargs: Any) -> Any:
    """One admin or public request; the parsed JSON. Raises CorralError with the server's words."""
    base = base_url(home, url)
    key = api_key(home)
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    try:
        response = httpx.request(
            method,
            base + path,
            headers=headers,
            timeout=TIMEOUT_S,
            verify=trust(home, url),
            **kwargs,
        )
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise NotServing(f"{base} does not answer: {exc}. `corral status` tells more") from exc
    try:
        answer = response.json()
        if response.is_success:
            return answer
        message = answer["error"]["message"]
    except (ValueError, KeyError, TypeError) as exc:
        if response.is_success:
            raise NotServing(f"{base} is no corral: {path} is not answered with JSON") from exc
        message = response.text[:300]
    raise CorralError(f"{message} (HTTP {response.status_code})")


def duration_s(text: str) -> float:
    """Seconds of `90d`, `12h`, `30m`, `45s`. Raises CorralError."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
    if text[-1:] in units and text[:-1].isdigit():
        return float(text[:-1]) * units[text[-1]]
    raise CorralError(f"{text!r} is no duration; say 45s, 30m, 12h or 90d")
