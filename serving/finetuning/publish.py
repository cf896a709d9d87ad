"""Turns what a run made into an immutable adapter version, registered, and live if it may be.

Everything here can be done twice: a trainer that is killed in between leaves nothing half.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs import load
from finetune.config import FinetuneConfig
from finetune.summary import Gate, Summary
from serving.adapters import AdapterStore, FineTunedName
from serving.errors import AdapterNotFound, AdapterRefused
from serving.finetuning.shop import Shop
from serving.store.audit import Actor
from serving.store.job_events import Checkpoint
from serving.store.jobs import Job
from serving.store.registry import Alias, Version

NOT_EVALUATED = Gate(passed=False, reasons=("nothing was evaluated, and the gate asks for it",))


@dataclass(frozen=True)
class Published:
    """What became of a trained adapter."""

    passed: bool
    reasons: tuple[str, ...]
    """Why it did not pass its gate."""
    alias: Alias | None
    """What it became."""


def claim(shop: Shop, job: Job) -> Job:
    """Settle which version of which adapter the job makes, before anything of it is to be seen.

    Raises AdapterRefused when the folder holds somebody else's.
    """
    if job.version is not None:
        return job
    adapters = shop.settings.adapters()
    adapter = _home_of(shop, adapters, job)
    adapters.change(adapter, lambda state: state.owned(job.tenant_id))
    folder = shop.settings.home.adapters / adapter
    return shop.jobs.allocate(job.id, adapter, [each.name for each in folder.iterdir()])


def publish_checkpoint(
    shop: Shop, job: Job, step: int, source: Path, metrics: Mapping[str, Any], at_us: int
) -> None:
    """Make a checkpoint's adapter usable by its name."""
    assert job.adapter is not None
    name = _name(job).at(step)
    version = f"{job.version}-step-{step}"
    if not source.is_dir() and not (shop.settings.home.adapters / job.adapter / version).is_dir():
        return  # an old one, of which the run has let go
    place(source, shop.settings.home.adapters / job.adapter, version)
    shop.settings.adapters().change(job.adapter, lambda state: state.named(str(name), version))
    shop.events.add_checkpoint(
        Checkpoint(job.id, at_us, step, str(name), job.adapter, version, metrics)
    )


def publish(shop: Shop, job: Job, source: Path, summary: Summary) -> Published:
    """Register the result. Raises AdapterRefused when it is none that the server could load."""
    assert job.adapter is not None
    assert job.version is not None
    adapter, version = job.adapter, job.version
    place(source, shop.settings.home.adapters / adapter, version)
    adapters = shop.settings.adapters()
    try:
        adapters.resolve(job.model, adapter, version)
    except AdapterRefused:
        adapters.change(adapter, lambda state: state.disable(version))
        raise
    except AdapterNotFound:
        assert adapters.is_disabled(adapter, version)  # by an attempt before this one
    gate = _gate(shop, job, summary).model_dump(mode="json")
    shop.registry.add(
        Version(
            adapter, version, job.tenant_id, job.model, job.name, job.id,
            lineage=_lineage(summary), metrics=dict(summary.metrics), gate=gate,
        )
    )  # fmt: skip
    if not gate["passed"]:
        adapters.change(adapter, lambda state: state.disable(version))
        return Published(False, tuple(gate["reasons"]), None)
    adapters.change(adapter, lambda state: state.named(job.name, version))
    return Published(True, (), _give_alias(shop, adapters, job, adapter, version))


def place(source: Path, folder: Path, version: str) -> None:
    """Copy a PEFT directory to `<folder>/<version>`, whole: written beside and renamed."""
    target = folder / version
    if target.is_dir():
        return
    partial = folder / f".{version}.{secrets.token_hex(4)}.partial"
    partial.mkdir(parents=True)
    try:
        for entry in sorted(source.iterdir()):
            if entry.is_file() and not entry.is_symlink():
                shutil.copyfile(entry, partial / entry.name)
                _flush(partial / entry.name)
        _flush(partial)
        os.rename(partial, target)
        _flush(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        if not target.is_dir():  # another attempt was quicker
            raise


def _give_alias(
    shop: Shop, adapters: AdapterStore, job: Job, adapter: str, version: str
) -> Alias | None:
    state = adapters.state(adapter)
    if version in (state.live, state.challenger):
        return "champion" if state.live == version else "challenger"
    match shop.settings.config.finetuning.promote:
        case "always":
            alias: Alias = "champion"
        case "first":
            alias = "champion" if state.live is None else "challenger"
        case "never":
            alias = "challenger"
    if alias == "champion":
        change = lambda: adapters.change(adapter, lambda s: s.with_live(version))  # noqa: E731
    else:
        change = lambda: adapters.change(adapter, lambda s: s.with_challenger(version))  # noqa: E731
    previous = state.alias(alias)
    shop.registry.change(
        adapter, alias, version, previous, "register", Actor(job.key_id), apply=change
    )
    return alias


def _home_of(shop: Shop, adapters: AdapterStore, job: Job) -> str:
    """The adapter's name: one of a tenant and suffix, unless that is another base model's."""
    first, second = _name(job).adapters
    known = shop.registry.taken(first)
    if known and known[0].base != job.model:
        return second
    folder = shop.settings.home.adapters / first
    if folder.exists() and adapters.owner(first) != job.tenant_id:
        return second
    return first


def _gate(shop: Shop, job: Job, summary: Summary) -> Gate:
    """The run's verdict. Without one the adapter passes only where nothing was asked of it."""
    if summary.gate is not None:
        return summary.gate
    config = load(FinetuneConfig, shop.settings.work(job.id).config)
    return NOT_EVALUATED if config.evaluation.gate else Gate(passed=True)


def _name(job: Job) -> FineTunedName:
    name = FineTunedName.parse(job.name)
    assert name is not None, job.name
    return name


def _lineage(summary: Summary) -> dict[str, Any]:
    names = ("base_revision", "data_hash", "code_version", "precision", "mlflow_run", "steps")
    found = {name: getattr(summary, name) for name in (*names, "best_step", "trained_tokens")}
    return {name: value for name, value in found.items() if value is not None}


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
