"""The adapter, the arithmetic and the training loop."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from configs import StrictModel

Precision = Literal["auto", "bf16", "fp32", "nf4"]


class LoraConfig(StrictModel):
    """The adapter (Hu et al. 2021). What vLLM cannot serve is no option here: no DoRA, no fully
    trained modules, no trained biases."""

    rank: int = Field(16, ge=1, le=512)
    """Of each pair of matrices: how much it can learn, and its size."""
    alpha: float = Field(32, gt=0)
    """Scales the adapter's output: by alpha / rank, with rsLoRA by alpha / √rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the adapter's inputs that is zeroed while it learns. Above 0 costs memory."""
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Last components of the adapted modules' names, such as `q_proj`; `all-linear` is every
    linear module but the output head."""
    rslora: bool = False
    """Rank-stabilised scaling (Kalajdzievski 2023): keeps large ranks learning."""

    @field_validator("target_modules")
    @classmethod
    def _named(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not value:
            raise ValueError("names no module: list some, or say all-linear")
        heads = [name for name in value if name in ("embed_tokens", "lm_head")]
        if heads and not isinstance(value, str):
            raise ValueError(
                f"{', '.join(heads)}: adapters of embeddings and of the output head are not "
                "trained here; choose linear modules of the layers"
            )
        return value

    @property
    def scaling(self) -> float:
        """What the product of the two matrices is multiplied by."""
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)


class QuantisationConfig(StrictModel):
    """NF4 (Dettmers et al. 2023): 4 bits a weight, one scale for 64 of them."""

    double: bool = True
    """Quantise the scales as well: 0.4 bit a weight less."""
    compute_dtype: Literal["bf16", "fp32"] = "bf16"
    """What weights become for each multiplication."""


class EarlyStoppingConfig(StrictModel):
    """Ends a run whose validation loss no longer falls."""

    patience: int | None = Field(None, ge=1)
    """Evaluations in a row without a new best before it stops. None never stops early."""
    min_delta: float = Field(0.0, ge=0)
    """How much lower than the best a validation loss must be to count as one."""


class TrainConfig(StrictModel):
    """The loop. A step is one update of the adapter, from `batch_size` × `accumulation` ×
    `workers` sequences; its loss is the mean over all their trained tokens."""

    method: Literal["sft", "dpo"] = "sft"
    """`sft` imitates the answers, `dpo` prefers one of two (Rafailov et al. 2023)."""
    epochs: float = Field(3.0, gt=0, le=1000)
    """Times that the training data is gone through."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after so many steps, whatever `epochs` says."""
    batch_size: int = Field(4, ge=1)
    """Sequences that one worker computes at once: packs with `packing`, else examples."""
    accumulation: int = Field(1, ge=1)
    """Batches of one worker in a step: more memory's worth of batch, at no memory."""
    learning_rate: float = Field(2e-4, gt=0, lt=1)
    """The highest of the schedule. With DPO a hundredth of what SFT takes is usual."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Its way to 0 (`constant`: it stays)."""
    warmup: float = Field(0.03, ge=0, lt=1)
    """Share of the steps in which the rate rises from 0."""
    clip: float | None = Field(1.0, gt=0)
    """Longest gradient, over all weights; longer ones are shortened. None clips nothing."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's."""
    packing: bool = True
    """Fill sequences of `data.max_length` tokens with several examples, none of which sees
    another. Without it a step has `batch_size` examples, joined in the same way: there is no
    padding either way. Take False for few or short examples, so that an epoch has many steps."""
    gradient_checkpointing: bool = False
    """Compute activations a second time rather than keep them: a third slower, far less memory."""
    evaluate_every: int | None = Field(None, ge=1)
    """Steps between two measurements of the validation loss. None: once an epoch."""
    checkpoint_every: int | None = Field(None, ge=1)
    """Steps between two checkpoints. None: once an epoch. There is always one at the end."""
    keep_checkpoints: int = Field(3, ge=1)
    """The newest so many are kept, and the best beside them."""
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    """When to stop before the end."""
    beta: float = Field(0.1, gt=0)
    """DPO's: the larger, the closer the adapter stays to the base model."""
    deterministic: bool = True
    """Only kernels that give the same bytes each time. Off may be faster on a GPU."""
    workers: int = Field(1, ge=1)
    """Processes that share each step, one GPU each (on a CPU: with gloo)."""

    @model_validator(mode="after")
    def _preference_pairs(self) -> TrainConfig:
        if self.method == "dpo" and "learning_rate" not in self.model_fields_set:
            raise ValueError(
                "dpo needs its own learning_rate, since sft's default is a hundred times too "
                "high for it: set train.learning_rate, to 5.0e-6 for a beginning"
            )
        return self
