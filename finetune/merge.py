"""An adapter added into its base model's weights: a whole model that needs no adapter support."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

from finetune.base_model import find_model, models_folder
from finetune.errors import ExportFailed
from finetune.export import LINEAGE, whole_folder

ADAPTER_CONFIG = "adapter_config.json"
# What a model's folder has beside weights and config; transformers would rewrite some of it.
_KEPT = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
    "generation_config.json", "vocab.json", "merges.txt", "added_tokens.json",
)  # fmt: skip


def adapter_folder(path: Path) -> Path:
    """The adapter in `path`, which is one or the folder of a finished run. Raises ExportFailed."""
    for folder in (path, path / "adapter"):
        if (folder / ADAPTER_CONFIG).is_file():
            return folder
    raise ExportFailed(
        f"{path} holds no adapter: name a folder with {ADAPTER_CONFIG}, or that of a finished run"
    )


def base_of(adapter: Path) -> Path:
    """The base model that an adapter names. Raises TokenizerUnavailable, ExportFailed."""
    try:
        named = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        return find_model(str(named["base_model_name_or_path"]), models_folder())
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ExportFailed(f"{adapter} names no base model ({exc}): name it with --base") from exc


def merge(adapter: Path, base: Path, target: Path) -> Path:
    """Write the merged model to `target`, whole, in the dtype of the base model; `target`.

    Needs memory for the base model on the host. Raises ExportFailed where `target` exists, the
    adapter does not fit the base model, or the sum is not finite.
    """
    if target.exists():
        raise ExportFailed(f"{target} is there already: name another folder")
    model = _merged(adapter, base)
    with whole_folder(target) as part:
        model.save_pretrained(part, safe_serialization=True)
        for name in _KEPT:
            if (base / name).is_file():
                shutil.copyfile(base / name, part / name)
        if (adapter / LINEAGE).is_file():
            shutil.copyfile(adapter / LINEAGE, part / LINEAGE)
    return target


def _merged(adapter: Path, base: Path) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto", local_files_only=True)
    dtype = model.dtype
    try:
        with warnings.catch_warnings():
            # A missing or unknown tensor is only warned of; the model would be the base alone.
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=FutureWarning)
            adapted = PeftModel.from_pretrained(model, str(adapter), local_files_only=True)
            merged: Any = adapted.merge_and_unload(safe_merge=True)
    except (RuntimeError, ValueError, KeyError, UserWarning) as exc:
        raise ExportFailed(f"the adapter {adapter} does not fit {base}: {exc}") from exc
    return merged.to(dtype)
