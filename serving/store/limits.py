"""Limits by scope: set by admins, and known to every gateway.

A scope is `key:<lineage>`, `tenant:<id>`, `model:<base>` or `tenant_model:<id>/<base>`.
All that concern a request must allow it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from sqlalchemy import delete, insert, select

from serving.store import audit
from serving.store.audit import Actor
from serving.store.database import Store
from serving.store.errors import Invalid, NotFound
from serving.store.ledger_types import Payer
from serving.store.money import MAX_NUSD
from serving.store.tables import keys, limits, tenants

_SCOPE = re.compile(r"(key|tenant|model):[^@/\s]+[^@\s]*|tenant_model:[a-z0-9-]+/[^@\s]+")

FOREIGN = "oidc_"
"""Begins the lineage of who comes with a token; no row tells of them."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Most of what a scope may use; None is no limit, 0 is nothing. Money in nano-dollars."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    parallel_requests: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    nusd_per_day: int | None = None
    nusd_per_month: int | None = None
    nusd_per_request: int | None = None

    @property
    def is_empty(self) -> bool:
        return all(getattr(self, field.name) is None for field in fields(self))

    @property
    def has_meter(self) -> bool:
        rates = (self.requests_per_minute, self.tokens_per_minute, self.parallel_requests)
        return any(rate is not None for rate in rates)

    @property
    def has_window(self) -> bool:
        tokens, money = (self.tokens_per_day, self.tokens_per_month), (self.nusd_per_day,)
        return any(most is not None for most in (*tokens, *money, self.nusd_per_month))


class LimitStore:
    """Sets, shows and removes limits."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def set(self, scope: str, new: Limits, actor: Actor) -> Limits:
        """Replace the limits of `scope`. Raises Invalid, NotFound for an unknown key or tenant."""
        self.check(scope)
        self._check_values(new)
        with self._store.write(announce=True) as connection:
            kind, _, name = scope.partition(":")
            known = {"key": keys.c.lineage, "tenant": tenants.c.id, "tenant_model": tenants.c.id}
            if kind in known and not name.startswith(FOREIGN):
                owner = name.partition("/")[0] if kind == "tenant_model" else name
                query = select(known[kind]).where(known[kind] == owner).limit(1)
                if connection.execute(query).first() is None:
                    raise NotFound(f"no {kind.partition('_')[0]} {owner!r}")
            connection.execute(delete(limits).where(limits.c.scope == scope))
            if not new.is_empty:
                connection.execute(insert(limits).values(scope=scope, **asdict(new)))
            audit.record(connection, self._store, actor, "limits.set", scope, detail=asdict(new))
        return new

    def all(self) -> dict[str, Limits]:
        """Every scope that has limits."""
        with self._store.read() as connection:
            rows = connection.execute(select(limits).order_by(limits.c.scope)).all()
        return {row[0]: Limits(*row[1:]) for row in rows}

    def check(self, scope: str) -> None:
        """Raises Invalid for what is no scope."""
        if len(scope) > 256 or "\0" in scope or not _SCOPE.fullmatch(scope):
            raise Invalid(
                f"{scope[:256]!r} is no scope: key:ID, tenant:ID, model:NAME or "
                "tenant_model:ID/NAME"
            )

    def _check_values(self, new: Limits) -> None:
        for field in fields(new):
            most = getattr(new, field.name)
            if most is not None and not 0 <= most <= MAX_NUSD:
                raise Invalid(f"{field.name} must lie between 0 and {MAX_NUSD}, not {most}")


class LimitBook:
    """All limits, as one process knows them: loaded anew when a change is announced."""

    def __init__(self, store: Store, max_age_s: float) -> None:
        self._store = store
        self._max_age_s = max_age_s
        self._stamp: object = None
        self._until_s = 0.0
        self._known: Mapping[str, Limits] = {}

    def refresh(self) -> Mapping[str, Limits]:
        """The limits by scope; asks the store if they may have changed."""
        stamp = self._store.stamp.read()
        if stamp != self._stamp or self._until_s < time.monotonic():
            until_s = time.monotonic() + self._max_age_s
            self._known = LimitStore(self._store).all()
            self._stamp, self._until_s = stamp, until_s
        return self._known

    def concerns(self, payer: Payer) -> bool:
        """Whether some limit may concern `payer`; True in doubt. Asks nobody."""
        if self._store.stamp.read() != self._stamp or self._until_s < time.monotonic():
            return True
        return any(scope in self._known for scope in payer.scopes)
