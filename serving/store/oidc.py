"""Tokens (JWT, RFC 7519) of a configured identity provider, judged by its public keys (JWKS)."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import jwt
from sqlalchemy import select

from serving.store.config import OidcConfig
from serving.store.database import Store
from serving.store.errors import KeyRefused, StoreUnavailable
from serving.store.identity import Allow, Identity, Role
from serving.store.limits import FOREIGN
from serving.store.tables import limits, tenants

MAX_TOKEN_LENGTH = 16_384
MAX_JWKS_BYTES = 1 << 20
TIMEOUT_S = 5.0
_FAMILIES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
_RANK: tuple[Role, ...] = ("admin", "service", "member")
_log = logging.getLogger(__name__)


class PublicKeys:
    """The provider's keys by id, fetched when they are old or when one is missing."""

    def __init__(self, config: OidcConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_s = float("-inf")
        self._tried_s = float("-inf")

    def find(self, kid: str) -> jwt.PyJWK | None:
        """The key of that id. Raises StoreUnavailable when the provider cannot be asked."""
        with self._lock:
            now = time.monotonic()
            old = now - self._fetched_s > self._config.refresh_s
            may_try = now - self._tried_s > self._config.min_refresh_s
            if (old or kid not in self._keys) and may_try:
                self._tried_s = now
                self._refresh()
            if not self._keys:
                raise StoreUnavailable(f"the public keys at {self._config.jwks} are not known yet")
            return self._keys.get(kid)

    def _refresh(self) -> None:
        try:
            document = json.loads(self._read())
            found = jwt.PyJWKSet.from_dict(document).keys
        except (OSError, httpx.HTTPError, ValueError, TypeError, jwt.PyJWTError) as exc:
            _log.error("the public keys at %s cannot be read: %s", self._config.jwks, exc)
            return
        asymmetric = (key for key in found if key.key_type in _FAMILIES.values())
        self._keys = {
            key.key_id or "": key for key in asymmetric if key.public_key_use in (None, "sig")
        }
        self._fetched_s = time.monotonic()

    def _read(self) -> bytes:
        if "://" not in self._config.jwks:
            return Path(self._config.jwks).expanduser().read_bytes()
        answer = httpx.get(self._config.jwks, timeout=TIMEOUT_S)
        answer.raise_for_status()
        if len(answer.content) > MAX_JWKS_BYTES:
            raise ValueError("the document is larger than 1 MiB")
        return answer.content


class TokenDoor:
    """Turns a token into an Identity."""

    def __init__(self, store: Store, config: OidcConfig) -> None:
        self._store = store
        self._config = config
        self._keys = PublicKeys(config)

    def identify(self, token: str) -> Identity:
        """Who presents `token`. Raises KeyRefused, StoreUnavailable."""
        claims = self._claims(token)
        role = self._role(_claim(claims, self._config.role_claim))
        tenant_id = _claim(claims, self._config.tenant_claim)
        subject = _claim(claims, self._config.subject_claim)
        if not isinstance(tenant_id, str) or not isinstance(subject, str) or not subject:
            raise _refused(f"it lacks {self._config.tenant_claim!r} or the subject")
        digest = hashlib.sha256(f"{self._config.issuer}\n{subject}".encode()).hexdigest()
        lineage = f"{FOREIGN}{digest[:32]}"
        with self._store.read() as connection:
            query = select(tenants).where(tenants.c.id == tenant_id)
            tenant = connection.execute(query).one_or_none() if "\0" not in tenant_id else None
            if tenant is None:
                raise _refused("its tenant does not exist here")
            if tenant.disabled_us is not None:
                raise KeyRefused(f"tenant {tenant_id!r} is disabled", "tenant_disabled")
            scopes = (f"key:{lineage}", f"tenant:{tenant_id}")
            found = select(limits.c.scope).where(limits.c.scope.in_(scopes)).limit(1)
            limited = connection.execute(found).first() is not None
        anything = Allow(None)
        return Identity(
            key_id=f"oidc:{subject}"[:128],
            lineage=lineage,
            tenant_id=tenant_id,
            role=role,
            name=subject,
            models=anything,
            tenant_models=Allow(tenant.models),
            adapters=anything,
            stores=anything,
            endpoints=anything,
            cache_salt=tenant.cache_salt,
            expires_us=int((claims["exp"] + self._config.leeway_s) * 1e6),
            limited=limited,
        )

    def _claims(self, token: str) -> Mapping[str, Any]:
        """The claims of a token whose signature, issuer, audience and times are right."""
        if len(token) > MAX_TOKEN_LENGTH:
            raise _refused("it is too long")
        try:
            header = jwt.get_unverified_header(token)
            algorithm, kid = header.get("alg"), header.get("kid", "")
            if algorithm not in self._config.algorithms:
                raise _refused(f"its algorithm is not among {', '.join(self._config.algorithms)}")
            key = self._keys.find(kid) if isinstance(kid, str) else None
            if key is None:
                raise _refused("it is signed with a key that the provider does not publish")
            if not _fits(key, algorithm):
                raise _refused("its algorithm is not that of its key")
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                issuer=self._config.issuer,
                audience=self._config.audience,
                leeway=self._config.leeway_s,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.ExpiredSignatureError as exc:
            raise KeyRefused("this token has expired", "key_expired") from exc
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as exc:
            raise _refused(str(exc) or "it is malformed") from exc
        return claims

    def _role(self, claimed: Any) -> Role:
        """The strongest role that the provider gives. Raises KeyRefused when there is none."""
        names = [claimed] if isinstance(claimed, str) else claimed
        if not isinstance(names, list):
            names = []
        ours: set[str] = {
            self._config.roles.get(name, name if not self._config.roles else "")
            for name in names
            if isinstance(name, str)
        }
        for role in _RANK:
            if role in ours:
                return role
        raise _refused(f"{self._config.role_claim!r} gives it no role here")


def _fits(key: jwt.PyJWK, algorithm: str) -> bool:
    declared = key._jwk_data.get("alg")
    return key.key_type == _FAMILIES[algorithm[:2]] and declared in (None, algorithm)


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """`a.b` in nested claims, or the claim that has just that name."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _refused(why: str) -> KeyRefused:
    return KeyRefused(f"this token is not accepted: {why}")
