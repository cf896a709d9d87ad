"""The plan of a run: what it needs and takes, and every reason against it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetune.config import FinetuneConfig
from finetune.data.tokenise import Tokenised
from finetune.errors import PlanRefused
from finetune.plan.devices import GIB, Device, this_machine
from finetune.plan.memory import disk_bytes
from finetune.plan.precision import Decision, decide
from finetune.plan.refusals import Refusal, too_large, unservable, unsupported, untrainable
from finetune.plan.shape import BaseShape, read_shape
from finetune.plan.speed import Rate, Time, declared_rate, estimate_time
from finetune.plan.workload import Workload, workload


@dataclass(frozen=True)
class Plan:
    """Of one run on one device."""

    device: Device
    shape: BaseShape
    work: Workload
    decision: Decision
    rate: Rate
    time: Time
    cost_usd: float | None
    """None without a price."""
    disk_bytes: int
    refusals: tuple[Refusal, ...]

    def require(self) -> None:
        """Raise PlanRefused if anything speaks against it."""
        if self.refusals:
            raise PlanRefused(self.refusals)

    def as_json(self) -> dict[str, Any]:
        """Plain values: bytes, seconds, US dollars."""
        decision = self.decision
        return {
            "device": asdict(self.device),
            "parameters": self.shape.parameters,
            "precision": decision.precision,
            "precision_reason": decision.reason,
            "memory_bytes": decision.memory.as_json(),
            "fits": decision.fits,
            "workload": asdict(self.work) | {"trained_tokens": self.work.trained_tokens},
            "tokens_per_second": self.rate.tokens_per_second,
            "rate_source": self.rate.source,
            "seconds": asdict(self.time) | {"total_s": self.time.total_s},
            "cost_usd": self.cost_usd,
            "disk_bytes": self.disk_bytes,
            "refusals": [asdict(each) for each in self.refusals],
        }


def make_plan(
    config: FinetuneConfig,
    model: Path,
    data: Tokenised,
    *,
    method: str = "supervised",
    folder: Path | None = None,
    device: Device | None = None,
    rate: Rate | None = None,
) -> Plan:
    """Plan a run of `config` on the base model in the folder `model`.

    `method` is `Checked.method` of the data. `folder` is where the run will be, whose disk is
    looked at. `device` is this machine's by default, `rate` the one declared for it. Raises
    PlanRefused at once where the base model or its modules are of another kind, which nothing
    can be estimated of, and ModelUnavailable if its config cannot be read.
    """
    shape = read_shape(model)
    if refusals := tuple(unservable(config)):
        raise PlanRefused(refusals)
    work = workload(config, data)
    device = device or this_machine()
    decision = decide(config, shape, work, device)
    rate = rate or declared_rate(config, shape, work, device, decision.precision)
    time = estimate_time(config, shape, work, rate, decision.memory.weights)
    disk = disk_bytes(config, shape, work)
    refusals = (
        *untrainable(config, shape, work, method),
        *unsupported(config, device, decision),
        *too_large(config, shape, work, device, decision),
        *_disk_full(folder, disk),
    )
    price = config.cost.usd_per_gpu_hour
    cost = None if price is None else price * config.train.workers * time.total_s / 3600
    return Plan(device, shape, work, decision, rate, time, cost, disk, refusals)


def _disk_full(folder: Path | None, needed: int) -> Iterator[Refusal]:
    if folder is None:
        return
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        yield Refusal(
            "disk_full",
            f"checkpoints and adapter need {needed / GIB:.2f} GiB in {there}, and "
            f"{free / GIB:.2f} GiB are free: free some, name another folder with --run, or lower "
            "train.keep_checkpoints",
            "train.keep_checkpoints",
        )
