"""What the device is, and what its multiplications reach at best; prints JSON.

python -m benchmarks.finetune.device
python -m benchmarks.finetune.device --write-8b FOLDER TOKENIZER_FOLDER
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import torch

_SIZE = {"cpu": 1024, "cuda": 8192}


def peak_flops(device: str, dtype: torch.dtype) -> float:
    """The fastest of several square multiplications, FLOP/s."""
    size = _SIZE[device]
    left = torch.randn(size, size, device=device).to(dtype)
    right = torch.randn(size, size, device=device).to(dtype)
    best = float("inf")
    for _ in range(30):
        started = time.perf_counter()
        left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2.0 * size**3 / best


def write_8b(folder: Path, tokenizer: Path) -> None:
    """Llama 3.1 8B's shape with random weights in bf16, and a tokenizer whose ids it covers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=131072,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0}, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(tokenizer / name, folder / name)


def main() -> None:
    """Print peaks, or write the model."""
    if sys.argv[1:2] == ["--write-8b"]:
        write_8b(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    fp32, bf16 = (peak_flops(device, dtype) for dtype in (torch.float32, torch.bfloat16))
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    print(json.dumps({"device": device, "name": name, "fp32": fp32, "bf16": bf16, "nf4": bf16}))


if __name__ == "__main__":
    main()
