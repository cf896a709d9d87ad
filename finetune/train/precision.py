"""Which precision and device a run takes, and why."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from finetune.config import FinetuneConfig
from finetune.errors import DoesNotFit
from finetune.train.model import Place


@dataclass(frozen=True)
class Choice:
    """Of precision and device."""

    place: Place
    reason: str


def choose(config: FinetuneConfig) -> Choice:
    """What `precision` says; `auto` is bf16 where the device computes in it, else fp32.

    Raises DoesNotFit where the device cannot do what is asked for.
    """
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    if on_gpu and config.train.workers > torch.cuda.device_count():
        raise DoesNotFit(
            f"train.workers is {config.train.workers}, and there are {torch.cuda.device_count()} "
            "GPUs: one each is needed"
        )
    if config.precision != "auto":
        if on_gpu and config.precision == "bf16" and not torch.cuda.is_bf16_supported():
            raise DoesNotFit(
                f"{torch.cuda.get_device_name()} does not compute in bf16: set precision to fp32"
            )
        return Choice(Place(device, config.precision), "the configuration says so")
    if on_gpu and torch.cuda.is_bf16_supported():
        return Choice(Place(device, "bf16"), f"{torch.cuda.get_device_name()} computes in bf16")
    if not on_gpu and torch.cpu._is_amx_tile_supported():
        return Choice(Place(device, "bf16"), "no GPU, and the CPU multiplies bf16 in AMX tiles")
    return Choice(Place(device, "fp32"), "no GPU, and the CPU has no fast bf16")
