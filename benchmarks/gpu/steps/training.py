"""Tokens a second, MFU and peak memory of LoRA training: plain transformers and PEFT.

The reference row that a training of one's own is held against: random weights, full
sequences without padding, SDPA attention, adapters in the weights' type, AdamW.
"""

from __future__ import annotations

import gc
import resource
import time
from statistics import median
from typing import Any, Literal

from pydantic import Field

from benchmarks.gpu.context import Context, Missing, StepFailed
from benchmarks.gpu.limits import training_tokens_s
from configs import StrictModel

__all__ = ["TrainingConfig", "run"]

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class TrainingConfig(StrictModel):
    """One way to train."""

    kind: Literal["training"] = "training"
    method: Literal["lora", "qlora"] = "lora"
    """`qlora` holds the frozen weights in NF4 with double quantisation (bitsandbytes)."""
    checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them."""
    rank: int = Field(16, ge=1)
    sequence: int = Field(4096, ge=8)
    batch: int = Field(1, ge=1)
    """Sequences a step; halved until it fits the memory."""
    steps: int = Field(8, ge=1)
    warmup: int = Field(2, ge=0)


def run(config: TrainingConfig, context: Context) -> dict[str, Any]:
    """The median step after the warm-up. MFU counts 4N FLOP a token, recomputation not."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if config.method == "qlora":
        _require_bitsandbytes()
    model = _model(config, context, device)
    batch, too_large = config.batch, []
    while True:
        try:
            seconds, losses = _train(config, model, device, batch, context)
            break
        except torch.OutOfMemoryError as exc:
            if batch == 1:
                raise StepFailed(f"one sequence of {config.sequence} does not fit: {exc}") from exc
            too_large.append(batch)
            batch //= 2
        model.zero_grad(set_to_none=True)
        gc.collect()
        torch.cuda.empty_cache()
    if not all(loss == loss for loss in losses):
        raise StepFailed(f"the loss became not a number: {losses}")
    rate = batch * config.sequence / median(seconds)
    shape, card = context.model.shape, context.card
    return {
        "method": "wall clock of whole steps (forward, backward, AdamW), synchronised, median; "
        "MFU = 4 * N * tokens/s / measured bf16 rate, N all parameters, recomputation not counted",
        "tokens_per_s": rate,
        "mfu": 4.0 * shape.parameters * rate / card.flop_s,
        "limit_tokens_s": training_tokens_s(shape, card, recompute=config.checkpointing),
        "limit_measured": card.measured,
        "peak_memory_gib": _peak_gib(device),
        "batch": batch,
        "too_large": too_large,
        "step_s": seconds,
        "losses": losses,
    }


def _model(config: TrainingConfig, context: Context, device: str) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = AutoConfig.from_pretrained(context.model.path)
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            settings, dtype=torch.bfloat16, attn_implementation="sdpa"
        )
    model.config.use_cache = False
    if config.method == "qlora":
        _to_nf4(model, device)
    if config.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=2 * config.rank,
        lora_dropout=0.0,
        target_modules=list(LINEAR),
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, lora, autocast_adapter_dtype=False)
    adapted.to(device)
    adapted.train()
    context.say(f"{config.method}: model of {context.model.shape.parameters / 1e9:.2f} G ready")
    return adapted


def _to_nf4(model: Any, device: str) -> None:
    """Replace the blocks' linear layers by NF4 ones, one at a time."""
    import torch
    from bitsandbytes.nn import Linear4bit, Params4bit

    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if name in LINEAR and isinstance(child, torch.nn.Linear)
    ]
    for parent, name, linear in found:
        # `meta`: the weight is set right below.
        layer = Linear4bit(
            linear.in_features,
            linear.out_features,
            bias=False,
            compute_dtype=torch.bfloat16,
            compress_statistics=True,
            quant_type="nf4",
            device="meta",
        )
        layer.weight = Params4bit(
            linear.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4"
        )
        setattr(parent, name, layer.to(device))
    model.is_loaded_in_4bit = True


def _train(
    config: TrainingConfig, model: Any, device: str, batch: int, context: Context
) -> tuple[list[float], list[float]]:
    """Seconds and loss of each step after the warm-up."""
    import torch

    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-4, fused=device == "cuda")
    generator = torch.Generator(device=device).manual_seed(0)
    vocab = context.model.shape.vocab
    seconds, losses = [], []
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for step in range(config.warmup + config.steps):
        ids = torch.randint(0, vocab, (batch, config.sequence), generator=generator, device=device)
        _synchronize(device)
        began = time.perf_counter()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _synchronize(device)
        if step >= config.warmup:
            seconds.append(time.perf_counter() - began)
            losses.append(loss.item())
            context.say(f"step {step}: {seconds[-1]:.3f} s, loss {losses[-1]:.3f}")
    return seconds, losses


def _synchronize(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def _peak_gib(device: str) -> float:
    """The most the allocator held on the card; on a CPU the most the process held."""
    import torch

    if device == "cuda":
        return float(torch.cuda.max_memory_allocated()) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _require_bitsandbytes() -> None:
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as exc:
        raise Missing(f"bitsandbytes cannot be imported ({exc}): pip install bitsandbytes") from exc
