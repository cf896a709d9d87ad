"""Says what a run would need before it starts: memory, steps, time, cost, and whether it may.

    python -m finetune estimate conversations.jsonl
    python -m finetune estimate --config llama-3.1-8b rows.jsonl --device h200 --price 3.50
    python -m finetune estimate --config mine.yaml --measure

Memory is computed from the base model's config.json and the tokenised data; no weights are
loaded. The rate is declared for the class of device (--device, or this machine's), for a CPU
probed with a matrix product; --measure trains a few real steps instead. Time and cost leave out
the answers that the evaluation generates. Exit status 0 if the run would start, 1 if it would be
refused; every reason is printed, with what would mend it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from finetune.base_model import find_model, load_tokenizer, models_folder
from finetune.commands.options import config_arguments, config_of, data_arguments
from finetune.commands.table import duration, table
from finetune.config import FinetuneConfig
from finetune.data.check import check
from finetune.data.tokenise import tokenise
from finetune.errors import BadData, PlanRefused
from finetune.plan.devices import CLASSES, GIB, Device, named_device, this_machine
from finetune.plan.plan import Plan, make_plan
from finetune.plan.refusals import Refusal

NAME = "estimate"
SUMMARY = "memory, time and cost of a run, and whether it could start"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    data_arguments(parser)
    config_arguments(parser)
    parser.add_argument(
        "--device",
        choices=["this", "cpu", *CLASSES],
        default="this",
        help="what it would run on; default: this machine's GPU, or its CPU",
    )
    parser.add_argument("--measure", action="store_true", help="train a few steps for the rate")
    parser.add_argument("--price", type=float, metavar="USD", help="of one GPU and hour")
    parser.add_argument("--run", type=Path, metavar="DIR", help="where; its disk is looked at")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the plan."""
    if args.price is not None:
        args.set = [f"cost.usd_per_gpu_hour={args.price}", *args.set]
    config = config_of(args)
    try:
        plan = _plan(config, args)
    except (BadData, PlanRefused) as exc:
        print(exc, file=sys.stderr)
        return 1
    print(json.dumps(plan.as_json()) if args.json else as_text(plan))
    _say(plan.refusals)
    return 1 if plan.refusals else 0


def as_text(plan: Plan) -> str:
    """For people."""
    work, memory, decision = plan.work, plan.decision.memory, plan.decision
    parts = ("weights", "adapter", "activations", "logits", "workspace", "process", "total")
    sizes = [[name, f"{getattr(memory, name) / GIB:.2f}"] for name in parts]
    cost = "no price given" if plan.cost_usd is None else f"{plan.cost_usd:.2f} USD"
    rows = [
        ["device", f"{plan.device.name}, {plan.device.memory_bytes / GIB:.1f} GiB free"],
        ["base model", f"{plan.shape.family}, {plan.shape.parameters / 1e6:,.0f} M parameters"],
        ["precision", f"{decision.precision}: {decision.reason}"],
        ["data", f"{work.examples:,} examples, {work.tokens:,} tokens ({work.learnt:,} learnt)"],
        ["steps", f"{work.steps:,} ({work.steps_per_epoch:,} an epoch)"],
        ["tokens trained", f"{work.trained_tokens:,}"],
        ["tokens/s", f"{plan.rate.tokens_per_second:,.0f}: {plan.rate.source}"],
        ["time", f"{duration(plan.time.total_s)} ({_phases(plan)})"],
        ["cost", cost],
        ["disk", f"{plan.disk_bytes / GIB:.2f} GiB"],
    ]
    return "\n\n".join([table(rows), table([["peak memory", "GiB"], *sizes], right=[1])])


def _phases(plan: Plan) -> str:
    time = plan.time
    return (
        f"start {duration(time.start_s)}, training {duration(time.train_s)}, validation "
        f"{duration(time.validation_s)}"
    )


def _plan(config: FinetuneConfig, args: argparse.Namespace) -> Plan:
    model = find_model(config.model, models_folder())
    checked = check(config.data)
    checked.require()
    data = tokenise(config.data, load_tokenizer(config.data, model))
    data.require()
    measured = None
    if args.measure:
        from finetune.plan.measure import measure

        measured = measure(config)
    return make_plan(
        config,
        model,
        data,
        method=checked.method,
        folder=args.run,
        device=_device(args.device, config),
        rate=None if measured is None else measured.rate,
    )


def _device(name: str, config: FinetuneConfig) -> Device:
    if name in ("this", "cpu"):
        return this_machine(cpu=name == "cpu")
    return named_device(name, config.train.workers)


def _say(refusals: tuple[Refusal, ...]) -> None:
    for refusal in refusals:
        print(f"refused: {refusal}", file=sys.stderr)
