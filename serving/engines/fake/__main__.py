"""The fake engine as a server of its own, for benchmarks: no Ray, no gateway."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

import uvicorn
import uvloop

from serving.config import FakeConfig
from serving.engines.base import EngineSpec
from serving.engines.fake import FakeEngine


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m serving.engines.fake", description=__doc__)
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--uds", help="path of a Unix socket, instead of host and port")
    parser.add_argument("--model", default="fake", help="name to answer to")
    parser.add_argument("--interval", type=float, default=0.01, help="seconds between tokens")
    parser.add_argument("--first", type=float, help="seconds to the first; default: the interval")
    parser.add_argument("--tokens", type=int, default=64, help="length of an answer without limit")
    args = parser.parse_args(argv)
    first = args.interval if args.first is None else args.first
    config = FakeConfig(tokens=args.tokens, token_interval_s=args.interval, first_token_s=first)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(args, FakeEngine(EngineSpec(args.model, None), config)))


async def _serve(args: argparse.Namespace, engine: FakeEngine) -> None:
    config = uvicorn.Config(
        await engine.start(),
        host=args.host,
        port=args.port,
        uds=args.uds,
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )
    await uvicorn.Server(config).serve()
    await engine.stop()


if __name__ == "__main__":
    main()
