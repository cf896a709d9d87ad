"""Checkpoints: `step-<N>/adapter/`, servable as it is, and what resuming needs beside it.

No pickles: tensors are safetensors, the rest JSON. Random numbers need no state, since each
micro-batch draws from a seed of its own, and the schedule knows what comes next from the step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from finetune.export import remove_folder, whole_folder
from finetune.run_folder import RunFolder

ADAPTER = "adapter_model.safetensors"
_MEASURES = (
    "train_loss",
    "train_mean_token_accuracy",
    "full_valid_loss",
    "valid_mean_token_accuracy",
)
_OPTIMISER, _STATE = "optimiser.safetensors", "state.json"


@dataclass
class Progress:
    """How far a run is."""

    step: int = 0
    """Steps done."""
    data_hash: str = ""
    """Of the data that it learns from."""
    trained_tokens: int = 0
    learnt_tokens: int = 0
    sequences: int = 0
    """Packs or examples done."""
    seconds: float = 0.0
    """Time that the steps took."""
    best_step: int | None = None
    """Of the lowest validation loss."""
    best_loss: float | None = None
    stale: int = 0
    """Evaluations since."""
    stopped: bool = False
    """Whether early stopping ended it."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """Metrics of each step."""

    @property
    def last_metrics(self) -> dict[str, float]:
        """The last of each loss and accuracy."""
        found: dict[str, float] = {}
        for metrics in self.history:
            found |= {name: metrics[name] for name in _MEASURES if name in metrics}
        return found


def save_adapter(model: PeftModel, folder: Path) -> None:
    """The two files of an adapter, in fp32 on the CPU, the same bytes for the same weights."""
    folder.mkdir(parents=True)
    found = get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {name: found[name].detach().cpu().contiguous() for name in sorted(found)}
    save_file(tensors, folder / ADAPTER, metadata={"format": "pt"})
    settings = model.peft_config["default"].to_dict() | {"inference_mode": True}
    text = json.dumps(_plain(settings), indent=2, sort_keys=True)
    (folder / "adapter_config.json").write_text(f"{text}\n", encoding="utf-8")


def save_checkpoint(
    run: RunFolder, model: PeftModel, optimiser: torch.optim.Optimizer, progress: Progress
) -> Path:
    """Write `checkpoints/step-<N>`, whole or not at all; the folder."""
    target = run.checkpoint(progress.step)
    with whole_folder(target) as part:
        save_adapter(model, part / "adapter")
        save_file(_moments(model, optimiser), part / _OPTIMISER)
        (part / _STATE).write_text(json.dumps(asdict(progress)), encoding="utf-8")
    return target


def load_progress(folder: Path) -> Progress:
    """How far the run was when the checkpoint was written."""
    return Progress(**json.loads((folder / _STATE).read_text(encoding="utf-8")))


def load_checkpoint(folder: Path, model: PeftModel, optimiser: torch.optim.Optimizer) -> None:
    """Weights and the optimiser's moments, as they were."""
    set_peft_model_state_dict(model, load_file(folder / "adapter" / ADAPTER))
    held = load_file(folder / _OPTIMISER)
    for name, weight in _trained(model):
        state = {key: held[f"{name}:{key}"] for key in ("exp_avg", "exp_avg_sq", "step")}
        moved = {key: value.to(weight.device) for key, value in state.items() if key != "step"}
        optimiser.state[weight] = moved | {
            "step": state["step"].to(_step_device(optimiser, weight))
        }


def prune(run: RunFolder, keep: int, best: int | None) -> None:
    """Remove all but the newest `keep` checkpoints and the best."""
    for step in run.steps()[:-keep]:
        if step != best:
            remove_folder(run.checkpoint(step))


def _trained(model: PeftModel) -> list[tuple[str, Tensor]]:
    return [(name, each) for name, each in model.named_parameters() if each.requires_grad]


def _moments(model: PeftModel, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}:{key}": value.detach().cpu().contiguous()
        for name, weight in _trained(model)
        for key, value in optimiser.state[weight].items()
    }


def _step_device(optimiser: torch.optim.Optimizer, weight: Tensor) -> torch.device:
    """Fused kernels count steps on the GPU."""
    return weight.device if optimiser.defaults.get("fused") else torch.device("cpu")


def _plain(value: Any) -> Any:
    match value:
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case set() | frozenset():
            return sorted(value)
        case list() | tuple():
            return [_plain(item) for item in value]
        case str() | int() | float() | None:
            return value
        case _:
            return str(value)
