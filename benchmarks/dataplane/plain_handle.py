"""The comparison: two Ray Serve deployments, every chunk through a deployment handle.

What one writes first: a FastAPI ingress that streams what a generator of another
deployment yields. Serve's defaults but for `max_ongoing_requests`, whose default of 5
would queue the load. The only file of the benchmarks that imports ray.

    python -m benchmarks.dataplane.plain_handle --port 9001
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import ray
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from ray import serve
from ray.serve.handle import DeploymentHandle

MODEL = "plain"
app = FastAPI()


@serve.deployment(max_ongoing_requests=1024, ray_actor_options={"num_cpus": 0.1})
class Tokens:
    """Chat chunks in the fake engine's format and at its pace."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s

    async def stream(self, prompt: str, count: int) -> AsyncIterator[str]:
        words = prompt.split()
        head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": MODEL,
        }
        due = time.monotonic()
        for step in range(count):
            due += self._interval_s
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            delta = {"content": f" {words[step % len(words)]}"}
            finish = "length" if step == count - 1 else None
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
            yield f"data: {json.dumps({**head, 'choices': [choice]}, separators=(',', ':'))}\n\n"
        usage = {"prompt_tokens": len(words), "completion_tokens": count}
        yield f"data: {json.dumps({**head, 'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n"


@serve.deployment(max_ongoing_requests=1024, ray_actor_options={"num_cpus": 0.1})
@serve.ingress(app)
class Ingress:
    """HTTP in front of the handle."""

    def __init__(self, tokens: DeploymentHandle) -> None:
        self._tokens = tokens.options(stream=True)

    @app.get("/v1/models")
    async def models(self) -> dict[str, Any]:
        return {"object": "list", "data": [{"id": MODEL, "object": "model"}]}

    @app.post("/v1/chat/completions")
    async def chat(self, request: Request) -> StreamingResponse:
        body = await request.json()
        chunks = self._tokens.stream.remote(body["messages"][-1]["content"], body["max_tokens"])
        return StreamingResponse(chunks, media_type="text/event-stream")


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.dataplane.plain_handle")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--interval", type=float, default=0.01, help="seconds between tokens")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    ray.init(address="local", include_dashboard=False, object_store_memory=100 * 2**20, num_cpus=2)
    serve.start(http_options={"host": "127.0.0.1", "port": args.port})
    try:
        serve.run(Ingress.bind(Tokens.bind(args.interval)), blocking=True)  # type: ignore[attr-defined]
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
