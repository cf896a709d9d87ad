"""Starts the engines that steps share, and ends them when the next step does not name them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

import configs
from benchmarks.engine_overhead.config import vllm_environment, vllm_flags
from benchmarks.gpu.child import MARK
from benchmarks.gpu.config import EngineConfig
from benchmarks.gpu.context import Address, Model, StepFailed
from benchmarks.gpu.encoder import write_encoder
from benchmarks.gpu.steps import embeddings
from benchmarks.gpu.steps.http import first_token_s, post
from benchmarks.phases import Phases
from benchmarks.report import write
from benchmarks.sides import Side, SideConfig, SideError, running

__all__ = ["Engines", "sides_of"]

LOGGING = {"VLLM_LOGGING_LEVEL": "INFO", "VLLM_NO_USAGE_STATS": "1", "PYTHONUNBUFFERED": "1"}


class Engines:
    """The engines of one measurement. Use as a context manager; all end with it."""

    def __init__(
        self, configs_: Mapping[str, EngineConfig], model: Model, out: Path, mark: str
    ) -> None:
        self._configs = configs_
        self._model = model
        self._out = out
        self._mark = mark
        self._running: dict[str, tuple[ExitStack, Address]] = {}
        self._faults: dict[str, str] = {}

    def __enter__(self) -> Engines:
        return self

    def __exit__(self, *_: object) -> None:
        self.keep_only(())

    @property
    def running(self) -> tuple[str, ...]:
        """Names of the engines that run now."""
        return tuple(self._running)

    def keep_only(self, names: Iterable[str]) -> None:
        """End the engines that are not named."""
        kept = set(names)
        for name in [name for name in self._running if name not in kept]:
            stack, _ = self._running.pop(name)
            stack.close()

    def need(self, names: Iterable[str], limit_s: float) -> tuple[Address, ...]:
        """Have the named engines running, and no other. Raises SideError.

        `limit_s` bounds the start of each. One that did not start is not tried again.
        """
        self.keep_only(names)
        return tuple(self._started(name, limit_s) for name in names)

    def _started(self, name: str, limit_s: float) -> Address:
        if name in self._faults:
            raise SideError(self._faults[name])
        if name not in self._running:
            stack = ExitStack()
            try:
                address = stack.enter_context(self._start(name, limit_s))
            except SideError as exc:
                self._faults[name] = str(exc)
                raise
            self._running[name] = (stack, address)
        return self._running[name][1]

    @contextmanager
    def _start(self, name: str, limit_s: float) -> Iterator[Address]:
        config = self._configs[name]
        if config.encoder is not None:
            write_encoder(_encoder_path(self._out / "home"), embeddings.WORDS)
        faults: list[str] = []
        own = {MARK: self._mark, "VLLM_CACHE_ROOT": str(self._out / "vllm-cache")}
        for side in sides_of(name, config, self._model, self._out / "home"):
            bounded = side.model_copy(
                update={
                    "start_timeout_s": min(side.start_timeout_s, limit_s),
                    "env": own | side.env,
                }
            )
            phases = Phases()
            with ExitStack() as stack:
                try:
                    run = running(bounded, self._out / "logs", phases.read)
                    started = stack.enter_context(run)
                except SideError as exc:
                    faults.append(str(exc))
                    continue
                address = self._address(name, side, started)
                self._record(address, bounded, started, phases, faults)
                yield address
                return
        raise SideError(f"engine {name} did not start. " + "\nNor did: ".join(faults))

    def _address(self, name: str, side: SideConfig, started: Side) -> Address:
        home = str((self._out / "home").absolute())
        return Address(name, side.name, started.url, started.model, home)

    def _record(
        self, address: Address, config: SideConfig, started: Side, phases: Phases, faults: list[str]
    ) -> None:
        """`engines/<name>.json`: the start line by line, and the first request after it."""
        record: dict[str, Any] = {
            "engine": address.name,
            "side": address.side,
            "command": list(config.command),
            "ready_s": started.ready_s,
            "first_token_s": self._first_answer_s(address),
            "phases": phases.lines,
            "faults": faults,
        }
        write(self._out / "engines" / f"{address.name}.json", record)

    def _first_answer_s(self, address: Address) -> float | None:
        if self._configs[address.name].own_model:
            post(
                f"{address.url}/v1/embeddings",
                {"model": address.model, "input": ["one"]},
                headers=address.headers,
            )
            return None
        try:
            return first_token_s(
                address.url, address.model, [self._model.first_id] * 8, address.headers
            )
        except StepFailed as exc:
            raise SideError(f"{address.name} is ready but does not generate: {exc}") from exc


def sides_of(name: str, config: EngineConfig, model: Model, home: Path) -> list[SideConfig]:
    """The ways to start an engine, best first."""
    common: dict[str, Any] = {
        "model": config.model or ("" if config.own_model else model.name),
        "start_timeout_s": config.start_timeout_s,
    }
    match config.kind:
        case "corral":
            return _corral(name, config, model, home, common)
        case "vllm":
            command = _vllm(config, model)
            engine = _merged(_first_model(config)["engine"], config.engine)
            env = vllm_environment(engine) | LOGGING | config.env
            return [SideConfig(name=name, command=command, env=env, **common)]
        case "command":
            return [SideConfig(name=name, command=config.command, env=config.env, **common)]


def _corral(
    name: str, config: EngineConfig, model: Model, home: Path, common: dict[str, Any]
) -> list[SideConfig]:
    overrides: dict[str, Any] = {}
    if not config.own_model:
        overrides |= {"models.0.name": model.name, "models.0.source": model.path}
    overrides |= {f"models.0.engine.{key}": value for key, value in _flat(config.engine)}
    if config.encoder is not None:
        overrides[f"models.{config.encoder}.source"] = str(_encoder_path(home))
    overrides |= config.options
    sets = [
        word for key, value in overrides.items() for word in ("--set", f"{key}={json.dumps(value)}")
    ]
    options = ["--config", str(_serve_file(config)), "--set", "gateway.port={port}", *sets]
    env = LOGGING | {"CORRAL_HOME": str(home.absolute())} | config.env
    stack = ("{python}", "-m", "serving.cli", "serve", *options)
    alone = ("{python}", "-m", "serving.local_stack", *options)
    credentials = str(home.absolute() / "credentials")
    common = common | {"env": env, "ready": "/ready", "credentials": credentials}
    return [
        SideConfig(name=name, command=stack, **common),
        SideConfig(name=f"{name}-without-ray", command=alone, **common),
    ]


def _vllm(config: EngineConfig, model: Model) -> tuple[str, ...]:
    engine = _merged(_first_model(config)["engine"], config.engine)
    flags = [f"--model={model.path}", f"--served-model-name={model.name}", *vllm_flags(engine)]
    server = ("{python}", "-m", "vllm.entrypoints.openai.api_server", "--host=127.0.0.1")
    return (*server, "--port={port}", *flags, *config.flags)


def _serve_file(config: EngineConfig) -> Path:
    return Path(configs.__file__).parent / "serve" / config.serve_config


def _first_model(config: EngineConfig) -> dict[str, Any]:
    served = yaml.safe_load(_serve_file(config).read_text(encoding="utf-8"))
    return dict(served["models"][0])


def _merged(base: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in overrides.items():
        old = merged.get(key)
        nested = isinstance(value, dict) and isinstance(old, dict)
        merged[key] = _merged(old or {}, value) if nested else value
    return merged


def _flat(overrides: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in overrides.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _encoder_path(home: Path) -> Path:
    return home.absolute().parent / "models" / "random-minilm"


def link_models(home: Path) -> None:
    """Let the measurement's home share the prepared models of the caller's."""
    shared = Path(os.environ.get("CORRAL_HOME") or "~/.corral").expanduser() / "models"
    home.mkdir(parents=True, exist_ok=True)
    if shared.is_dir() and not (home / "models").exists():
        (home / "models").symlink_to(shared.absolute(), target_is_directory=True)
