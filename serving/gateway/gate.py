"""Who may ask for what: the one place where keys, allow-lists and limits are applied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from serving.gateway.charge import UNBILLED_PATHS, Charge, estimate, rate_headers, refusal
from serving.gateway.counting import Counter
from serving.gateway.directory import Target
from serving.gateway.errors import ApiError
from serving.gateway.estimate import Bound
from serving.gateway.metrics import GatewayMetrics
from serving.store.accounts import Accounts
from serving.store.errors import KeyRefused
from serving.store.identity import HOST, Allow, Identity
from serving.store.ledger_types import Granted, Payer, Refused, Reserve, Tokens
from serving.store.money import NANO

Headers = list[tuple[bytes, bytes]]


class Gate(Protocol):
    """What the gateway asks before it does anything for anybody."""

    async def identify(self, headers: Headers) -> Identity:
        """Who asks, by the head of the request. Raises ApiError (401), StoreUnavailable."""
        ...

    async def charge(
        self,
        identity: Identity,
        target: Target,
        request: Charge,
        *,
        bound: Callable[[], Bound],
        count: Counter,
    ) -> Charge:
        """Reserve what the request may cost at most. Raises ApiError (402, 429), StoreUnavailable.

        `request` names it; `count` is asked where the bound is too much and the truth may not be.
        """
        ...


class KeyGate:
    """By API keys and tokens of an identity provider."""

    def __init__(self, accounts: Accounts, metrics: GatewayMetrics) -> None:
        self._accounts = accounts
        self._metrics = metrics
        metrics.watch(accounts.ledger)

    async def identify(self, headers: Headers) -> Identity:
        """See `Gate.identify`: `Authorization: Bearer KEY`, or `x-api-key: KEY`."""
        presented = _presented(headers)
        if presented is None:
            raise _unauthorized(
                "no API key: send `Authorization: Bearer KEY`; `corral keys create` makes one, "
                "the first is in $CORRAL_HOME/credentials",
                "invalid_api_key",
            )
        try:
            return await self._accounts.authenticate(presented)
        except KeyRefused as exc:
            raise _unauthorized(str(exc), exc.code) from exc

    async def charge(
        self,
        identity: Identity,
        target: Target,
        request: Charge,
        *,
        bound: Callable[[], Bound],
        count: Counter,
    ) -> Charge:
        """See `Gate.charge`. Without a limit that concerns the request, the store is not asked."""
        config = target.served.config
        payer = Payer(identity.tenant_id, identity.lineage, config.name, target.adapter_name)
        ledger = self._accounts.ledger
        gpus = config.replicas.num_gpus
        charge = replace(request, payer=payer, gpus=gpus, on_booked=self._count)
        if self._accounts.limit_book.concerns(payer):
            decision = await self._reserve(payer, bound(), count, request.request_id)
            charge.reservation = decision.reservation
            charge.headers = rate_headers(decision)
        elif request.path in UNBILLED_PATHS:
            return charge
        charge.ledger = ledger
        return charge

    async def _reserve(
        self, payer: Payer, bound: Bound, count: Counter, request_id: str
    ) -> Granted:
        """By the bound; where that is refused and the exact prompt may fit, by its count."""
        ledger = self._accounts.ledger
        decision = await ledger.reserve(Reserve(payer, estimate(bound), request_id))
        if isinstance(decision, Refused) and self._may_fit(decision, payer, bound):
            counted = await count()
            if counted is not None and counted < bound.input:
                exact = replace(bound, input=counted)
                decision = await ledger.reserve(Reserve(payer, estimate(exact), request_id))
        if isinstance(decision, Refused):
            raise refusal(decision)
        return decision

    def _count(self, payer: Payer, used: Tokens) -> None:
        cost = self._accounts.prices.of(payer.model, payer.adapter).cost(used)
        self._metrics.booked(payer, used, cost / NANO)

    def _may_fit(self, refused: Refused, payer: Payer, bound: Bound) -> bool:
        """Whether what is missing is less than the prompt's share of what was asked."""
        missing = refused.needed - refused.remaining
        if refused.limit.startswith("tokens"):
            return missing < bound.input
        if refused.limit.startswith("usd"):
            price = self._accounts.prices.of(payer.model, payer.adapter)
            return missing < bound.input * price.input
        return False


class OpenGate:
    """Lets everybody in and charges nobody: for a gateway inside another program, and for tests."""

    async def identify(self, headers: Headers) -> Identity:
        """See `Gate.identify`."""
        return ANYBODY

    async def charge(
        self,
        identity: Identity,
        target: Target,
        request: Charge,
        *,
        bound: Callable[[], Bound],
        count: Counter,
    ) -> Charge:
        """See `Gate.charge`."""
        return request


_ALL = Allow(None)
ANYBODY = Identity("", "", HOST, "admin", "anybody", _ALL, _ALL, _ALL, _ALL, _ALL, cache_salt="")


def _presented(headers: Headers) -> str | None:
    found = dict(reversed(headers))
    scheme, _, key = found.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"bearer":
        key = found.get(b"x-api-key", b"")
    return key.strip().decode("latin-1") or None


def _unauthorized(message: str, code: str) -> ApiError:
    return ApiError(401, message, code=code, headers=[(b"www-authenticate", b"Bearer")])
