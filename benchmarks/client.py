"""The load client: many streams from one process, at a few microseconds a chunk.

Runs as a process of its own, so that its cost is its own: reads a `LoadSpec` as JSON on
standard input, prints `started` and `ended` around the measurement, then a `LoadResult`.

    echo '{"url": "http://127.0.0.1:9000", "streams": 8, "model": "fake"}' \
        | python -m benchmarks.client

Counts events by their bytes instead of decoding them: a client that parses JSON at every
chunk measures itself.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from array import array
from collections.abc import Callable
from typing import cast
from urllib.parse import urlsplit

import httptools
import uvloop

from benchmarks.load import LoadResult, LoadSpec
from benchmarks.statistics import summarize

__all__ = ["run_load"]

TOKEN = b'"delta":{"content":'
"""In every token event of a chat stream, and in no other."""
USAGE = re.compile(rb'"completion_tokens":\s*(\d+)')
MAX_ERRORS = 5
RETRY_S = 0.1

now = time.perf_counter


class Tally:
    """Sums over all streams; only what happens while `open` counts."""

    def __init__(self) -> None:
        self.open = False
        self.chunks = 0
        self.reads = 0
        self.completed = 0
        self.failed = 0
        self.completed_chunks = 0
        self.tokens = 0
        self.errors: list[str] = []
        self.ttfts: list[float] = []
        self.gaps = array("d")

    def fault(self, text: str) -> None:
        self.failed += 1
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(text)


class Stream(asyncio.Protocol):
    """One connection that sends the same request again and again until `finish`."""

    def __init__(self, request: bytes, tally: Tally) -> None:
        self._request = request
        self._tally = tally
        self._again = True
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._sent = 0.0
        self._last_read = 0.0
        self._chunks = 0
        self._rest = b""
        self._tail = b""
        self._answering = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not an isinstance check: uvloop's transports are no subclass of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def finish(self) -> None:
        """Ask no more; the running answer still ends."""
        self._again = False

    def _ask(self) -> None:
        assert self._transport is not None
        self._last_read = 0.0
        self._chunks = 0
        self._rest = self._tail = b""
        self._answering = True
        self._sent = now()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self._tally.fault(f"not HTTP: {exc}")
            self._end()

    def on_body(self, body: bytes) -> None:
        if self._rest:
            body = self._rest + body
            self._rest = b""
        if not body.endswith(b"\n\n"):
            cut = body.rfind(b"\n\n") + 2 if b"\n\n" in body else 0
            body, self._rest = body[:cut], body[cut:]
        found = body.count(TOKEN)
        if not found:
            self._tail += body
            return
        self._tail = body
        self._chunks += found
        at, tally = now(), self._tally
        if tally.open:
            tally.chunks += found
            tally.reads += 1
            if self._last_read:
                tally.gaps.append(at - self._last_read)
            else:
                tally.ttfts.append(at - self._sent)
        self._last_read = at

    def on_message_complete(self) -> None:
        tally = self._tally
        status = self._parser.get_status_code()
        if status != 200 or not self._last_read:
            detail = (self._tail + self._rest).decode(errors="replace")
            tally.fault(f"HTTP {status}: {detail[:300]}")
            self._end()
            return
        if tally.open:
            tally.completed += 1
            tally.completed_chunks += self._chunks
            usage = USAGE.search(self._tail)
            tally.tokens += int(usage[1]) if usage else 0
        if self._again and self._parser.should_keep_alive():
            self._ask()
        else:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answering:
            self._tally.fault(f"the connection was lost in mid answer: {exc or 'closed'}")
        self._end()

    def _end(self) -> None:
        self._answering = False
        if self._transport is not None:
            self._transport.close()
        if not self.closed.done():
            self.closed.set_result(None)


class Load:
    """Keeps `spec.streams` streams busy until told to drain."""

    def __init__(self, spec: LoadSpec) -> None:
        self._spec = spec
        self._request = encode_request(spec)
        self.tally = Tally()
        self._running = True
        self._streams: set[Stream] = set()
        self._keepers = [asyncio.ensure_future(self._keep(i)) for i in range(spec.streams)]

    async def drain(self) -> None:
        """Let the running answers end, for at most `timeout_s`."""
        self._running = False
        for stream in self._streams:
            stream.finish()
        _, late = await asyncio.wait(self._keepers, timeout=self._spec.timeout_s)
        for keeper in late:
            self.tally.fault(f"an answer took longer than {self._spec.timeout_s:g} s to end")
            keeper.cancel()

    async def _keep(self, index: int) -> None:
        await asyncio.sleep(self._spec.ramp_s * index / self._spec.streams)
        while self._running:
            failed = self.tally.failed
            try:
                stream = await connect(self._spec.url, lambda: Stream(self._request, self.tally))
            except OSError as exc:
                self.tally.fault(f"cannot connect to {self._spec.url}: {exc}")
            else:
                self._streams.add(stream)
                await stream.closed
                self._streams.discard(stream)
            if self.tally.failed > failed:
                await asyncio.sleep(RETRY_S)


async def connect(url: str, factory: Callable[[], Stream]) -> Stream:
    loop = asyncio.get_running_loop()
    if url.startswith("unix:"):
        _, stream = await loop.create_unix_connection(factory, url.removeprefix("unix:"))
    else:
        parts = urlsplit(url)
        _, stream = await loop.create_connection(factory, parts.hostname or "", parts.port or 80)
    return stream


def encode_request(spec: LoadSpec) -> bytes:
    """The request of `spec` as it goes over the wire."""
    body = spec.request_body
    host = "localhost" if spec.url.startswith("unix:") else urlsplit(spec.url).netloc
    headers = {
        "host": host,
        "content-type": "application/json",
        "accept": "text/event-stream",
        "content-length": str(len(body)),
        **spec.headers,
    }
    lines = [f"POST {spec.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def run_load(spec: LoadSpec, mark: Callable[[str], None] = lambda _: None) -> LoadResult:
    """Warm up, measure, drain. `mark` hears `started` and `ended`."""
    load = Load(spec)
    tally = load.tally
    await asyncio.sleep(spec.ramp_s + spec.warmup_s)
    mark("started")
    tally.open, began, cpu = True, now(), time.process_time()
    await asyncio.sleep(spec.duration_s)
    tally.open, duration, cpu = False, now() - began, time.process_time() - cpu
    mark("ended")
    await load.drain()
    return LoadResult(
        duration=duration,
        max_concurrency=spec.streams,
        completed=tally.completed,
        failed=tally.failed,
        errors=tally.errors,
        chunks=tally.chunks,
        reads=tally.reads,
        total_output_tokens=tally.tokens,
        completed_chunks=tally.completed_chunks,
        ttfts=tally.ttfts,
        itls_ms=summarize([1e3 * gap for gap in tally.gaps]),
        client_cpu_s=cpu,
    )


def main() -> None:
    spec = LoadSpec(**json.loads(sys.stdin.read()))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(run_load(spec, lambda word: print(word, flush=True)))
    print(result.to_json())


if __name__ == "__main__":
    main()
