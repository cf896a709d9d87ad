"""The pool without Ray, and the engine's thread underneath it."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.config import EmbeddingConfig, FakeConfig, ModelConfig, ReplicaConfig
from serving.engine_thread import EngineThread
from serving.engines.base import AdapterRef, EngineSpec
from serving.engines.fake import HANG_ENV, FakeEngine
from serving.errors import AdapterRefused, PoolBusy, PoolUnavailable
from serving.local_pool import LocalPool
from tests.unit.gateway.in_process import local


def _fake() -> FakeEngine:
    return FakeEngine(EngineSpec("fake", None), FakeConfig())


def _pool(folder: Path, max_ongoing: int = 8) -> LocalPool:
    return LocalPool(local("fake", max_ongoing=max_ongoing), _fake(), folder)


async def test_a_released_lease_is_given_out_again(tmp_path: Path) -> None:
    async with _pool(tmp_path) as pool:
        first = await pool.lease(None, 1.0)
        second = await pool.lease(None, 1.0)
        assert first.ticket != second.ticket
        first.release()
        assert (await pool.lease(None, 1.0)).ticket == first.ticket


async def test_an_abandoned_lease_is_not(tmp_path: Path) -> None:
    async with _pool(tmp_path) as pool:
        first = await pool.lease(None, 1.0)
        first.abandon()
        first.abandon()
        assert (await pool.lease(None, 1.0)).ticket != first.ticket


async def test_adapters_have_leases_of_their_own_and_are_loaded_first(tmp_path: Path) -> None:
    adapter = AdapterRef("fake:pirate@v1", tmp_path)
    async with _pool(tmp_path) as pool:
        plain = await pool.lease(None, 1.0)
        plain.release()
        assert (await pool.lease(adapter, 1.0)).ticket != plain.ticket
        (status,) = await pool.broadcast("status")
        assert status["adapters"] == ["fake:pirate@v1"]
        await pool.broadcast("unload_adapter", "fake:pirate@v1")
        (status,) = await pool.broadcast("status")
        assert status["adapters"] == []


async def test_a_refused_adapter_takes_no_slot(tmp_path: Path) -> None:
    missing = AdapterRef("fake:pirate@v1", tmp_path / "nowhere")
    async with _pool(tmp_path, max_ongoing=1) as pool:
        for _ in range(2):
            with pytest.raises(AdapterRefused):
                await pool.lease(missing, 1.0)
        assert (await pool.lease(None, 1.0)).ticket


async def test_a_full_pool_is_busy_until_a_lease_ends(tmp_path: Path) -> None:
    async with _pool(tmp_path, max_ongoing=1) as pool:
        held = await pool.lease(None, 1.0)
        with pytest.raises(PoolBusy):
            await pool.lease(None, 0.01)
        held.abandon()
        assert (await pool.lease(None, 10.0)).ticket != held.ticket


async def test_capacity_tells_a_hung_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang = tmp_path / "hang"
    monkeypatch.setenv(HANG_ENV, str(hang))
    monkeypatch.setattr("serving.local_pool.PROBE_DEADLINE_S", 0.05)
    async with _pool(tmp_path) as pool:
        assert (await pool.capacity()).ready
        hang.touch()
        stalled = await pool.capacity()
        assert not stalled.ready
        assert "no token" in stalled.detail


async def test_an_unknown_method_is_refused(tmp_path: Path) -> None:
    async with _pool(tmp_path) as pool:
        with pytest.raises(PoolUnavailable, match="dance"):
            await pool.broadcast("dance")


async def test_the_socket_is_private_and_gone_afterwards(tmp_path: Path) -> None:
    async with _pool(tmp_path) as pool:
        path = Path((await pool.lease(None, 1.0)).address)
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()
    assert not [thread for thread in threading.enumerate() if thread.name == "engine"]


class _Failing:
    """An engine whose start, or whose application's, fails."""

    def __init__(self, app: ASGIApp | None) -> None:
        self._app = app
        self.stopped = False

    async def start(self) -> ASGIApp:
        if self._app is None:
            raise MemoryError("no room for the model")
        return self._app

    async def probe(self, deadline_s: float) -> None: ...

    async def metrics(self) -> str:
        return ""

    async def stop(self) -> None:
        self.stopped = True


async def _lifespan_fails(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no"})


@pytest.mark.parametrize(
    ("app", "error"), [(None, MemoryError), (_lifespan_fails, RuntimeError)], ids=["engine", "app"]
)
async def test_a_failed_start_is_raised_and_the_engine_stopped(
    app: ASGIApp | None, error: type[Exception]
) -> None:
    engine = _Failing(app)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = EngineThread(engine, [listener], lambda inner: inner)
        with pytest.raises(error):
            await thread.start()
        await thread.stop()
    assert engine.stopped


def test_only_engines_with_adapters_take_them() -> None:
    config = ModelConfig(name="e", engine=EmbeddingConfig(), replicas=ReplicaConfig())
    pool = LocalPool(config, _Failing(None), Path("/nowhere"))
    with pytest.raises(AdapterRefused, match="does not serve adapters"):
        pool._host()
