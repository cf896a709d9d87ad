"""Refuses adapter weights that no training leaves: not a number, infinite, or absurdly large.

One such adapter harms everybody: what it writes into the KV cache stays in the
block, and attention that masks it with a weight of zero still computes 0 x NaN
for the next request that is given the block (seen with vLLM 0.32 on a CPU).
"""

from __future__ import annotations

from pathlib import Path

from serving.adapters.checks import WEIGHTS
from serving.errors import AdapterRefused

MAX_WEIGHT = 1e4
"""Trained LoRA weights stay below 10; products of larger ones than this may overflow."""


def check_values(adapter: Path) -> None:
    """Read every tensor of the PEFT directory, one at a time. Raises AdapterRefused."""
    from safetensors import safe_open

    with safe_open(adapter / WEIGHTS, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - the file is no mapping
            tensor = file.get_tensor(name)
            largest = float(tensor.float().abs().max()) if tensor.numel() else 0.0
            if not largest <= MAX_WEIGHT:
                raise AdapterRefused(
                    f"{WEIGHTS}: {name} holds {largest:g}, and no weight may exceed "
                    f"{MAX_WEIGHT:g}; its training diverged: lower the learning rate"
                )
