"""`FakeEngine`: adapters, counters, probe, and generation at the configured pace."""

from __future__ import annotations

import asyncio
import json
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from starlette.types import ASGIApp

from serving.config import FakeConfig
from serving.engines.base import AdapterRef, EngineSpec
from serving.engines.fake.app import FakeApp
from serving.engines.fake.pace import Pacer, Turn
from serving.engines.fake.requests import Answer, ApiError, Ask
from serving.errors import AdapterRefused, EngineStalled
from serving.request_scope import SCOPE
from serving.usage import TokenUsage

__all__ = ["HANG_ENV", "FakeEngine"]

HANG_ENV = "CORRAL_FAKE_HANG"
KV_CONTEXTS = 16
"""Full-length contexts that the imagined KV cache holds; sets the scale of its gauge."""

Emit = Callable[[bool, str, bool], Awaitable[None]]
"""Takes (first, token, last)."""


class FakeEngine:
    """Implements `Engine` and `AdapterHost` without a model."""

    def __init__(self, spec: EngineSpec, config: FakeConfig) -> None:
        self.model = spec.model
        self.config = config
        hang = os.environ.get(HANG_ENV)
        self._pacer = Pacer(Path(hang) if hang else None)
        self._adapters: OrderedDict[str, AdapterRef] = OrderedDict()
        self._turns: set[Turn] = set()
        self._probed_tokens = 0
        self._held_tokens = 0
        self._prompt_tokens = 0
        self._generation_tokens = 0
        self.asleep = False

    async def start(self) -> ASGIApp:
        """Nothing to load."""
        return FakeApp(self)

    async def probe(self, deadline_s: float) -> None:
        """Raises EngineStalled when no token can be had within `deadline_s`."""
        progressed = self._generation_tokens > self._probed_tokens
        self._probed_tokens = self._generation_tokens
        if progressed:
            return
        due = asyncio.get_running_loop().time() + self.config.first_token_s
        try:
            await asyncio.wait_for(self._pacer.wait(Turn(), due), deadline_s)
        except TimeoutError as exc:
            raise EngineStalled(
                f"the fake engine of {self.model} produced no token in {deadline_s:g} s; "
                f"does the file named by {HANG_ENV} exist?"
            ) from exc

    async def metrics(self) -> str:
        """Prometheus text, under the names that vLLM gives its own."""
        metrics = [
            ("num_requests_running", "gauge", len(self._turns)),
            ("num_requests_waiting", "gauge", 0),
            ("kv_cache_usage_perc", "gauge", self._kv_cache_usage),
            ("prompt_tokens_total", "counter", self._prompt_tokens),
            ("generation_tokens_total", "counter", self._generation_tokens),
        ]
        labels = f'{{engine="0",model_name={json.dumps(self.model)}}}'
        return "".join(
            f"# TYPE vllm:{name} {kind}\nvllm:{name}{labels} {float(value)}\n"
            for name, kind, value in metrics
        )

    async def stop(self) -> None:
        """End every generation where it stands."""
        for turn in list(self._turns):
            turn.leave()
        self._pacer.close()

    async def load_adapter(self, adapter: AdapterRef) -> None:
        """Beyond `max_cpu_loras` the least recently used is dropped. Raises AdapterRefused."""
        lora = self.config.lora
        if not lora.enabled:
            raise AdapterRefused(f"{self.model} holds no adapters: set lora.max_loras above 0")
        if not adapter.path.is_dir():
            raise AdapterRefused(f"{adapter.engine_name}: {adapter.path} is not a directory")
        self._adapters[adapter.engine_name] = adapter
        self._adapters.move_to_end(adapter.engine_name)
        while len(self._adapters) > lora.max_cpu_loras:
            self._adapters.popitem(last=False)

    async def unload_adapter(self, engine_name: str) -> None:
        self._adapters.pop(engine_name, None)

    def adapters(self) -> list[str]:
        return list(self._adapters)

    async def sleep(self) -> None:
        """See `Sleeper.sleep`."""
        assert not self._turns, "a request runs"
        self.asleep = True

    async def wake(self) -> None:
        """See `Sleeper.wake`."""
        self.asleep = False

    @property
    def _kv_cache_usage(self) -> float:
        """Share of the imagined KV cache that running requests hold, 0 to 1."""
        return min(1.0, self._held_tokens / (KV_CONTEXTS * self.config.max_model_len))

    def resolve(self, model: str | None) -> str | None:
        """The adapter that `model` names; None for the base. Raises ApiError (404)."""
        if not model or model == self.model:
            return None
        if model not in self._adapters:
            raise ApiError(404, "NotFoundError", f"The model `{model}` does not exist.", "model")
        self._adapters.move_to_end(model)
        return model

    def answer(self, ask: Ask) -> Answer:
        """Raises ApiError for an unknown model (404) or an overlong request (400)."""
        adapter = self.resolve(ask.model)
        return Answer.to(ask, adapter, self.config.tokens, self.config.max_model_len)

    async def generate(
        self, answer: Answer, choices: int, turn: Turn, emit: Emit | None = None
    ) -> bool:
        """Pass each token to `emit` when it is due. False if `turn` left before the last."""
        due = asyncio.get_running_loop().time() + self.config.first_token_s
        interval, last, wait = (
            self.config.token_interval_s,
            len(answer.tokens) - 1,
            self._pacer.wait,
        )
        assert not self.asleep, "a request has reached an engine that sleeps"
        with self._run(answer, choices, turn):
            for step, token in enumerate(answer.tokens):
                await wait(turn, due)
                if turn.gone:
                    return False
                self._generation_tokens += choices
                turn.tokens += choices
                if emit is not None:
                    await emit(step == 0, token, step == last)
                due += interval
        return True

    @contextmanager
    def _run(self, answer: Answer, choices: int, turn: Turn) -> Iterator[None]:
        held = answer.prompt_tokens + choices * len(answer.tokens)
        self._turns.add(turn)
        self._held_tokens += held
        self._prompt_tokens += answer.prompt_tokens
        scope = SCOPE.get()
        if scope is not None:
            scope.track(lambda: TokenUsage(answer.prompt_tokens, 0, turn.tokens))
        try:
            yield
        finally:
            self._turns.discard(turn)
            self._held_tokens -= held
