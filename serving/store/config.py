"""What a stack is told of its store, of prices, of alerts and of an identity provider."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from pydantic import Field, field_validator, model_validator

from configs import StrictModel
from serving.store.money import per_million, per_second


class StoreConfig(StrictModel):
    """Where keys, tenants, limits, usage and blobs are kept."""

    url: str | None = None
    """`postgresql://user:password@host/name`; unset, SQLite in `$CORRAL_HOME/store/corral.db`."""
    blobs: str | None = None
    """Folder or URL of blobs (`s3://bucket/path`); unset, `$CORRAL_HOME/store/blobs`."""
    synchronous: Literal["normal", "full"] = "normal"
    """SQLite: `normal` survives any end of a process, `full` also a loss of power."""
    busy_timeout_s: float = Field(30.0, gt=0)
    """How long a writer waits for another one before it gives up."""
    pool_size: int = Field(8, ge=1)
    """Connections that one process keeps."""
    key_cache_s: float = Field(5.0, gt=0, le=60)
    """How long a gateway trusts what it knows of a key when it hears of no change."""
    lease_s: float = Field(30.0, ge=1)
    """A gateway that is silent for this long is dead, and its reservations are released."""


class PriceConfig(StrictModel):
    """Prices in US dollars; per million tokens, at most three decimals."""

    input: Decimal = Field(Decimal(0), ge=0)
    """A million prompt tokens."""
    cached_input: Decimal | None = Field(None, ge=0)
    """A million prompt tokens found in the prefix cache; unset, the price of `input`."""
    output: Decimal = Field(Decimal(0), ge=0)
    """A million generated tokens."""
    embedding: Decimal | None = Field(None, ge=0)
    """A million tokens embedded or ranked; unset, the price of `input`."""
    gpu_second: Decimal | None = Field(None, ge=0)
    """One second of one GPU, in place of prices for tokens; at most nine decimals."""

    @field_validator("input", "cached_input", "output", "embedding")
    @classmethod
    def _whole_nanodollars(cls, price: Decimal | None) -> Decimal | None:
        if price is not None:
            per_million(price)
        return price

    @field_validator("gpu_second")
    @classmethod
    def _whole_second(cls, price: Decimal | None) -> Decimal | None:
        if price is not None:
            per_second(price)
        return price

    @model_validator(mode="after")
    def _one_way(self) -> PriceConfig:
        if self.gpu_second is not None and (self.input or self.output or self.embedding):
            raise ValueError("gpu_second stands in place of prices for tokens; give one of them")
        return self


class AlertConfig(StrictModel):
    """Who hears that a budget nears its end. A log line and a metric come in any case."""

    thresholds: tuple[int, ...] = (50, 80, 100)
    """Per cent of a day's or month's budget at which an alert is raised, once each."""
    webhook: str | None = None
    """URL that gets a POST of JSON for each alert."""
    secret_file: str | None = None
    """File with the secret that signs the body: `x-corral-signature: sha256=<HMAC in hex>`."""
    attempts: int = Field(8, ge=1)
    """Deliveries tried, with pauses that double from one second on."""

    @field_validator("thresholds")
    @classmethod
    def _per_cents(cls, thresholds: tuple[int, ...]) -> tuple[int, ...]:
        if any(not 0 < percent <= 100 for percent in thresholds):
            raise ValueError("thresholds are per cent, from 1 to 100")
        return tuple(sorted(set(thresholds)))


class OidcConfig(StrictModel):
    """Tokens (JWT) of an identity provider, accepted beside API keys."""

    issuer: str
    """Exactly what the tokens carry in `iss`."""
    audience: str
    """What their `aud` must name."""
    jwks: str
    """URL (`https://…/jwks.json`) or file of the provider's public keys."""
    algorithms: tuple[
        Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"],
        ...,
    ] = ("RS256", "ES256")
    """Signatures accepted. Only those of key pairs can be named."""
    tenant_claim: str = "tenant"
    """Claim with the tenant's id; `a.b` reaches into objects."""
    role_claim: str = "roles"
    """Claim with a role, or a list of roles."""
    roles: dict[str, Literal["admin", "member", "service"]] = {}
    """The provider's role to ours; unset, its names are ours. Other roles let nobody in."""
    subject_claim: str = "sub"
    """Claim that tells users apart; limits and usage are kept under it."""
    leeway_s: float = Field(30.0, ge=0, le=300)
    """How far the clocks may differ."""
    refresh_s: float = Field(300.0, ge=1)
    """Age at which the public keys are fetched anew."""
    min_refresh_s: float = Field(10.0, ge=1)
    """An unknown key id fetches them earlier, but not more often than this."""
