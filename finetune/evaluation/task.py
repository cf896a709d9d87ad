"""What every version is asked, and what each one did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from finetune.config import EvaluationConfig
from finetune.config.evaluation import Perturbation
from finetune.data.rows import Message
from finetune.data.tokenizer import ChatTokenizer
from finetune.errors import Unrenderable
from finetune.evaluation.forgetting import MAX_NEW_TOKENS, Question
from finetune.evaluation.held_out import HeldOutExample, Prompt
from finetune.evaluation.model import Answer, Model, Score, Version
from finetune.evaluation.perturb import perturb

_LONGEST = 512


@dataclass(frozen=True)
class Task:
    """The same for all versions."""

    examples: tuple[HeldOutExample, ...]
    asked: tuple[int, ...]
    """Indexes of the examples that are answered."""
    prompts: tuple[list[int], ...]
    """Theirs, as tokens."""
    perturbed: dict[Perturbation, tuple[list[int], ...]]
    """Other wordings of the first of them."""
    questions: tuple[Question, ...]
    question_prompts: tuple[list[int], ...]
    max_new_tokens: int


@dataclass(frozen=True)
class Observed:
    """What one version did."""

    scores: list[Score] = field(default_factory=list)
    """By example."""
    rejected: list[Score] = field(default_factory=list)
    """By example, of the answers that are not preferred; empty without preferences."""
    answers: list[Answer] = field(default_factory=list)
    """By index in `Task.asked`."""
    perturbed: dict[Perturbation, list[Answer]] = field(default_factory=dict)
    """By index in `Task.asked`, of its first ones."""
    recalled: list[Answer] = field(default_factory=list)
    """By question."""


def plan_task(
    examples: tuple[HeldOutExample, ...],
    questions: tuple[Question, ...],
    config: EvaluationConfig,
    chat: ChatTokenizer,
    seed: int,
) -> Task:
    """Render every prompt once. Raises Unrenderable and TokenizerUnavailable."""
    with_prompt = [index for index, each in enumerate(examples) if each.prompt is not None]
    asked = tuple(with_prompt[: config.generate])
    prompts = [_prompt(examples[index]) for index in asked]
    changed: dict[Perturbation, tuple[list[int], ...]] = {}
    for how in config.robustness if config.perturbed else ():
        changed[how] = tuple(
            _perturbed(prompt, how, config, chat, seed) for prompt in prompts[: config.perturbed]
        )
    return Task(
        examples=examples,
        asked=asked,
        prompts=tuple(prompt.tokens(chat) for prompt in prompts),
        perturbed=changed,
        questions=questions,
        question_prompts=tuple(_asking(each.question, chat).tokens(chat) for each in questions),
        max_new_tokens=_longest([examples[index] for index in asked], config, chat),
    )


def observe(task: Task, model: Model, version: Version) -> Observed:
    """Have one version do the task."""
    sequences = [each for example in task.examples for each in example.sequences]
    scores = iter(model.score(sequences, version))
    others = [each.rejected for each in task.examples if each.rejected is not None]
    asked = [list(prompt) for prompt in task.prompts]
    for changed in task.perturbed.values():
        asked += changed
    answers = model.generate(asked, version, task.max_new_tokens)
    start = len(task.prompts)
    perturbed = {}
    for how, prompts in task.perturbed.items():
        perturbed[how] = answers[start : start + len(prompts)]
        start += len(prompts)
    return Observed(
        scores=[_sum([next(scores) for _ in example.sequences]) for example in task.examples],
        rejected=model.score(others, version),
        answers=answers[: len(task.prompts)],
        perturbed=perturbed,
        recalled=model.generate(task.question_prompts, version, MAX_NEW_TOKENS),
    )


def _longest(asked: Sequence[HeldOutExample], config: EvaluationConfig, chat: ChatTokenizer) -> int:
    if config.max_new_tokens != "auto":
        return config.max_new_tokens
    lengths = [len(chat.encode(each.reference, []).tokens) for each in asked]
    return min(_LONGEST, 2 * max(lengths, default=0) + 16)


def _sum(scores: Sequence[Score]) -> Score:
    return Score(sum(each.nll for each in scores), sum(each.tokens for each in scores))


def _prompt(example: HeldOutExample) -> Prompt:
    assert example.prompt is not None
    return example.prompt


def _perturbed(
    prompt: Prompt, how: Perturbation, config: EvaluationConfig, chat: ChatTokenizer, seed: int
) -> list[int]:
    changed = prompt.asking(perturb(prompt.question, how, config.paraphrases, seed))
    try:
        return changed.tokens(chat)
    except Unrenderable:
        # A template that looks into the question may refuse another one.
        return prompt.tokens(chat)


def _asking(question: str, chat: ChatTokenizer) -> Prompt:
    if chat.template is None:
        return Prompt(text=f"Question: {question}\nAnswer:")
    return Prompt(messages=(Message(role="user", content=question),))
