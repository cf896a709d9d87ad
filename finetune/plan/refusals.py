"""What cannot be trained, or not be served; found all at once, each with its mend."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations

from finetune.config import FinetuneConfig
from finetune.plan.devices import GIB, Device
from finetune.plan.memory import modules
from finetune.plan.precision import USABLE, Decision, decide
from finetune.plan.shape import LINEAR, BaseShape
from finetune.plan.workload import Workload


@dataclass(frozen=True)
class Refusal:
    """One reason."""

    code: str
    """`not_servable`, `no_trainable_token`, `does_not_fit`, `disk_full`, `bad_config`."""
    message: str
    """Cause and mend."""
    param: str
    """The setting that it is about."""

    def __str__(self) -> str:
        return f"{self.param}: {self.message}"


def unservable(config: FinetuneConfig) -> Iterator[Refusal]:
    """What the server would not load."""
    if config.lora.rank > config.serve.max_rank:
        yield Refusal(
            "not_servable",
            f"{config.lora.rank} is more than the server loads (serve.max_rank "
            f"{config.serve.max_rank})",
            "lora.rank",
        )
    missing = [name for name in modules(config) if name not in LINEAR]
    if missing:
        yield Refusal(
            "not_servable",
            f"the base model has no {', '.join(missing)}: choose among {', '.join(LINEAR)}",
            "lora.target_modules",
        )


def untrainable(
    config: FinetuneConfig, shape: BaseShape, work: Workload, method: str
) -> Iterator[Refusal]:
    """What data, method and base model do not agree on. `method` is what the data is for."""
    if not work.examples or not work.learnt:
        yield Refusal(
            "no_trainable_token",
            "no token of the training data is learnt: there must be answers of the assistant",
            "data.train",
        )
    wanted = "preference" if config.train.method == "dpo" else "supervised"
    if method != wanted:
        mend = "dpo" if method == "preference" else "sft"
        yield Refusal(
            "bad_config",
            f"{config.train.method} cannot learn from {method} data: set it to {mend}, or name "
            "other data",
            "train.method",
        )
    limit = shape.max_positions
    if limit is not None and work.longest > limit:
        yield Refusal(
            "bad_config",
            f"an example has {work.longest:,} tokens, and the base model was made for {limit:,}: "
            f"set it to {limit}, and data.over_long to drop or a truncation",
            "data.max_length",
        )


def unsupported(config: FinetuneConfig, device: Device, decision: Decision) -> Iterator[Refusal]:
    """What the device cannot do at all."""
    if decision.precision == "bf16" and not device.bf16:
        yield Refusal(
            "bad_config",
            f"{device.name} does not multiply bf16 in hardware: set fp32, or nf4 with "
            "quantisation.compute_dtype fp32",
            "precision",
        )
    if device.kind == "cuda" and config.train.workers > device.count:
        yield Refusal(
            "does_not_fit",
            f"{config.train.workers} workers need a GPU each; there are {device.count}",
            "train.workers",
        )


def too_large(
    config: FinetuneConfig, shape: BaseShape, work: Workload, device: Device, decision: Decision
) -> Iterator[Refusal]:
    """Memory of the device and of the host."""
    memory = decision.memory
    if memory.total > USABLE * device.memory_bytes:
        yield Refusal(
            "does_not_fit",
            f"{decision.precision} needs {memory.total / GIB:.1f} GiB at its peak, and "
            f"{device.memory_bytes / GIB:.1f} GiB are free on {device.name}: "
            + _mend(config, shape, work, device),
            "memory",
        )
    elif memory.host > USABLE * device.host_bytes:
        yield Refusal(
            "does_not_fit",
            f"loading needs {memory.host / GIB:.1f} GiB on the host, and "
            f"{device.host_bytes / GIB:.1f} GiB are free: free some, or take a larger host",
            "memory",
        )


def _mend(config: FinetuneConfig, shape: BaseShape, work: Workload, device: Device) -> str:
    """The fewest settings that make it fit."""
    options = _options(config, work)
    for count in range(1, len(options) + 1):
        for chosen in combinations(options, count):
            if _with(chosen, config, shape, work, device).fits:
                return "it fits with " + " and ".join(option.name for option in chosen)
    best = _with(options, config, shape, work, device).memory
    return (
        f"no setting makes it fit ({best.total / GIB:.1f} GiB at the least): take a larger device "
        "or a smaller base model"
    )


def _with(
    options: Iterable[_Option],
    config: FinetuneConfig,
    shape: BaseShape,
    work: Workload,
    device: Device,
) -> Decision:
    tried = config
    for option in options:
        tried = option.config(tried)
    return decide(tried, shape, _less(config, tried, work), device)


@dataclass(frozen=True)
class _Option:
    name: str
    changes: dict[str, dict[str, object] | object]

    def config(self, config: FinetuneConfig) -> FinetuneConfig:
        """`config` with the changes."""
        values = config.model_dump()
        for section, change in self.changes.items():
            values[section] = values[section] | change if isinstance(change, dict) else change
        return FinetuneConfig.model_validate(values)


def _options(config: FinetuneConfig, work: Workload) -> list[_Option]:
    """What could be changed, the least costly first."""
    train = config.train
    found: list[_Option] = []
    if train.batch_size > 1:
        grown = train.accumulation * train.batch_size
        found.append(
            _Option(
                f"train.batch_size 1 (and train.accumulation {grown}, for the same step)",
                {"train": {"batch_size": 1, "accumulation": grown}},
            )
        )
    if not train.gradient_checkpointing:
        found.append(
            _Option(
                "train.gradient_checkpointing true", {"train": {"gradient_checkpointing": True}}
            )
        )
    if config.precision not in ("auto", "nf4"):
        found.append(_Option("precision nf4", {"precision": "nf4"}))
    if train.packing and train.method == "sft" and work.longest < config.data.max_length:
        found.append(
            _Option(
                f"data.max_length {work.longest} (no example is longer)",
                {"data": {"max_length": work.longest}},
            )
        )
    return found


def _less(config: FinetuneConfig, tried: FinetuneConfig, work: Workload) -> Workload:
    """The workload under changed settings: only its widest batch differs."""
    if tried.train.packing and tried.train.method == "sft":
        widest = min(work.tokens, tried.train.batch_size * tried.data.max_length)
    else:
        share = tried.train.batch_size / config.train.batch_size
        widest = max(work.longest, round(work.widest * share))
    return replace(work, widest=widest, widest_learnt=min(widest, work.widest_learnt))
