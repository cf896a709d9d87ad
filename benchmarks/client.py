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
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, repeat
from typing import Any, cast
from urllib.parse import urlsplit

import httptools
import uvloop

from benchmarks.load import LoadResult, LoadSpec
from benchmarks.statistics import summarize

__all__ = ["run_load"]

CHAT_TOKEN = b'"delta":{"content":'
"""In every token event of a chat stream, and in no other."""
COMPLETION_TOKEN = b'"text":'
"""The same of a completions stream."""
USAGE = re.compile(rb'"completion_tokens":\s*(\d+)')
MAX_ERRORS = 5
MIN_PART = 16
"""Chunks from which on a part of an answer says something about its pace."""
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
        self.paces = array("d")
        self.ended_chunks = 0
        self.ended_tokens = 0

    def fault(self, text: str) -> None:
        self.failed += 1
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(text)


class Part:
    """The part of an answer that came while the measurement ran."""

    __slots__ = ("chunks", "first", "first_chunks", "last")

    def __init__(self) -> None:
        self.first = self.last = 0.0
        self.first_chunks = self.chunks = 0

    def add(self, chunks: int, at: float) -> None:
        if not self.chunks:
            self.first, self.first_chunks = at, chunks
        self.chunks += chunks
        self.last = at


class Stream(asyncio.Protocol):
    """One connection that asks again as soon as it is answered, until `finish`."""

    def __init__(self, next_request: Callable[[], bytes], token: bytes, tally: Tally) -> None:
        self._next_request = next_request
        self._token = token
        self._tally = tally
        self._again = True
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._sent = 0.0
        self._last_read = 0.0
        self._chunks = 0
        self._part = Part()
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

    def hang_up(self) -> None:
        """End now. The running answer is no fault, and counts for what came in the measurement."""
        self._again = self._answering = False
        self._note_pace(MIN_PART)
        self._end()

    def _ask(self) -> None:
        assert self._transport is not None
        request = self._next_request()
        self._last_read = 0.0
        self._chunks = 0
        self._part = Part()
        self._rest = self._tail = b""
        self._answering = True
        self._sent = now()
        self._transport.write(request)

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
        found = body.count(self._token)
        if not found:
            self._tail += body
            return
        self._tail = body
        self._chunks += found
        at, tally = now(), self._tally
        if tally.open:
            tally.chunks += found
            tally.reads += 1
            self._part.add(found, at)
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
        usage = USAGE.search(self._tail)
        tokens = int(usage[1]) if usage else 0
        tally.ended_chunks += self._chunks
        tally.ended_tokens += tokens
        if tally.open:
            tally.completed += 1
            tally.completed_chunks += self._chunks
            tally.tokens += tokens
            self._note_pace(2)
        if self._again and self._parser.should_keep_alive():
            self._ask()
        else:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answering:
            self._tally.fault(f"the connection was lost in mid answer: {exc or 'closed'}")
        self._end()

    def _note_pace(self, least: int) -> None:
        part = self._part
        if part.chunks >= max(least, part.first_chunks + 1):
            self._tally.paces.append((part.last - part.first) / (part.chunks - part.first_chunks))

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
        self._token = COMPLETION_TOKEN if spec.tokens else CHAT_TOKEN
        self.tally = Tally()
        self._running = True
        self._streams: set[Stream] = set()
        self._keepers = [asyncio.ensure_future(self._keep(i)) for i in range(spec.streams)]

    async def drain(self) -> None:
        """Let the running answers end, for at most `timeout_s`; or hang up on them."""
        self._running = False
        for stream in list(self._streams):
            stream.hang_up() if self._spec.hang_up else stream.finish()
        _, late = await asyncio.wait(self._keepers, timeout=self._spec.timeout_s)
        for keeper in late:
            self.tally.fault(f"an answer took longer than {self._spec.timeout_s:g} s to end")
            keeper.cancel()

    async def _keep(self, index: int) -> None:
        await asyncio.sleep(self._spec.ramp_s * index / self._spec.streams)
        requests = encode_requests(self._spec, index)
        while self._running:
            failed = self.tally.failed
            try:
                stream = await connect(
                    self._spec.url, lambda: Stream(requests.__next__, self._token, self.tally)
                )
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


def encode_requests(spec: LoadSpec, stream: int) -> Iterator[bytes]:
    """The endless requests of one stream as they go over the wire."""
    if spec.tokens is None:
        yield from repeat(encode(spec, spec.path, spec.request_body))
        return
    first = -(-spec.max_tokens * (stream + 1) // spec.streams) if spec.spread else spec.max_tokens
    own = {name: value for name, value in spec.request_body.items() if name != "messages"}
    limits = chain([first], repeat(spec.max_tokens))
    for drawn, limit in zip(spec.tokens.requests(stream, spec.model), limits, strict=False):
        body = own | {"model": drawn.model, "prompt": drawn.prompt, "max_tokens": limit}
        yield encode(spec, "/v1/completions", body)


def encode(spec: LoadSpec, path: str, fields: Mapping[str, Any]) -> bytes:
    """One request with its headers."""
    body = json.dumps(fields).encode()
    host = "localhost" if spec.url.startswith("unix:") else urlsplit(spec.url).netloc
    headers = {
        "host": host,
        "content-type": "application/json",
        "accept": "text/event-stream",
        "content-length": str(len(body)),
        **spec.headers,
    }
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
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
    per_chunk = tally.ended_tokens / tally.ended_chunks if tally.ended_chunks else 0.0
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
        tpots_ms=summarize([1e3 * pace / (per_chunk or 1.0) for pace in tally.paces]),
        tokens_per_chunk=per_chunk,
    )


def main() -> None:
    spec = LoadSpec.from_json(sys.stdin.read())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(run_load(spec, lambda word: print(word, flush=True)))
    print(result.to_json())


if __name__ == "__main__":
    main()
