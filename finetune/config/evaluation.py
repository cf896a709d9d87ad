"""What an adapter is measured by, and the gate between a run and the server."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs import StrictModel

Perturbation = Literal["typos", "case", "paraphrase"]
Template = Annotated[str, Field(pattern=r"\{prompt\}")]

HIGHER = (
    "exact_match",
    "token_f1",
    "rouge_l",
    "preference_accuracy",
    "forgetting_accuracy",
)
"""Metrics of which more is better."""
LOWER = ("loss", "perplexity", "refusal_rate", "empty_rate", "over_length_rate")
"""Metrics of which less is better; so are those that begin with one of LOWER_PREFIXES."""
LOWER_PREFIXES = ("robustness_drop.", "slice_gap.")
"""`robustness_drop.typos`; `slice_gap.language.token_f1`, `slice_gap.language.loss`."""


class GateRule(StrictModel):
    """One thing that the adapter must reach. A value that is missing, infinite or NaN fails."""

    metric: str
    """`loss`, `exact_match`, `robustness_drop.typos`, `slice_gap.language.token_f1`, …"""
    against: Literal["base", "live"] | None = None
    """Compare with the base model or the live version: no worse by more than `tolerance`. Where
    no version is live, `live` compares with the base model. None compares with a fixed bound."""
    tolerance: float = Field(0.0, allow_inf_nan=False)
    """By how much it may be worse, in the metric's unit. Below 0 demands that it be better."""
    at_least: float | None = Field(None, allow_inf_nan=False)
    """The fixed bound of a metric of which more is better."""
    at_most: float | None = Field(None, allow_inf_nan=False)
    """The fixed bound of a metric of which less is better."""
    confident: bool = False
    """The whole confidence interval must lie on the right side of the bound: what is not certain
    fails. Otherwise the measured value decides."""
    min_examples: int = Field(1, ge=1)
    """Measured on fewer, it fails."""

    @property
    def higher_is_better(self) -> bool:
        """Of the metric."""
        return self.metric in HIGHER

    @model_validator(mode="after")
    def _one_bound(self) -> GateRule:
        if self.metric not in (*HIGHER, *LOWER) and not self.metric.startswith(LOWER_PREFIXES):
            known = ", ".join((*HIGHER, *LOWER, *(f"{name}…" for name in LOWER_PREFIXES)))
            raise ValueError(f"there is no metric {self.metric!r}: take one of {known}")
        side = "at_least" if self.higher_is_better else "at_most"
        given = {name for name in ("at_least", "at_most") if getattr(self, name) is not None}
        if self.against is not None and given:
            raise ValueError(f"against {self.against} takes a tolerance, not {given.pop()}")
        if self.against is None and given != {side}:
            raise ValueError(f"{self.metric} needs `against`, or the bound `{side}`")
        return self


class EvaluationConfig(StrictModel):
    """Measurements after training, on the held-out part. A judge is not needed."""

    enabled: bool = True
    """Off trains without measuring; then the gate, where it asks for anything, fails."""
    on: Literal["auto", "held_out", "train"] = "auto"
    """`train` measures on rows that were learnt, for adapters that are to know facts by heart;
    the report says so. It proves nothing about other prompts. `auto` does that only where no row
    is held out."""
    max_examples: int | None = Field(200, ge=1)
    """Held-out examples that are measured, chosen by hash; None measures all."""
    generate: int = Field(50, ge=0)
    """Of those, the ones that answers are generated for."""
    max_new_tokens: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Longest generated answer, in tokens. `auto`: twice the longest held-out answer and 16 more,
    at most 512. An answer that has not ended by then is over-long."""
    batch_size: int = Field(8, ge=1)
    """Prompts answered at once."""
    live_adapter: str | None = None
    """Folder of the adapter that is served now (the champion), which is measured alongside."""
    forgetting: str | None = "builtin"
    """What the adapter must not unlearn: JSON Lines of `question` and `answers` (any of which
    is right), `builtin` for general ones that come with the package, None for none."""
    max_questions: int | None = Field(None, ge=1)
    """Of the forgetting set, so many; None asks all."""
    robustness: tuple[Perturbation, ...] = ("typos", "case", "paraphrase")
    """How prompts are perturbed."""
    perturbed: int = Field(25, ge=0)
    """Prompts that are perturbed, of those that answers are generated for."""
    paraphrases: tuple[Template, ...] = Field(
        ("Please answer: {prompt}", "{prompt} Answer briefly.", "I have a question. {prompt}"),
        min_length=1,
    )
    """Wordings around a prompt, for `paraphrase`."""
    slices: tuple[str, ...] = ()
    """Fields of the rows by whose values results are split, such as `language`; a dot goes
    into an object: `metadata.region`."""
    min_slice: int = Field(5, ge=1)
    """A slice with fewer examples is shown, and not counted in the gap."""
    refusals: tuple[Annotated[str, Field(min_length=1)], ...] = (
        "I can't",
        "I cannot",
        "I'm sorry",
        "I am sorry",
        "I'm unable",
        "I am unable",
        "I'm not able to",
        "I am not able to",
        "I won't",
        "As an AI",
        "As a language model",
    )
    """Beginnings of answers that count as refusals, in any case."""
    resamples: int = Field(1000, ge=100, le=100_000)
    """Of the bootstrap, for confidence intervals."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Of the intervals."""
    samples: int = Field(10, ge=0)
    """Answers that the report shows side by side."""
    gate: tuple[GateRule, ...] = (
        GateRule(metric="loss", against="base"),
        GateRule(metric="loss", against="live", tolerance=0.01),
        GateRule(metric="empty_rate", against="base", tolerance=0.02),
        GateRule(metric="forgetting_accuracy", against="base", tolerance=0.1),
    )
    """What the adapter must reach to go live; an empty list asks for nothing."""

    @model_validator(mode="after")
    def _measured(self) -> EvaluationConfig:
        for rule in self.gate:
            kind, _, rest = rule.metric.partition(".")
            if kind == "robustness_drop" and rest not in self.robustness:
                raise ValueError(f"the gate asks for {rule.metric}, and robustness lacks {rest!r}")
            if kind == "slice_gap":
                field, _, of = rest.rpartition(".")
                if field not in self.slices or of not in ("token_f1", "loss"):
                    raise ValueError(
                        f"the gate asks for {rule.metric}: write slice_gap.FIELD.token_f1 or "
                        "slice_gap.FIELD.loss, with a FIELD that slices names"
                    )
        return self
