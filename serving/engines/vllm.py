"""vLLM's own HTTP application and engine, run inside a replica.

The one file that imports vllm. It knows vLLM 0.32 and 0.26, whose entry points
live in different modules; it does not know Ray, leases or the gateway.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
import uuid
from collections.abc import Container
from typing import TYPE_CHECKING, Any, cast

import psutil
from starlette.types import ASGIApp

from serving.config import VllmConfig
from serving.engines.adapter_values import check_values
from serving.engines.base import AdapterRef, EngineSpec
from serving.engines.vllm_options import command_line, cpu_environment, environment
from serving.errors import AdapterRefused, EngineStalled, ModelUnavailable
from serving.request_scope import SCOPE
from serving.starvation import run_queue_waits, starved
from serving.usage import TokenUsage

if TYPE_CHECKING:
    from argparse import Namespace

_log = logging.getLogger(__name__)

# Prompts on which an adapter must move the log-probabilities to be accepted.
PROBE_PROMPTS = ("The", "Question: what is the weather like?\nAnswer:", "def main():\n")
LOGPROB_EPSILON = 1e-5


class VllmEngine:
    """One vLLM engine: `AsyncLLM` in this process, the model in vLLM's own child process."""

    def __init__(self, spec: EngineSpec, config: VllmConfig) -> None:
        self._spec = spec
        self._config = config
        self._llm: Any = None
        self._state: Any = None
        self._next_adapter_id = 1
        self._loading: dict[str, asyncio.Lock] = {}
        self._steps_seen = 0
        self._processes: list[psutil.Process] = []

    async def start(self) -> ASGIApp:
        """Start the engine and build vLLM's application around it.

        Raises ModelUnavailable with vLLM's own reason when the model cannot be served.
        """
        os.environ.update(environment(self._config) | os.environ)
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM

        if current_platform.is_cpu():
            # Over what is there: Ray gives a worker that claims no whole core a single thread.
            os.environ.update(cpu_environment(self._config))
        build_app, init_app_state = _entrypoints()
        args = _parse_args(self._spec, self._config)
        before = set(psutil.Process().children(recursive=True))
        try:
            self._llm = AsyncLLM.from_engine_args(AsyncEngineArgs.from_cli_args(args))
        except Exception as exc:
            raise ModelUnavailable(f"vLLM cannot serve {self._spec.model!r}: {exc}") from exc
        self._processes = [p for p in psutil.Process().children(recursive=True) if p not in before]
        tasks = await self._llm.get_supported_tasks()
        app = build_app(args, tasks, self._llm.model_config)
        await init_app_state(self._llm, app.state, args, tasks)
        self._state = app.state
        _join_scope(self._llm.output_processor)
        await self.probe(deadline_s=120.0)
        return cast(ASGIApp, app)

    async def probe(self, deadline_s: float) -> None:
        """See `Engine.probe`: engine steps since the last call count as progress.

        An engine that is ready to work and gets no CPU does not hang, and a new one in its
        place would get none either.
        """
        steps = self._steps()
        if steps > self._steps_seen:
            self._steps_seen = steps
            return
        pids = [process.pid for process in self._processes]
        waits = run_queue_waits(pids)
        if self._llm.errored:
            raise EngineStalled(f"vLLM's engine for {self._spec.model!r} has died")
        generation = asyncio.ensure_future(self._one_token())
        deadline = time.monotonic() + deadline_s
        while time.monotonic() < deadline:
            done, _ = await asyncio.wait({generation}, timeout=0.25)
            if done or self._steps() > self._steps_seen:
                self._steps_seen = self._steps()
                if done:
                    generation.result()
                else:
                    generation.cancel()
                return
        generation.cancel()
        if starved(waits, run_queue_waits(pids), deadline_s):
            _log.warning(
                "the engine for %r gets too little CPU: %.0f s without a token",
                self._spec.model,
                deadline_s,
            )
            return
        raise EngineStalled(
            f"vLLM's engine for {self._spec.model!r} produced nothing in {deadline_s:g} s"
        )

    async def metrics(self) -> str:
        """See `Engine.metrics`: what vLLM registered in this process."""
        from prometheus_client import REGISTRY, generate_latest

        return generate_latest(REGISTRY).decode()

    async def stop(self) -> None:
        """Shut vLLM down; a child that does not go (stopped, hung) is killed."""
        if self._llm is None:
            return
        alive = [process for process in self._processes if process.is_running()]
        shutdown = asyncio.get_running_loop().run_in_executor(None, self._llm.shutdown)
        await asyncio.wait({shutdown}, timeout=5.0)
        for process in alive:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(alive, timeout=2.0)

    async def load_adapter(self, adapter: AdapterRef) -> None:
        """See `AdapterHost.load_adapter`; refuses an adapter that leaves the logits as they are."""
        from vllm.lora.peft_helper import PEFTHelper
        from vllm.lora.request import LoRARequest
        from vllm.v1.engine.exceptions import EngineDeadError

        models = self._state.openai_serving_models
        async with self._loading.setdefault(adapter.engine_name, asyncio.Lock()):
            if adapter.engine_name in models.lora_requests:
                models.lora_requests[adapter.engine_name] = models.lora_requests.pop(
                    adapter.engine_name
                )
                return
            request = LoRARequest(
                lora_name=adapter.engine_name,
                lora_int_id=self._next_adapter_id,
                lora_path=str(adapter.path),
            )
            self._next_adapter_id += 1
            try:
                check_patterns(adapter, PEFTHelper.__dataclass_fields__)
                await asyncio.to_thread(check_values, adapter.path)
                await self._llm.add_lora(request)
                if not await self._changes_logits(request):
                    raise AdapterRefused(
                        f"adapter {adapter.engine_name!r} leaves every logit as it is: its weights "
                        "are zero or its keys do not match the model. Check that it was trained "
                        "on this base and saved with PEFT's save_pretrained"
                    )
            except EngineDeadError as exc:
                raise EngineStalled(
                    f"vLLM's engine for {self._spec.model!r} died while it loaded "
                    f"{adapter.engine_name!r}"
                ) from exc
            except Exception as exc:
                await self._llm.remove_lora(request.lora_int_id)
                if isinstance(exc, AdapterRefused):
                    raise
                raise AdapterRefused(f"vLLM refused {adapter.engine_name!r}: {exc}") from exc
            models.lora_requests[adapter.engine_name] = request

    async def unload_adapter(self, engine_name: str) -> None:
        """See `AdapterHost.unload_adapter`."""
        request = self._state.openai_serving_models.lora_requests.pop(engine_name, None)
        if request is not None:
            await self._llm.remove_lora(request.lora_int_id)

    def adapters(self) -> list[str]:
        """See `AdapterHost.adapters`."""
        return list(self._state.openai_serving_models.lora_requests)

    def _steps(self) -> int:
        """Engine outputs received so far; grows while anybody's request makes progress."""
        from prometheus_client import REGISTRY

        total = 0.0
        for name in ("vllm:generation_tokens_total", "vllm:prompt_tokens_total"):
            for metric in REGISTRY.collect():
                total += sum(s.value for s in metric.samples if s.name == name)
        return int(total)

    async def _one_token(self) -> None:
        from vllm import PoolingParams, SamplingParams

        request_id = f"probe-{uuid.uuid4().hex}"
        if self._config.task == "pooling":
            stream = self._llm.encode("a", PoolingParams(task="embed"), request_id)
        else:
            stream = self._llm.generate("a", SamplingParams(max_tokens=1), request_id)
        async for _ in stream:
            pass

    async def _changes_logits(self, request: Any) -> bool:
        for prompt in PROBE_PROMPTS:
            base = await self._logprobs(prompt, None)
            adapted = await self._logprobs(prompt, request)
            if base.keys() != adapted.keys():
                return True
            if any(abs(base[token] - adapted[token]) > LOGPROB_EPSILON for token in base):
                return True
        return False

    async def _logprobs(self, prompt: str, request: Any) -> dict[int, float]:
        """Top log-probabilities of the next token, computed afresh (no cached prefix)."""
        from vllm import SamplingParams

        params = SamplingParams(max_tokens=1, temperature=0.0, logprobs=5)
        inputs = {"prompt": prompt, "cache_salt": uuid.uuid4().hex}
        final: Any = None
        async for output in self._llm.generate(
            inputs, params, f"adapter-{uuid.uuid4().hex}", lora_request=request
        ):
            final = output
        return {token: entry.logprob for token, entry in final.outputs[0].logprobs[0].items()}


def _join_scope(processor: Any) -> None:
    """Give each sequence its request's cache salt, and let the request read its counts.

    Here rather than in the body: every API of vLLM's comes through, also those without a
    field for the salt, and none can leave it out.
    """
    add_request = processor.add_request

    def add(request: Any, *args: Any, **kwargs: Any) -> None:
        scope = SCOPE.get()
        if scope is not None and scope.cache_salt is not None:
            request.cache_salt = scope.cache_salt
        add_request(request, *args, **kwargs)
        state = processor.request_states.get(request.request_id)
        if scope is not None and state is not None:
            scope.track(lambda: _used(state))

    processor.add_request = add


def _used(state: Any) -> TokenUsage:
    """Samples of one prompt share it: the first of them counts it, as vLLM's answers do."""
    first = state.request_index == 0
    return TokenUsage(
        input_tokens=(state.prompt_len or 0) if first else 0,
        cached_tokens=max(0, state.num_cached_tokens) if first else 0,
        output_tokens=state.detokenizer.num_output_tokens() if state.detokenizer else 0,
    )


class LoraWorker:
    """Joins vLLM's worker class (`worker_extension_cls`), and so runs in the worker's process."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        """Before the model is loaded, and so before anything is compiled."""
        _keep_adapters_off_base_rows()
        return super().__new__(cls)


def _keep_adapters_off_base_rows() -> None:
    """Give requests for the base model no adapter when adapters are in the same batch.

    vLLM marks their rows with slot -1, which its kernels for GPUs skip and its
    operators for CPUs take for the last slot (`torch_ops/lora_ops.py` in 0.26 and
    0.32; vllm-project/vllm#48421). Zeros after the first of the two products are
    zeros after the second.
    """
    import torch
    import vllm.lora.ops.torch_ops.lora_ops as operators
    import vllm.lora.punica_wrapper.punica_cpu as caller
    from vllm.lora.ops.torch_ops.lora_ops import bgmv_shrink

    def shrink_adapted_rows(
        inputs: torch.Tensor,
        weights: torch.Tensor,
        output: torch.Tensor,
        slots: torch.Tensor,
        scaling: float = 1.0,
    ) -> None:
        bgmv_shrink(inputs, weights, output, slots, scaling)
        output.masked_fill_(slots.lt(0).unsqueeze(1), 0.0)

    operators.bgmv_shrink = caller.bgmv_shrink = shrink_adapted_rows


def _entrypoints() -> tuple[Any, Any]:
    """`build_app` and `init_app_state`, from where this vLLM keeps them."""
    try:
        from vllm.entrypoints.launchers.api_server.app_state import init_app_state
        from vllm.entrypoints.launchers.app import build_app
    except ImportError:  # vLLM 0.26
        from vllm.entrypoints.openai.api_server import (
            build_app,
            init_app_state,
        )
    return build_app, init_app_state


def _parse_args(spec: EngineSpec, config: VllmConfig) -> Namespace:
    """vLLM's own parsed arguments, so that every default is vLLM's."""
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    try:
        from vllm.entrypoints.launchers.cli_args import make_arg_parser
    except ImportError:  # vLLM 0.26
        from vllm.entrypoints.openai.cli_args import make_arg_parser
    parser = make_arg_parser(FlexibleArgumentParser())
    return cast("Namespace", parser.parse_args(command_line(spec, config)))


def check_patterns(adapter: AdapterRef, known: Container[str]) -> None:
    """Refuse per-module ranks and alphas that are not among vLLM's `known` settings, as in 0.26."""
    config = json.loads((adapter.path / "adapter_config.json").read_text())
    for setting in ("rank_pattern", "alpha_pattern"):
        if config.get(setting) and setting not in known:
            raise AdapterRefused(
                f"adapter {adapter.engine_name!r} sets {setting}, which this vLLM ignores. "
                "Install vLLM 0.32, or train with one rank and one alpha for all modules"
            )
