"""Where a run computes, in the precision that its plan has decided on."""

from __future__ import annotations

import torch

from finetune.errors import DoesNotFit
from finetune.train.model import Place


def place_for(precision: str, workers: int) -> Place:
    """The first GPU, else the CPU. Raises DoesNotFit where it cannot do what is asked for."""
    on_gpu = torch.cuda.is_available()
    if on_gpu and workers > torch.cuda.device_count():
        raise DoesNotFit(
            f"train.workers is {workers}, and there are {torch.cuda.device_count()} GPUs: one each "
            "is needed"
        )
    if on_gpu and precision == "bf16" and not torch.cuda.is_bf16_supported():
        raise DoesNotFit(
            f"{torch.cuda.get_device_name()} does not compute in bf16: set precision to fp32"
        )
    return Place(torch.device("cuda" if on_gpu else "cpu"), precision)
