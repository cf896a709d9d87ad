"""A frozen linear layer and its adapter as one operation: y = x Wᵀ + b + s (x Aᵀ) Bᵀ.

PEFT's own forward writes the adapter's output, scales it and adds it in three passes over an
array as large as y, and keeps an fp32 copy of x beside bf16 weights. Here it is added by the
multiplication itself, in the dtype of x, and only x and the small x Aᵀ are kept for backward;
A and B stay fp32, as the optimiser wants them. A 4-bit W is expanded for each multiplication
and never kept.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional


class _Adapted(torch.autograd.Function):  # type: ignore[misc]
    """`dropped` is x after dropout, what the adapter sees; x itself where there is none."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dropped: Tensor, a: Tensor, b: Tensor, layer: nn.Module, scale: float
    ) -> Tensor:
        low = dropped @ a.to(x.dtype).T
        out = functional.linear(x, _weight(layer, x.dtype), getattr(layer, "bias", None))
        out.addmm_(low, b.to(x.dtype).T, alpha=scale)
        ctx.layer, ctx.scale = layer, scale
        ctx.save_for_backward(dropped, low, a, b)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        dropped, low, a, b = ctx.saved_tensors
        dtype = grad.dtype
        low_grad = (grad @ b.to(dtype)).mul_(ctx.scale)
        b_grad = (grad.T @ low).mul_(ctx.scale).to(b.dtype)
        a_grad = (low_grad.T @ dropped).to(a.dtype)
        x_grad = grad @ _weight(ctx.layer, dtype) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return x_grad, None, a_grad, b_grad, None, None
        return x_grad, low_grad @ a.to(dtype), a_grad, b_grad, None, None


class AdaptedLinear:
    """Takes the place of the `forward` of one PEFT layer."""

    def __init__(self, layer: LoraLayer) -> None:
        self.layer = layer
        self.name = layer.active_adapters[0]
        self.base: nn.Module = layer.get_base_layer()

    def __call__(self, x: Tensor) -> Tensor:
        layer, name = self.layer, self.name
        if layer.disable_adapters or layer.merged:
            return self.base(x)
        flat = x.reshape(-1, x.shape[-1])
        out = _Adapted.apply(
            flat,
            layer.lora_dropout[name](flat),
            layer.lora_A[name].weight,
            layer.lora_B[name].weight,
            self.base,
            layer.scaling[name],
        )
        assert isinstance(out, Tensor)
        return out.view(*x.shape[:-1], out.shape[-1])


def join_adapters(model: nn.Module) -> int:
    """Give every adapted linear layer of a PEFT model the forward above; how many there are."""
    found = [
        module
        for module in model.modules()
        if isinstance(module, LoraLayer) and _is_linear(module.get_base_layer())
    ]
    for module in found:
        module.forward = AdaptedLinear(module)
    return len(found)


def _is_linear(base: nn.Module) -> bool:
    return type(base) is nn.Linear or type(base).__name__ == "Linear4bit"


def _weight(layer: nn.Module, dtype: torch.dtype) -> Tensor:
    """(outputs, inputs), expanded from 4 bits where it is held in them."""
    weight: Any = layer.weight
    if (state := getattr(weight, "quant_state", None)) is None:
        return weight
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(weight, state).to(dtype)
