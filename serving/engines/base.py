"""The seam between a replica and what generates (or embeds).

A replica owns one `Engine`, serves the ASGI app that `start` returns on its own
port, and probes it. Engines that hold LoRA adapters also implement `AdapterHost`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from starlette.types import ASGIApp


@dataclass(frozen=True)
class EngineSpec:
    """What an engine is told about its surroundings."""

    model: str
    """Public name, echoed in answers."""
    weights: Path | None
    """Directory of the prepared model; None for engines without one."""


@dataclass(frozen=True)
class AdapterRef:
    """One immutable adapter version under the name the engine knows it by."""

    engine_name: str
    """`<base>:<name>@<version>`"""
    path: Path


class Engine(Protocol):
    """Runs one model on one replica. All methods run on the engine's own event loop."""

    async def start(self) -> ASGIApp:
        """Load and warm up; the returned app answers the OpenAI routes."""
        ...

    async def probe(self, deadline_s: float) -> None:
        """Prove forward progress within `deadline_s`. Raises EngineStalled.

        Tokens produced for anybody since the last probe count, so that a
        saturated engine is not mistaken for a hung one.
        """
        ...

    async def metrics(self) -> str:
        """Prometheus exposition text of this engine."""
        ...

    async def stop(self) -> None:
        """Free the model and end every process the engine started."""
        ...


@runtime_checkable
class AdapterHost(Protocol):
    """An engine that serves LoRA adapters beside its base model."""

    async def load_adapter(self, adapter: AdapterRef) -> None:
        """Make the adapter answer under `engine_name`. Idempotent. Raises AdapterRefused."""
        ...

    async def unload_adapter(self, engine_name: str) -> None:
        """Forget the adapter's name and its weights. Unknown names are ignored."""
        ...

    def adapters(self) -> list[str]:
        """Engine names of the loaded adapters, least recently used first."""
        ...


@runtime_checkable
class Sleeper(Protocol):
    """An engine that can leave its GPU's memory to somebody else for a while."""

    async def sleep(self) -> None:
        """Free the memory. Called when no request runs. Idempotent. Raises CannotSleep."""
        ...

    async def wake(self) -> None:
        """Take the memory again, and answer as before. Idempotent."""
        ...
