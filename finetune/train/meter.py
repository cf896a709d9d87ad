"""Speed, memory and use of the device."""

from __future__ import annotations

import resource
from dataclasses import dataclass

import torch

# Dense bf16 peaks of the makers' data sheets, FLOP/s; the first name that fits counts.
_PEAKS = (
    ("B200", 2250e12), ("GB200", 2500e12), ("H200", 989e12), ("H100 PCIe", 756e12),
    ("H100", 989e12), ("GH200", 989e12), ("A100", 312e12), ("L40S", 362e12), ("L4", 121e12),
    ("A10G", 70e12), ("A10", 125e12), ("RTX 4090", 165e12), ("RTX 3090", 71e12), ("T4", 65e12),
)  # fmt: skip


@dataclass(frozen=True)
class Work:
    """What a token costs."""

    body: int
    """Weights of the layers that each token is multiplied by."""
    head: int
    """Weights of the output head, which learnt tokens alone need."""
    attention: int
    """Query heads × head size × layers."""

    def flops(self, tokens: int, learnt: int, squares: int) -> float:
        """Useful operations of a step: forward 2 a weight, backward 2 more (the base model's own
        gradients are not needed). `squares` is the sum of the sequences' squared lengths;
        causal attention needs 2 of each forward and 4 backward. Recomputation does not count."""
        return 4.0 * (self.body * tokens + self.head * learnt) + 6.0 * self.attention * squares


def work_of(model: torch.nn.Module) -> Work:
    """Of a transformers model, with or without an adapter; 4-bit weights count as what they
    stand for."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = base.get_output_embeddings()
    linear = [each for each in base.modules() if isinstance(each, torch.nn.Linear)]
    body = sum(each.in_features * each.out_features for each in linear if each is not head)
    config = base.config
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = config.num_attention_heads * size * config.num_hidden_layers
    return Work(body, head.in_features * head.out_features, attention)


def peak_flops(device: torch.device) -> float | None:
    """Of a known GPU in bf16; None elsewhere."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in _PEAKS if part in name), None)


def peak_memory_bytes(device: torch.device) -> int:
    """Most that was held: on the GPU, or by the process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
