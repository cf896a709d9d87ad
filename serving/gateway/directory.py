"""What clients may name in `model`, and the pool and adapter version behind each name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from serving.adapters import AdapterStore, AdapterVersion, FineTunedName
from serving.config import ModelConfig, VllmConfig
from serving.engines.base import AdapterRef
from serving.errors import AdapterNotFound, PoolUnavailable
from serving.gateway.errors import ApiError
from serving.gateway.pool import Pool

GENERATE = frozenset(
    {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"}
    | {"/v1/messages/count_tokens", "/tokenize", "/detokenize"}
)
EMBED = frozenset({"/v1/embeddings", "/tokenize", "/detokenize"})
RANK = frozenset({"/v1/rerank", "/v1/score"})
ENDPOINTS = GENERATE | EMBED | RANK


class Allowed(Protocol):
    """Whether somebody may use a base model, or its adapter of that name, which may be owned."""

    def __call__(
        self, model: str, adapter: str | None = None, owner: str | None = None
    ) -> bool: ...


def _everything(model: str, adapter: str | None = None, owner: str | None = None) -> bool:
    return True


@dataclass(frozen=True)
class Served:
    """One base model with its pool."""

    config: ModelConfig
    pool: Pool

    @property
    def context_tokens(self) -> int | None:
        """Longest prompt plus answer, where the configuration says."""
        return getattr(self.config.engine, "max_model_len", None)

    @property
    def endpoints(self) -> frozenset[str]:
        """The paths this model answers."""
        match self.config.engine.kind:
            case "fake":
                return ENDPOINTS
            case "embedding":
                return EMBED | RANK
            case "rerank":
                return RANK
            case "vllm":
                assert isinstance(self.config.engine, VllmConfig)
                return GENERATE if self.config.engine.task == "generate" else EMBED | RANK


@dataclass(frozen=True)
class Target:
    """Where one request goes."""

    served: Served
    adapter: AdapterRef | None = None

    @property
    def adapter_name(self) -> str | None:
        """The adapter without base and version."""
        if self.adapter is None:
            return None
        return self.adapter.engine_name.partition(":")[2].partition("@")[0]


@dataclass
class Directory:
    """Names to targets. Adapters are looked up on disk, so new versions count at once."""

    models: Mapping[str, Served]
    adapters: AdapterStore
    created: int
    _by_endpoint: dict[str, Served | None] = field(default_factory=dict)

    def resolve(self, name: str | None, path: str, allowed: Allowed = _everything) -> Target:
        """The target of a request for `name` on `path`.

        Raises ApiError (400, 403, 404), AdapterNotFound and AdapterRefused. Names that are
        not allowed are not told.
        """
        if name is None:
            return Target(self._only(path, allowed))
        served = self.models.get(name)
        if served is not None:
            _demand(allowed, name, None)
            self._check_endpoint(served, path, allowed)
            return Target(served)
        base, adapter, version = self._split(name, allowed)
        served = self.models[base]
        _demand(allowed, base, adapter)
        self._check_endpoint(served, path, allowed)
        owner = self.adapters.owner(adapter)
        if owner is not None and not allowed(base, None, owner):
            raise self.adapters.not_found(base, adapter)
        return Target(served, self.adapters.resolve(base, adapter, version))

    def _split(self, name: str, allowed: Allowed) -> tuple[str, str, str | None]:
        """Base, adapter and version of a name. Raises ApiError (404)."""
        tuned = FineTunedName.parse(name)
        if tuned is not None:
            found = self.adapters.find(tuned)
            known = found is not None and tuned.base in self.models
            if found is None or not known or not allowed(tuned.base, None, tuned.tenant):
                raise self._unknown(name, allowed)
            return tuned.base, *found
        base, sep, rest = name.partition(":")
        if not sep or base not in self.models:
            raise self._unknown(name, allowed)
        adapter, _, version = rest.partition("@")
        return base, adapter, version or None

    def cards(
        self, allowed: Allowed = _everything, *, checkpoints: bool = False
    ) -> list[dict[str, Any]]:
        """OpenAI model objects: base models first, then every served adapter version."""
        cards = [
            _card(name, self.created, root=name, parent=None)
            for name in self.models
            if allowed(name, None)
        ]
        for version in self.adapters.list():
            if version.error is not None or version.disabled or version.base not in self.models:
                continue
            if not allowed(version.base, version.name, version.tenant):
                continue
            if version.tenant is not None:
                cards += _tuned_cards(version, checkpoints)
                continue
            alias = f"{version.base}:{version.name}"
            full = f"{alias}@{version.version}"
            if version.live:
                cards.append(_card(alias, version.created, root=full, parent=version.base))
            cards.append(_card(full, version.created, root=full, parent=version.base))
        return cards

    def card(self, name: str, allowed: Allowed = _everything) -> dict[str, Any]:
        """The model object of one name, a checkpoint's too. Raises ApiError (404)."""
        for card in self.cards(allowed, checkpoints=True):
            if card["id"] == name:
                return card
        raise self._unknown(name, allowed)

    def _only(self, path: str, allowed: Allowed) -> Served:
        able = [
            served
            for name, served in self.models.items()
            if path in served.endpoints and allowed(name, None)
        ]
        if len(able) == 1:
            return able[0]
        names = ", ".join(served.config.name for served in able) or "none"
        raise ApiError(400, f"`model` is missing; models for {path}: {names}", param="model")

    def _check_endpoint(self, served: Served, path: str, allowed: Allowed) -> None:
        if path in served.endpoints:
            return
        able = [
            name
            for name, other in self.models.items()
            if path in other.endpoints and allowed(name, None)
        ]
        mend = f"; try {', '.join(able)}" if able else "; no configured model does"
        raise ApiError(
            400, f"model `{served.config.name}` does not answer {path}{mend}", param="model"
        )

    def _unknown(self, name: str, allowed: Allowed = _everything) -> ApiError:
        names = [card["id"] for card in self.cards(allowed)]
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"served: {', '.join(names[:8])}"
        return ApiError(
            404, f"the model `{name}` does not exist; {hint}", code="model_not_found", param="model"
        )


def _demand(allowed: Allowed, base: str, adapter: str | None) -> None:
    if not allowed(base, adapter):
        name = f"{base}:{adapter}" if adapter else base
        raise ApiError(
            403, f"this API key may not use `{name}`", code="model_not_allowed", param="model"
        )


def build_directory(
    configs: tuple[ModelConfig, ...],
    pool_of: Callable[[str], Pool],
    adapters: AdapterStore,
    created: int,
) -> Directory:
    """A directory of the configured models."""
    models = {config.name: Served(config, pool_of(config.name)) for config in configs}
    return Directory(models, adapters, created)


def _tuned_cards(version: AdapterVersion, checkpoints: bool) -> Iterator[dict[str, Any]]:
    """A tenant's own: by its `ft:` name, and by the adapter's where it is the live version."""
    full = f"{version.base}:{version.name}@{version.version}"
    names = [name for name in version.names if checkpoints or ":ckpt-step-" not in name]
    if version.live:
        names.append(f"{version.base}:{version.name}")
    for name in names:
        card = _card(name, version.created, root=full, parent=version.base)
        yield card | {"owned_by": version.tenant}


def _card(name: str, created: int, *, root: str, parent: str | None) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "corral",
        "root": root,
        "parent": parent,
    }


__all__ = ["ENDPOINTS", "AdapterNotFound", "Directory", "PoolUnavailable", "Served", "Target"]
