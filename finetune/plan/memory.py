"""Peak memory of a run, from dimensions alone.

Counted is what this package's trainer keeps: frozen weights, a float32 adapter with gradients
and Adam's two moments, each layer's tensors that backward needs, and parts of logits
(`finetune/train/loss.py` never makes a table of them). `tests/integration/finetune/test_plan.py`
holds the sum against real steps.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from finetune.config import FinetuneConfig
from finetune.plan.shape import LINEAR, BaseShape
from finetune.plan.workload import Workload

Kind = Literal["cpu", "cuda"]
Arithmetic = Literal["bf16", "fp32", "nf4"]

MIB = 1 << 20
# Beyond the tensors. On a CPU: Python with torch, transformers and peft, and what the allocator
# keeps of freed blocks. On a GPU: the CUDA context and cuBLAS workspaces.
_PROCESS = {"cpu": 700 * MIB, "cuda": 700 * MIB}
_HOST_BESIDE_A_GPU = 4096 * MIB
# As `finetune/train/loss.py` cuts its logits: fp32 bytes of one part.
_LOGITS_PART = {"cpu": 48 * MIB, "cuda": 768 * MIB}
# Of what is computed, blocks that are freed and not reused at once.
_FRAGMENTATION = 0.15
# NF4: 4 bits, and one scale for 64 weights: fp32, or 8 bits with an fp32 one for 256 of them.
_NF4_PLAIN = 0.5 + 4 / 64
_NF4_DOUBLE = 0.5 + 1 / 64 + 4 / (64 * 256)


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak, by what they are for."""

    weights: int
    adapter: int
    """With its gradients and Adam's moments, all float32."""
    activations: int
    logits: int
    workspace: int
    """Temporary tensors of the backward pass, and weights expanded from 4 bits."""
    process: int
    """The libraries, and the allocator's slack."""
    host: int
    """On the host, for a run on a GPU; else 0, since all of it is."""

    @property
    def total(self) -> int:
        """Of the device that computes."""
        parts = (self.weights, self.adapter, self.activations, self.logits, self.workspace)
        return sum(parts) + self.process

    def as_json(self) -> dict[str, int]:
        """Bytes by name."""
        return asdict(self) | {"total": self.total}


def estimate_memory(
    config: FinetuneConfig, shape: BaseShape, work: Workload, precision: Arithmetic, kind: Kind
) -> Memory:
    """Of one worker. `precision` is decided already."""
    width = 2 if _compute(config, precision) == "bf16" else 4
    targets = modules(config)
    adapter = 16 * shape.adapter_parameters(config.lora.rank, targets)
    weights = _weights(config, shape, precision)
    layer = work.widest * _layer_bytes(config, shape, kind, width)
    inputs = work.widest * shape.hidden * width
    activations = layer * shape.layers
    if config.train.gradient_checkpointing:
        # The layer at hand, and what the allocator still holds of those before it.
        activations = inputs * shape.layers + 3 * layer
    # The first layer's input and the last one's output, normed in float32, and its gradient.
    activations += work.widest * shape.hidden * (4 + 3 * width)
    logits = _logits(shape, work, kind, width)
    workspace = _workspace(shape, work, precision, width)
    slack = round(_FRAGMENTATION * (activations + logits + workspace))
    return Memory(
        weights=weights,
        adapter=adapter,
        activations=activations,
        logits=logits,
        workspace=workspace,
        process=_PROCESS[kind] + slack,
        host=0 if kind == "cpu" else _HOST_BESIDE_A_GPU + largest_shard(shape),
    )


def modules(config: FinetuneConfig) -> tuple[str, ...]:
    """The adapted modules by name."""
    chosen = config.lora.target_modules
    return LINEAR if isinstance(chosen, str) else tuple(dict.fromkeys(chosen))


def checkpoint_bytes(config: FinetuneConfig, shape: BaseShape) -> int:
    """One checkpoint: the adapter and Adam's moments in float32, the order and random state."""
    return 12 * shape.adapter_parameters(config.lora.rank, modules(config)) + MIB


def disk_bytes(config: FinetuneConfig, shape: BaseShape, work: Workload) -> int:
    """What a run leaves in its folder, with a checkpoint that is being written."""
    kept = min(config.train.keep_checkpoints + 2, work.checkpoints + 1)
    exported = 4 * shape.adapter_parameters(config.lora.rank, modules(config))
    return kept * checkpoint_bytes(config, shape) + exported + 16 * MIB


def largest_shard(shape: BaseShape) -> int:
    """Weights are read file by file; 5 GB is transformers' largest by default."""
    return min(2 * shape.parameters, 5 * 10**9)


def _compute(config: FinetuneConfig, precision: Arithmetic) -> str:
    return config.quantisation.compute_dtype if precision == "nf4" else precision


def _weights(config: FinetuneConfig, shape: BaseShape, precision: Arithmetic) -> int:
    if precision != "nf4":
        return shape.parameters * (2 if precision == "bf16" else 4)
    each = _NF4_DOUBLE if config.quantisation.double else _NF4_PLAIN
    width = 2 if config.quantisation.compute_dtype == "bf16" else 4
    return round(shape.linear_parameters * each) + shape.other_parameters * width


def _layer_bytes(config: FinetuneConfig, shape: BaseShape, kind: Kind, width: int) -> int:
    """Kept for backward of one layer, of one token.

    Both norms keep their input in float32 and give what the adapters keep; attention keeps
    queries, keys, values and its result; the MLP four tensors of its width (the gate before and
    after SiLU, the other branch, their product); each adapter its `rank` features. On a CPU keys
    and values are repeated for each query head, and the result is copied when sequences are
    joined.
    """
    hidden, queries, keys = shape.hidden, shape.queries, shape.keys
    attention = 5 * queries if kind == "cpu" else 3 * queries + 2 * keys
    low = config.lora.rank * len(modules(config))
    if shape.normed_heads:
        attention += 2 * (queries + keys)
    dropped = 0
    if config.lora.dropout > 0:
        # What each adapter sees, and the mask of what was zeroed.
        dropped = sum(shape.features(module)[0] for module in modules(config)) * (width + 1)
    half = (2 * hidden + attention + 4 * shape.intermediate + low) * width
    return half + 2 * hidden * 4 + dropped


def _logits(shape: BaseShape, work: Workload, kind: Kind, width: int) -> int:
    """A part of the logits in the compute dtype and, as probabilities, in float32; the gradient
    of the learnt positions' hidden states."""
    rows = max(16, _LOGITS_PART[kind] // (4 * shape.vocab))
    part = min(rows, work.widest_learnt) * shape.vocab
    return part * (2 * width + 4) + work.widest_learnt * shape.hidden * 2 * width


def _workspace(shape: BaseShape, work: Workload, precision: Arithmetic, width: int) -> int:
    """Backward through an MLP holds gradients of three tensors of its width."""
    expanded = 2 * shape.largest_linear * width if precision == "nf4" else 0
    return work.widest * (3 * shape.intermediate + 2 * shape.hidden) * width + expanded
