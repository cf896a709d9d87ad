"""From what the versions did to metrics with intervals."""

from __future__ import annotations

from collections.abc import Mapping

from finetune.config import EvaluationConfig
from finetune.config.evaluation import HIGHER
from finetune.evaluation.model import Version
from finetune.evaluation.result import Baseline, Metric
from finetune.evaluation.statistics import Bootstrap, Sample
from finetune.evaluation.task import Observed, Task
from finetune.evaluation.text_metrics import exact_match, refuses, rouge_l, token_f1

BASELINES: tuple[Baseline, ...] = ("base", "live")


def measure(
    task: Task,
    observed: Mapping[Version, Observed],
    config: EvaluationConfig,
    bootstrap: Bootstrap,
) -> dict[str, Metric]:
    """Every metric that there is something to measure for, by name."""
    samples = {version: samples_of(task, each, config) for version, each in observed.items()}
    return {
        name: compare(name, {version: found[name] for version, found in samples.items()}, bootstrap)
        for name in samples["candidate"]
    }


def compare(name: str, samples: Mapping[Version, Sample], bootstrap: Bootstrap) -> Metric:
    """One metric of all versions."""
    ours = samples["candidate"]
    return Metric(
        name=name,
        examples=len(ours),
        higher_is_better=name in HIGHER,
        versions={version: bootstrap.estimate(each) for version, each in samples.items()},
        differences={
            baseline: bootstrap.difference(ours, samples[baseline])
            for baseline in BASELINES
            if baseline in samples
        },
    )


def samples_of(task: Task, seen: Observed, config: EvaluationConfig) -> dict[str, Sample]:
    """What one version did, example by example. No sample is empty."""
    found = {"loss": loss_of(seen), "perplexity": loss_of(seen, exponential=True)}
    pairs = [
        (score, other) for (score, other) in zip(_of_pairs(task, seen), seen.rejected, strict=True)
    ]
    found["preference_accuracy"] = _shares([ours < other.nll for ours, other in pairs])
    references = [task.examples[index].reference for index in task.asked]
    both = list(zip([each.text for each in seen.answers], references, strict=True))
    found |= {
        "exact_match": _shares([exact_match(*pair) for pair in both]),
        "token_f1": f1_of(task, seen),
        "rouge_l": Sample([rouge_l(*pair) for pair in both]),
        "refusal_rate": _shares(
            [
                refuses(text, config.refusals) and not refuses(wanted, config.refusals)
                for text, wanted in both
            ]
        ),
        "empty_rate": _shares([not text.strip() for text, _ in both]),
        "over_length_rate": _shares([each.finish == "length" for each in seen.answers]),
    }
    for how, answers in seen.perturbed.items():
        clean = found["token_f1"].parts
        found[f"robustness_drop.{how}"] = Sample(
            [
                before - token_f1(answer.text, wanted)
                for before, answer, wanted in zip(clean, answers, references, strict=False)
            ]
        )
    asked = zip(task.questions, seen.recalled, strict=True)
    found["forgetting_accuracy"] = _shares([each.is_right(said.text) for each, said in asked])
    return {name: sample for name, sample in found.items() if len(sample)}


def loss_of(seen: Observed, *, exponential: bool = False) -> Sample:
    """Held-out loss by example, nats a token."""
    return Sample(
        [each.nll for each in seen.scores],
        [each.tokens for each in seen.scores],
        exponential=exponential,
    )


def f1_of(task: Task, seen: Observed) -> Sample:
    """Token F1 by answer."""
    references = [task.examples[index].reference for index in task.asked]
    return Sample(
        [token_f1(each.text, wanted) for each, wanted in zip(seen.answers, references, strict=True)]
    )


def _of_pairs(task: Task, seen: Observed) -> list[float]:
    return [
        score.nll
        for example, score in zip(task.examples, seen.scores, strict=True)
        if example.rejected is not None
    ]


def _shares(flags: list[bool]) -> Sample:
    return Sample([float(flag) for flag in flags], binary=True)
