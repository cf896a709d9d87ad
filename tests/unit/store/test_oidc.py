"""Tokens of an identity provider: real signatures, and hostile tokens that must not get in."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from serving.store.audit import SYSTEM
from serving.store.config import OidcConfig
from serving.store.database import Store
from serving.store.errors import KeyRefused, StoreUnavailable
from serving.store.oidc import TokenDoor
from serving.store.tenants import TenantStore

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
STRANGER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    found = {
        "iss": "https://id.example", "aud": "corral", "sub": "ada", "exp": now + 60, "iat": now,
        "org": {"tenant": "acme"}, "roles": ["viewer", "ml-user"],
    }  # fmt: skip
    return {name: value for name, value in (found | changes).items() if value is not None}


def token(key: Any = RSA, alg: str = "RS256", kid: Any = "r", **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm=alg, headers={"kid": kid})


def write_keys(path: Path, **keys: Any) -> None:
    listed = []
    for kid, key in keys.items():
        kind = "RSA" if isinstance(key, rsa.RSAPrivateKey) else "EC"
        algorithm = jwt.get_algorithm_by_name("RS256" if kind == "RSA" else "ES256")
        listed.append(json.loads(algorithm.to_jwk(key.public_key())) | {"kid": kid, "use": "sig"})
    secret = base64.urlsafe_b64encode(b"s" * 32).decode().rstrip("=")
    listed.append({"kty": "oct", "kid": "shared", "k": secret})
    path.write_text(json.dumps({"keys": listed}))


@pytest.fixture
def config_of_provider(tmp_path: Path) -> OidcConfig:
    write_keys(tmp_path / "jwks.json", r=RSA, e=EC)
    return OidcConfig(
        issuer="https://id.example", audience="corral", jwks=str(tmp_path / "jwks.json"),
        tenant_claim="org.tenant", roles={"ml-user": "member", "ml-admin": "admin"},
        leeway_s=0,
    )  # fmt: skip


@pytest.fixture
def door(store: Store, config_of_provider: OidcConfig) -> TokenDoor:
    TenantStore(store).create("acme", SYSTEM, models=["llama*"])
    return TokenDoor(store, config_of_provider)


@pytest.mark.parametrize(("key", "alg", "kid"), [(RSA, "RS256", "r"), (EC, "ES256", "e")])
def test_a_signed_token_is_let_in(door: TokenDoor, key: Any, alg: str, kid: str) -> None:
    identity = door.identify(token(key, alg, kid))
    assert (identity.tenant_id, identity.role, identity.key_id) == ("acme", "member", "oidc:ada")
    assert identity.may_use("llama-3")
    assert not identity.may_use("qwen")
    assert identity.expires_us is not None
    other = door.identify(token(key, alg, kid, sub="bob"))
    assert other.lineage != identity.lineage
    assert door.identify(token(key, alg, kid)).lineage == identity.lineage


def test_the_strongest_role_counts(door: TokenDoor) -> None:
    assert door.identify(token(roles=["ml-user", "ml-admin"])).role == "admin"
    assert door.identify(token(roles="ml-user")).role == "member"


def _unsigned(header: dict[str, Any], body: dict[str, Any], signature: bytes = b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(body).encode()]
    encoded = [base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, base64.urlsafe_b64encode(signature).rstrip(b"=").decode()])


def _confused() -> str:
    """Signed by HMAC with the public key as the secret."""
    head = _unsigned({"alg": "HS256", "kid": "r", "typ": "JWT"}, claims()).rpartition(".")[0]
    signature = hmac.new(PEM, head.encode(), hashlib.sha256).digest()
    return f"{head}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def _tampered() -> str:
    head, _, signature = token().split(".")
    body = base64.urlsafe_b64encode(json.dumps(claims(roles=["ml-admin"])).encode())
    return f"{head}.{body.rstrip(b'=').decode()}.{signature}"


HOSTILE: dict[str, Callable[[], str]] = {
    "no algorithm": lambda: _unsigned({"alg": "none", "kid": "r"}, claims()),
    "None algorithm": lambda: _unsigned({"alg": "None", "kid": "r"}, claims()),
    "hmac with the public key": _confused,
    "hmac with a shared key": lambda: token(b"s" * 32, "HS256", "shared"),
    "changed body": _tampered,
    "stranger's key": lambda: token(STRANGER),
    "unknown key id": lambda: token(kid="x"),
    "another key's id": lambda: token(RSA, kid="e"),
    "algorithm not listed": lambda: token(RSA, "RS512"),
    "another issuer": lambda: token(iss="https://evil.example"),
    "no issuer": lambda: token(iss=None),
    "another audience": lambda: token(aud="other"),
    "no audience": lambda: token(aud=None),
    "no expiry": lambda: token(exp=None),
    "not yet": lambda: token(nbf=int(time.time()) + 600),
    "no tenant": lambda: token(org={}),
    "tenant of another type": lambda: token(org={"tenant": ["acme"]}),
    "unknown tenant": lambda: token(org={"tenant": "nope"}),
    "tenant with NUL": lambda: token(org={"tenant": "ac\0me"}),
    "no role": lambda: token(roles=["viewer"]),
    "our role's name": lambda: token(roles=["admin"]),
    "roles of another type": lambda: token(roles={"ml-admin": True}),
    "no subject": lambda: token(sub=None),
    "key id in a path": lambda: token(kid="../../etc/passwd"),
    "key in the header": lambda: jwt.encode(claims(), STRANGER, algorithm="RS256",
                                            headers={"kid": "r", "jku": "https://evil.example"}),
    "empty parts": lambda: "..",
    "no JSON": lambda: "e30.e30.e30",
    "too long": lambda: token(pad="x" * 20_000),
    "not text": lambda: "\udcff.\0.é",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tokens_are_refused(door: TokenDoor, name: str) -> None:
    with pytest.raises(KeyRefused, match="not accepted"):
        door.identify(HOSTILE[name]())


def test_an_expired_token_says_so(door: TokenDoor) -> None:
    with pytest.raises(KeyRefused) as caught:
        door.identify(token(exp=int(time.time()) - 1))
    assert caught.value.code == "key_expired"


def test_a_disabled_tenant_is_refused(door: TokenDoor, store: Store) -> None:
    TenantStore(store).set_disabled("acme", True, SYSTEM)
    with pytest.raises(KeyRefused) as caught:
        door.identify(token())
    assert caught.value.code == "tenant_disabled"


def test_a_new_key_of_the_provider_is_fetched_but_not_for_everyone_who_asks(
    door: TokenDoor, tmp_path: Path
) -> None:
    door.identify(token())
    write_keys(tmp_path / "jwks.json", new=STRANGER)
    with pytest.raises(KeyRefused):
        door.identify(token(STRANGER, kid="new"))
    door._keys._tried_s -= 11  # the pause between two fetches is over
    assert door.identify(token(STRANGER, kid="new")).tenant_id == "acme"
    with pytest.raises(KeyRefused):
        door.identify(token())


def test_keys_that_cannot_be_read_are_unavailable_then_kept(
    store: Store, config_of_provider: OidcConfig, tmp_path: Path
) -> None:
    TenantStore(store).create("acme", SYSTEM)
    whole = (tmp_path / "jwks.json").read_text()
    (tmp_path / "jwks.json").write_text("{")
    door = TokenDoor(store, config_of_provider)
    with pytest.raises(StoreUnavailable, match="not known yet"):
        door.identify(token())
    (tmp_path / "jwks.json").write_text(whole)
    door._keys._tried_s -= 11
    door.identify(token())
    (tmp_path / "jwks.json").unlink()
    door._keys._fetched_s -= 1000
    door._keys._tried_s -= 11
    assert door.identify(token()).tenant_id == "acme"
