"""One training with TRL as its documentation shows it; settings in, figures out, as JSON.

    python -m benchmarks.finetune.plain_trl settings.json

Conversations are given as prompt and completion, so that the answer alone is learnt; packing is
TRL's best-fit decreasing. A step's time is from its beginning to its end, evaluation excluded.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    TrainerCallback,
)
from trl import SFTConfig, SFTTrainer

_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "nf4": torch.bfloat16}


class StepTimes(TrainerCallback):  # type: ignore[misc]
    """Seconds of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._started = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._started = _now()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(_now() - self._started)


class Counting:
    """The trainer's own collator, which also counts what it hands over."""

    def __init__(self, collator: Any, pad: int) -> None:
        self._collator, self._pad = collator, pad
        self.tokens: list[int] = []
        self.positions: list[int] = []

    def __call__(self, examples: list[dict[str, Any]]) -> Any:
        batch = self._collator(examples)
        self.tokens.append(sum(len(each["input_ids"]) for each in examples))
        self.positions.append(batch["input_ids"].numel())
        return batch


def main(path: str) -> None:
    """Train, evaluate, print."""
    given = json.loads(Path(path).read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(given["model"])
    trainer = SFTTrainer(
        model=_model(given),
        args=_arguments(given),
        train_dataset=_rows(given["train"]),
        eval_dataset=_rows(given["validation"]),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            task_type="CAUSAL_LM", r=given["rank"], lora_alpha=given["alpha"],
            target_modules=_LINEAR,
        ),
        callbacks=[times := StepTimes()],
    )  # fmt: skip
    trainer.data_collator = counting = Counting(trainer.data_collator, tokenizer.pad_token_id)
    trainer.train()
    batches = given["accumulation"]
    steps = len(times.seconds)
    per_step = [sum(counting.tokens[i * batches : (i + 1) * batches]) for i in range(steps)]
    positions, tokens = sum(counting.positions[: steps * batches]), sum(per_step)
    skip = given["skip_steps"]
    found = {
        "tokens_per_second": sum(per_step[skip:]) / sum(times.seconds[skip:]),
        "padding_waste": 1 - tokens / positions,
        "packing_efficiency": tokens
        / (steps * batches * given["batch_size"] * given["max_length"]),
        "peak_memory_bytes": _peak_memory(),
        "trained_tokens": tokens,
        "train_loss": trainer.state.log_history[0].get("loss"),
        "valid_loss": trainer.evaluate()["eval_loss"],
    }
    print(json.dumps(found))


def _model(given: dict[str, Any]) -> Any:
    dtype = _DTYPES[given["precision"]]
    extra: dict[str, Any] = {}
    if given["precision"] == "nf4":
        extra["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )  # fmt: skip
    device = "cpu" if given["device"] == "cpu" else "cuda"
    return AutoModelForCausalLM.from_pretrained(
        given["model"], dtype=dtype, device_map={"": device}, attn_implementation="sdpa", **extra
    )


def _arguments(given: dict[str, Any]) -> SFTConfig:
    return SFTConfig(
        output_dir=given["out"],
        packing=True,
        max_length=given["max_length"],
        completion_only_loss=True,
        per_device_train_batch_size=given["batch_size"],
        per_device_eval_batch_size=4,
        eval_packing=False,
        gradient_accumulation_steps=given["accumulation"],
        gradient_checkpointing=given["gradient_checkpointing"],
        max_steps=given["steps"],
        learning_rate=given["learning_rate"],
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        weight_decay=0.0,
        bf16=given["precision"] != "fp32",
        use_cpu=given["device"] == "cpu",
        seed=given["seed"],
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        dataloader_pin_memory=False,
        disable_tqdm=True,
    )


def _rows(path: str) -> Dataset:
    rows = [json.loads(line)["messages"] for line in Path(path).read_text().splitlines()]
    return Dataset.from_list([{"prompt": row[:-1], "completion": row[-1:]} for row in rows])


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _peak_memory() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main(sys.argv[1])
