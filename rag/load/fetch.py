"""Fetches a URL without being led into the network it runs in (SSRF).

The host is resolved once, every address must be public, and the connection goes to the very
address that was checked, so that a second answer of the name server changes nothing. Each
redirect begins anew. Proxies of the environment are not used.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from dataclasses import dataclass
from urllib.parse import urljoin

import httpx

from rag.errors import Refused, SourceUnreadable
from rag.load.config import WebConfig

__all__ = ["Fetched", "checked_address", "fetch"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Fetched:
    """A response's body, where it came from in the end, and its media type."""

    url: str
    data: bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class _Asked:
    url: httpx.URL
    host: str
    port: int

    @property
    def origin(self) -> tuple[str, str, int]:
        return (self.url.scheme, self.host, self.port)


def fetch(url: str, config: WebConfig, headers: dict[str, str] | None = None) -> Fetched:
    """GET `url`. `headers` go to its own host only, never along a redirect to another.

    Raises Refused for addresses and types that are not allowed, SourceUnreadable otherwise.
    """
    deadline = time.monotonic() + config.timeout_s
    origin = _parsed(url, config)
    with httpx.Client(trust_env=False) as client:
        for _ in range(config.max_redirects + 1):
            asked = _parsed(url, config)
            own = headers if headers and asked.origin == origin.origin else {}
            found = _once(client, asked, config, deadline, own)
            if isinstance(found, Fetched):
                return found
            url = found
    raise SourceUnreadable(f"{url}: more than {config.max_redirects} redirects")


def checked_address(host: str, port: int, config: WebConfig) -> Address:
    """The address to connect to. Raises Refused if any that the name has is not public."""
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise SourceUnreadable(f"the name {host} cannot be resolved: {exc}") from exc
    found = [ipaddress.ip_address(str(answer[4][0]).partition("%")[0]) for answer in answers]
    for address in found:
        if not _allowed(address, config):
            raise Refused(
                f"{host} is {address}, which is not a public address: list its network in "
                "load.web.allow_networks if documents may come from there"
            )
    return found[0]


def _allowed(address: Address, config: WebConfig) -> bool:
    listed = (ipaddress.ip_network(one) for one in config.allow_networks)
    if any(address in one for one in listed if one.version == address.version):
        return True
    inner = _inner(address)
    if inner is not None:
        return _allowed(inner, config)
    return address.is_global and not (address.is_multicast or address.is_reserved)


def _inner(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for, if it does."""
    if not isinstance(address, ipaddress.IPv6Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)


def _once(
    client: httpx.Client, asked: _Asked, config: WebConfig, deadline: float, headers: dict[str, str]
) -> Fetched | str:
    """One request: what came, or where it was redirected to."""
    address = checked_address(asked.host, asked.port, config)
    request = client.build_request(
        "GET",
        asked.url.copy_with(host=str(address)),
        headers={
            "Host": asked.url.netloc.decode(),
            "User-Agent": config.user_agent,
            "Accept-Encoding": "identity",
            **headers,
        },
        extensions={"sni_hostname": asked.host, "timeout": _timeouts(deadline)},
    )
    try:
        response = client.send(request, stream=True)
        try:
            return _answer(response, str(asked.url), config, deadline)
        finally:
            response.close()
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as exc:
        if isinstance(exc, Refused | SourceUnreadable):
            raise
        raise SourceUnreadable(f"cannot fetch {asked.url}: {type(exc).__name__}: {exc}") from exc


def _parsed(url: str, config: WebConfig) -> _Asked:
    try:
        asked = httpx.URL(url)
        port = asked.port or {"http": 80, "https": 443}.get(asked.scheme, 0)
    except (httpx.InvalidURL, ValueError, TypeError) as exc:
        raise Refused(f"{url!r} is no URL: {exc}") from exc
    if asked.scheme not in ("http", "https") or not asked.host:
        raise Refused(f"{url!r}: only http and https pages are fetched")
    if asked.userinfo:
        raise Refused(f"{url!r} carries a user name: leave it out")
    if port not in config.ports:
        raise Refused(f"{url!r}: port {port} is not in load.web.ports")
    return _Asked(asked, asked.raw_host.decode("ascii"), port)


def _answer(
    response: httpx.Response, url: str, config: WebConfig, deadline: float
) -> Fetched | str:
    if response.is_redirect:
        return str(urljoin(url, response.headers.get("location", "")))
    if response.status_code != 200:
        raise SourceUnreadable(f"{url} answers {response.status_code} {response.reason_phrase}")
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type and not media_type.startswith(config.media_types):
        raise Refused(f"{url} is {media_type}: load.web.media_types does not have it")
    most = config.max_mib << 20
    body = bytearray()
    for chunk in response.iter_bytes(_CHUNK):
        body += chunk
        if len(body) > most:
            raise Refused(f"{url} has more than {config.max_mib} MiB: raise load.web.max_mib")
        if time.monotonic() > deadline:
            raise SourceUnreadable(f"{url} takes longer than {config.timeout_s:g} s")
    return Fetched(url, bytes(body), media_type)


def _timeouts(deadline: float) -> dict[str, float]:
    left = max(0.001, deadline - time.monotonic())
    return dict.fromkeys(("connect", "read", "write", "pool"), left)
