"""Evaluates one adapter: what is asked, what was answered, metrics, gate, report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from finetune.base_model import find_model, load_tokenizer, models_folder
from finetune.config import FinetuneConfig
from finetune.errors import ModelUnavailable
from finetune.evaluation.forgetting import load_questions
from finetune.evaluation.gate import judge
from finetune.evaluation.held_out import HeldOut, held_out
from finetune.evaluation.metrics import measure
from finetune.evaluation.model import Model, Version
from finetune.evaluation.plots import plots
from finetune.evaluation.report_html import page
from finetune.evaluation.report_markdown import markdown
from finetune.evaluation.result import CurvePoint, Evaluation
from finetune.evaluation.samples import forgotten, shown_answers
from finetune.evaluation.slices import gaps, slices
from finetune.evaluation.statistics import Bootstrap
from finetune.evaluation.task import Observed, Task, observe, plan_task
from finetune.events import read_events
from finetune.run_folder import write_whole

EVALUATION = "evaluation.json"
_FEW = 30

Progress = Callable[[str], None]


def require(config: FinetuneConfig) -> None:
    """Make sure, before hours of training, that what evaluation reads is there.

    Raises SourceUnreadable and ModelUnavailable.
    """
    settings = config.evaluation
    load_questions(settings.forgetting)
    live = settings.live_adapter
    if live is not None and not (Path(live) / "adapter_config.json").is_file():
        raise ModelUnavailable(
            f"evaluation.live_adapter: {live} has no adapter_config.json: name the folder of an "
            "adapter as PEFT saves it, or leave it out"
        )


def evaluate(
    config: FinetuneConfig,
    folder: Path,
    candidate: Path,
    *,
    model: Model | None = None,
    say: Progress | None = None,
) -> Evaluation:
    """Measure the adapter in `candidate` against the base model and the live version
    (`config.evaluation.live_adapter`), and write evaluation.json, report.md, report.html and
    plots/ into `folder`.

    `model` is one that is loaded already, with adapters named `candidate` and `live`. A failed
    gate is a result, no error. Raises FinetuneError for what cannot be read or loaded.
    """
    say = say or (lambda line: None)
    started = time.monotonic()
    require(config)
    base = find_model(config.model, models_folder())
    chat = load_tokenizer(config.data, base)
    settings = config.evaluation
    questions = load_questions(settings.forgetting, settings.max_questions)
    rows = held_out(config.data, settings, chat, config.seed)
    settings = settings.model_copy(update={"on": rows.on})
    config = config.model_copy(update={"evaluation": settings})
    task = plan_task(rows.examples, questions, settings, chat, config.seed)
    adapters: dict[Version, Path] = {"candidate": candidate}
    if settings.live_adapter is not None:
        adapters["live"] = Path(settings.live_adapter)
    prepared = time.monotonic()
    if model is None:
        from finetune.evaluation.transformers_model import AdaptedModel

        say(f"evaluation: loading {base}")
        model = AdaptedModel.load(config, base, adapters, chat, say)
    loaded = time.monotonic()
    order: tuple[Version, ...] = ("base", "live", "candidate")
    observed = {
        version: observe(task, model, version)
        for version in order
        if version == "base" or version in adapters
    }
    seconds = {
        "prepare": prepared - started,
        "load": loaded - prepared,
        "measure": time.monotonic() - loaded,
    }
    found = conclude(config, adapters, rows, task, observed, curve(folder), seconds)
    write(found, folder)
    return found


def conclude(
    config: FinetuneConfig,
    adapters: Mapping[Version, Path],
    rows: HeldOut,
    task: Task,
    observed: Mapping[Version, Observed],
    curve: Sequence[CurvePoint],
    seconds: dict[str, float],
) -> Evaluation:
    """Metrics, gate and samples from what was observed."""
    settings = config.evaluation
    bootstrap = Bootstrap(settings.resamples, settings.confidence, config.seed)
    metrics = measure(task, observed, settings, bootstrap)
    metrics |= gaps(task, observed, settings, bootstrap)
    return Evaluation(
        candidate=str(adapters["candidate"]),
        live=str(adapters["live"]) if "live" in adapters else None,
        base=config.model,
        config=settings,
        examples=len(rows.examples),
        available=rows.available,
        left_out=rows.left_out,
        metrics=metrics,
        slices=slices(task, observed, settings, bootstrap),
        gate=judge(settings.gate, metrics),
        shown=shown_answers(task, observed, settings.samples),
        forgotten=forgotten(task, observed),
        curve=tuple(curve),
        warnings=tuple(_warnings(config, rows)),
        seconds=seconds,
    )


def write(found: Evaluation, folder: Path) -> None:
    """Write evaluation.json and the reports, each whole."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = plots(found)
    (folder / "plots").mkdir(exist_ok=True)
    for name, svg in drawn.items():
        write_whole(folder / "plots" / f"{name}.svg", svg)
    write_whole(folder / "report.md", markdown(found, drawn))
    write_whole(folder / "report.html", page(found, drawn))
    text = json.dumps(found.as_json(), indent=2, allow_nan=False)
    write_whole(folder / EVALUATION, f"{text}\n")


def curve(folder: Path) -> tuple[CurvePoint, ...]:
    """Losses by step from the run's events; of a step that was done twice, the later."""
    points: dict[int, CurvePoint] = {}
    for event in read_events(folder).events:
        step = event.data.get("step")
        if event.type != "metrics" or not isinstance(step, int):
            continue
        before = points.get(step, CurvePoint(step))
        train, valid = event.data.get("train_loss"), event.data.get("full_valid_loss")
        valid = event.data.get("valid_loss") if valid is None else valid
        points[step] = CurvePoint(
            step,
            before.train if train is None else float(train),
            before.validation if valid is None else float(valid),
        )
    return tuple(points[step] for step in sorted(points))


def _warnings(config: FinetuneConfig, rows: HeldOut) -> list[str]:
    found = []
    if config.evaluation.on == "train":
        found.append(
            "measured on rows that were trained on: this shows what was learnt by heart, and "
            "nothing of other prompts"
        )
    if not rows.examples:
        found.append(
            "no row is held out: name data.validation, raise data.validation_fraction, or set "
            "evaluation.on to train"
        )
    elif len(rows.examples) < _FEW:
        found.append(f"only {len(rows.examples)} rows were measured: see how wide intervals are")
    return found
