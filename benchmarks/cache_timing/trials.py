"""One trial: somebody asks; then the time to first token of the same prefix, and of a fresh one."""

from __future__ import annotations

import http.client
import json
import random
import re
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

__all__ = ["PATHS", "Asker", "Timed", "Trial", "run_trials"]

PATHS = ("/v1/completions", "/v1/chat/completions", "/v1/messages")
"""Of those that stream, the ones whose first event waits for the first token."""
PREFIX_WORDS = 144
"""About as many tokens: just over one of the blocks of 128 that vLLM's cache has on a CPU. The
less is left to read after a hit, the clearer it shows."""
TIMEOUT_S = 120.0
COMMON = (
    "time year people way day man thing woman life child world school state family group "
    "country problem hand part place case week company program question work government "
    "number night point home water room mother area money story fact month lot right book"
)
"""Short words: each is one token to most tokenizers."""
_CACHED = re.compile(rb'"(?:cached_tokens|cache_read_input_tokens)":\s*(\d+)')


@dataclass(frozen=True)
class Timed:
    """One request, as its client saw it."""

    ttft_s: float
    cached_tokens: int
    """Tokens of the prompt that the engine says it found in its cache."""


@dataclass(frozen=True)
class Trial:
    """Two requests of one client: a prefix that was asked before, and a fresh one."""

    path: str
    asked: Timed
    fresh: Timed


class Asker:
    """A client with a key and one connection that is kept."""

    def __init__(self, url: str, key: str, model: str) -> None:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=TIMEOUT_S)
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self._model = model

    def ask(self, path: str, prefix: str, ending: str) -> Timed:
        """Stream one token. Raises RuntimeError for any answer but 200."""
        body = json.dumps({"model": self._model, **_body(path, prefix, ending)})
        began = time.perf_counter()
        self._connection.request("POST", path, body, self._headers)
        response = self._connection.getresponse()
        first = response.readline()
        ttft_s = time.perf_counter() - began
        rest = first + response.read()
        if response.status != 200:
            raise RuntimeError(f"{path} answered {response.status}: {rest[:300]!r}")
        return Timed(ttft_s, max(map(int, _CACHED.findall(rest)), default=0))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def run_trials(
    somebody: Asker, watcher: Asker, trials: int, seed: int, *, words: int = PREFIX_WORDS
) -> list[Trial]:
    """`somebody` asks a prefix; `watcher` times it and a fresh one, in random order.

    The paths take turns. All prefixes, of so many words, are new to the server. The two
    clients may be one.
    """
    rng = random.Random(seed)
    return [_trial(somebody, watcher, PATHS[i % len(PATHS)], words, rng) for i in range(trials)]


def _trial(somebody: Asker, watcher: Asker, path: str, words: int, rng: random.Random) -> Trial:
    asked, fresh = (" ".join(rng.choices(COMMON.split(), k=words)) for _ in range(2))
    somebody.ask(path, asked, _ending(rng))
    timed: dict[str, Timed] = {}
    for prefix in rng.sample((asked, fresh), 2):
        timed[prefix] = watcher.ask(path, prefix, _ending(rng))
    return Trial(path, timed[asked], timed[fresh])


def _ending(rng: random.Random) -> str:
    return " ".join(rng.choices(COMMON.split(), k=4))


def _body(path: str, prefix: str, ending: str) -> dict[str, Any]:
    """The prefix comes first in the prompt, but for the few tokens of a chat template."""
    common: dict[str, Any] = {"max_tokens": 1, "temperature": 0, "stream": True}
    turn = [{"role": "user", "content": ending}]
    if path == "/v1/messages":
        return {**common, "system": prefix, "messages": turn}
    common["stream_options"] = {"include_usage": True}
    if path == "/v1/completions":
        return {**common, "prompt": f"{prefix} {ending}"}
    return {**common, "messages": [{"role": "system", "content": prefix}, *turn]}
