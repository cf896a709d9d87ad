"""What an adapter is measured by, and the gate between a run and the server."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from configs import StrictModel

Perturbation = Literal["typos", "case", "paraphrase"]
Template = Annotated[str, Field(pattern=r"\{prompt\}")]


class GateConfig(StrictModel):
    """What the trained adapter must reach to go live. A value that is missing or NaN fails; a
    field set to None is not asked for."""

    max_loss_over_base: float | None = Field(0.0)
    """Held-out loss less that of the base model, nats a token, at most."""
    max_loss_over_live: float | None = Field(0.0)
    """The same against the live version; asked for only where there is one."""
    min_exact_match: float | None = Field(None, ge=0, le=1)
    """Share of held-out answers given word for word, at least."""
    min_token_f1: float | None = Field(None, ge=0, le=1)
    """Mean overlap of words with the held-out answers, at least."""
    min_rouge_l: float | None = Field(None, ge=0, le=1)
    """Mean ROUGE-L with the held-out answers, at least."""
    max_refusals: float | None = Field(None, ge=0, le=1)
    """Share of answers that refuse, at most."""
    max_empty: float | None = Field(0.0, ge=0, le=1)
    """Share of empty answers, at most."""
    max_over_long: float | None = Field(None, ge=0, le=1)
    """Share of answers that did not end within `max_new_tokens`, at most."""
    max_forgetting: float | None = Field(0.1)
    """Rise of the loss on the forgetting set above the base model's, nats a token, at most."""
    max_robustness_drop: float | None = Field(None, ge=0)
    """Fall of token F1 when prompts are perturbed, at most, for the worst perturbation."""
    max_slice_gap: float | None = Field(None, ge=0)
    """Gap of token F1 between the best and the worst slice, at most."""


class EvaluationConfig(StrictModel):
    """Measurements after training, on the held-out part. A judge is not needed."""

    enabled: bool = True
    """Off trains without measuring; then the gate, where it asks for anything, fails."""
    max_examples: int | None = Field(200, ge=1)
    """Held-out examples that are measured, chosen by hash; None measures all."""
    generate: int = Field(50, ge=0)
    """Of those, the ones that answers are generated for."""
    max_new_tokens: int = Field(256, ge=1)
    """Longest generated answer."""
    batch_size: int = Field(8, ge=1)
    """Prompts answered at once."""
    live_adapter: str | None = None
    """Folder of the adapter that is served now (the champion), which is measured alongside."""
    forgetting: str | None = "builtin"
    """What the adapter must not unlearn: a file of conversations (JSON Lines), `builtin` for
    general ones that come with the package, None for none."""
    robustness: tuple[Perturbation, ...] = ("typos", "case", "paraphrase")
    """How prompts are perturbed."""
    paraphrases: tuple[Template, ...] = ("Please answer: {prompt}", "{prompt} Answer briefly.")
    """Wordings around a prompt, for `paraphrase`."""
    slices: tuple[str, ...] = ()
    """Fields of the rows by whose values results are split, such as `language`."""
    min_slice: int = Field(5, ge=1)
    """A slice with fewer examples is shown, and not counted in the gap."""
    refusals: tuple[str, ...] = ("I can't", "I cannot", "I'm sorry", "I am unable", "As an AI")
    """Beginnings of answers that count as refusals, in any case."""
    gate: GateConfig = GateConfig()
    """What the adapter must reach."""
