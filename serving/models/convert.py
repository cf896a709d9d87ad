"""Writes a Llama GGUF file as a bfloat16 safetensors model directory. Runs as a process of its own.

    python -P convert.py model.gguf DESTINATION HUB_ID

A process, so that the memory the weights took (1.8 GiB for 135 M parameters)
goes back when it ends. It knows nothing of the rest of corral: progress is one
line each on standard output, a failure is a traceback and a status other than
0, and when standard input closes, the parent is gone and so is the work.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any


def convert(gguf: Path, destination: Path, hub_id: str) -> None:
    """Write config, weights, tokenizer and generation config of `gguf` into `destination`."""
    _say("loading the libraries")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    _say("reading the tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    _say("expanding the quantised weights")
    loaded = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32
    )
    config = LlamaConfig(**_plain_config(loaded.config.to_dict()), name_or_path=hub_id)
    with torch.device("meta"):
        # A fresh module: the loaded one is marked as quantised and would be saved as such.
        model = LlamaForCausalLM(config)
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    model.to(torch.bfloat16)
    model.generation_config = loaded.generation_config
    _say("writing safetensors")
    model.save_pretrained(str(destination))
    _split_digits(tokenizer)
    tokenizer.model_max_length = config.max_position_embeddings
    tokenizer.save_pretrained(str(destination))
    _portable(destination / "tokenizer_config.json")


def _portable(path: Path) -> None:
    """Name the tokenizer's class as every release of transformers knows it."""
    config = json.loads(path.read_text(encoding="utf-8"))
    for key in ("backend", "is_local", "local_files_only"):
        config.pop(key, None)
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _plain_config(config: dict[str, Any]) -> dict[str, Any]:
    """`config` without what describes the GGUF file; its float32 epsilon as the decimal it was."""
    dropped = {"quantization_config", "_model_name_or_path", "_name_or_path", "dtype"}
    plain = {key: value for key, value in config.items() if key not in dropped}
    plain["rms_norm_eps"] = float(f"{plain['rms_norm_eps']:.6g}")
    return plain


def _split_digits(tokenizer: Any) -> None:
    """Restore SmolLM's pre-tokenizer, which splits digits first.

    The GGUF names it only as "smollm" and transformers falls back to GPT-2's,
    which differs where several spaces precede a number.
    """
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    )


def _say(message: str) -> None:
    print(message, flush=True)


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(3)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
