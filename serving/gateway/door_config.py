"""How connections are treated before a request is read: time, size, origin, encryption."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from configs import StrictModel


class HttpLimits(StrictModel):
    """Limits of one connection. HAProxy holds them; the gateway holds those on bodies again."""

    max_headers: int = Field(64, ge=16, le=1024)
    """Header lines of a request; beyond, 400."""
    max_header_bytes: int = Field(16_384, ge=8192, le=1_048_576)
    """Request line and headers together; beyond, 400. HAProxy keeps 1 KiB of it for itself."""
    head_timeout_s: int = Field(10, ge=1)
    """From a request's first byte to the end of its headers; beyond, 408."""
    body_timeout_s: int = Field(60, ge=1)
    """From the end of the headers to the end of the body; beyond, 408."""
    idle_timeout_s: int = Field(60, ge=1)
    """A client that neither sends nor takes what is ready for it; then the connection closes."""
    keep_alive_s: int = Field(75, ge=1)
    """An open connection between two requests."""


class CorsConfig(StrictModel):
    """Web pages of other origins that may read answers. Cookies play no part: keys are headers."""

    origins: tuple[str, ...] = ()
    """`https://app.example.com`, or `*` for all; by default none."""
    max_age_s: int = Field(600, ge=0)
    """How long a browser may keep a preflight's answer."""

    @field_validator("origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            parts = urlsplit(origin)
            if origin != "*" and (
                f"{parts.scheme}://{parts.netloc}" != origin or not parts.netloc or "*" in origin
            ):
                raise ValueError(f"{origin!r} is no origin: write scheme://host[:port], or *")
        return origins


class TlsConfig(StrictModel):
    """Certificate for https; both files or none. TLS 1.2 and newer."""

    certificate: str | None = None
    """PEM file of the certificate, its chain after it."""
    key: str | None = None
    """PEM file of its private key, without a passphrase."""

    @property
    def enabled(self) -> bool:
        return self.certificate is not None

    @model_validator(mode="after")
    def _both_or_none(self) -> TlsConfig:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("gateway.tls needs both `certificate` and `key`")
        return self
