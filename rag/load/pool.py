"""Parses documents in child processes with limits on time and memory.

A bomb kills its own worker only: the file gets an error, the next file a new worker.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

import msgspec

from rag.errors import Unparsable
from rag.load.config import LoadConfig
from rag.load.worker import HEADER, Limits, Reply
from rag.protocols import RawFile
from rag.types import Document

__all__ = ["ParserPool"]

_ROOT = Path(__file__).parents[2]
_PASSED = ("PATH", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV")
_BYTES_PER_CHAR = 8
"""A worker's answer holds at most so many bytes for each character it may extract."""


class ParserPool:
    """Reusable workers; they start when first needed. Safe to call from several threads."""

    def __init__(self, config: LoadConfig) -> None:
        self._config = config
        self.size = config.workers or max(1, (os.cpu_count() or 2) - 1)
        self._slots = threading.BoundedSemaphore(self.size)
        self._idle: list[_Worker] = []
        self._lock = threading.Lock()
        self._closed = False

    def parse(self, raw: RawFile) -> list[Document]:
        """The documents in `raw`. Waits for a free worker. Raises Unparsable."""
        with self._slots:
            worker = self._take()
            try:
                reply = worker.ask(raw, self._config.timeout_s)
            except BaseException:
                worker.kill()
                raise
            self._give(worker, reply)
        if reply.error:
            raise Unparsable(reply.error, reply.code)
        return reply.documents

    def close(self) -> None:
        """End the workers."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.kill()

    def __enter__(self) -> ParserPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def _take(self) -> _Worker:
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.alive:
                    return worker
                worker.kill()
        return _Worker(self._config)

    def _give(self, worker: _Worker, reply: Reply) -> None:
        with self._lock:
            if not (reply.last or self._closed):
                self._idle.append(worker)
                return
        worker.kill()


class _Worker:
    """One child process and its two pipes."""

    def __init__(self, config: LoadConfig) -> None:
        limits = Limits(config.memory_mib << 20, config.max_text_mib << 20)
        self._most = limits.text_chars * _BYTES_PER_CHAR + (1 << 20)
        environment = {name: os.environ[name] for name in _PASSED if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "rag.load.worker", msgspec.json.encode(limits).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment | {"PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"},
            cwd="/",
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)
        self._decoder = msgspec.msgpack.Decoder(Reply)

    def ask(self, raw: RawFile, timeout_s: float) -> Reply:
        """Send one file and wait for the answer. Raises Unparsable if there is none."""
        message = msgspec.msgpack.encode(raw)
        deadline = time.monotonic() + timeout_s
        try:
            self._write(HEADER.pack(len(message)) + message, deadline)
            (length,) = HEADER.unpack(self._read(HEADER.size, deadline))
            if length > self._most:
                raise Unparsable("its parser answers more than load.max_text_mib allows")
            return self._decoder.decode(self._read(length, deadline))
        except TimeoutError as exc:
            raise Unparsable(
                f"parsing it takes longer than load.timeout_s ({timeout_s:g} s): split the file "
                "or raise the limit"
            ) from exc
        except (BrokenPipeError, EOFError) as exc:
            self._process.wait(5)
            raise Unparsable(
                f"its parser died ({_ended(self._process.returncode)}): the file is damaged or "
                "made to do harm"
            ) from exc
        except msgspec.ValidationError as exc:
            raise Unparsable(f"its parser's answer is no list of documents: {exc}") from exc

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """End it and wait."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()

    def _write(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            _, ready, _ = select.select([], [self._to], [], _left(deadline))
            if not ready:
                raise TimeoutError
            view = view[os.write(self._to, view) :]

    def _read(self, size: int, deadline: float) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            ready, _, _ = select.select([self._from], [], [], _left(deadline))
            if not ready:
                raise TimeoutError
            part = os.read(self._from, min(size - len(parts), 1 << 20))
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


def _ended(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"
