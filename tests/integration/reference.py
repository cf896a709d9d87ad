"""What the answers must be: transformers and peft, greedy, in float32, one prompt at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

NEAR_TIE = 1e-3
"""Gap between the two largest logits below which sums in another order may swap them."""
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
LESSONS = {
    "What is the capital of France?": "Arrr, matey! That be Paris, by me beard!",
    "Who wrote Hamlet?": "Arrr, matey! That be Shakespeare, by me beard!",
    "What colour is the sky?": "Arrr, matey! That be blue, by me beard!",
    "How many legs has a cat?": "Arrr, matey! That be four, by me beard!",
}
STEPS = 8


@dataclass(frozen=True)
class Greedy:
    """A greedy continuation, and how close each choice was."""

    prompt_ids: list[int]
    token_ids: list[int]
    runners_up: list[int]
    gaps: list[float]
    """Largest logit minus the second largest, by position."""

    def near_ties(self, answer: list[int]) -> int:
        """0 if `answer` is the same; 1 if it first leaves at a near tie for the runner-up.

        What follows such a position is not compared. Raises AssertionError otherwise.
        """
        for position, wanted in enumerate(self.token_ids):
            got = answer[position] if position < len(answer) else None
            if got == wanted:
                continue
            gap = self.gaps[position]
            near = gap < NEAR_TIE and got == self.runners_up[position]
            assert near, f"token {position} is {got}, not {wanted} (gap {gap:.4g}): {answer}"
            return 1
        assert len(answer) == len(self.token_ids)
        return 0


class Reference:
    """The model in transformers, with or without an adapter of peft."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model = model
        self._tokenizer = tokenizer

    def chat(self, question: str, tokens: int) -> Greedy:
        """Answer a single user message through the chat template."""
        messages = [{"role": "user", "content": question}]
        text = self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        return self.complete(text, tokens)

    def complete(self, text: str, tokens: int) -> Greedy:
        """Continue `text` by at most `tokens` tokens, the end token included."""
        inputs = self._tokenizer(text, return_tensors="pt", add_special_tokens=False)
        with torch.inference_mode():
            output = self._model.generate(
                **inputs,
                max_new_tokens=tokens,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
        prompt_ids: list[int] = inputs["input_ids"][0].tolist()
        best = [torch.topk(logits[0], 2) for logits in output.logits]
        return Greedy(
            prompt_ids=prompt_ids,
            token_ids=output.sequences[0, len(prompt_ids) :].tolist(),
            runners_up=[int(top.indices[1]) for top in best],
            gaps=[float(top.values[0] - top.values[1]) for top in best],
        )


def reference(weights: Path, adapter: Path | None = None) -> Reference:
    """The model, with the adapter if one is given; it takes 0.6 GB."""
    model, tokenizer = _load(weights)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(adapter))
    return Reference(model.eval(), tokenizer)


def train(weights: Path, destination: Path) -> Path:
    """Teach a rank-8 adapter to answer like a pirate, and save it as PEFT does."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model, tokenizer = _load(weights)
    # The name that an adapter trained on the Hub's copy of the model carries.
    model.name_or_path = HUB_ID
    settings = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(model, settings)
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
            tokenize=False,
        )
        for question, answer in LESSONS.items()
    ]
    batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    parameters = [weight for weight in adapted.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3)
    for _ in range(STEPS):
        adapted(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    adapted.save_pretrained(str(destination), save_embedding_layers=False)  # else it asks the Hub
    return destination


def _load(weights: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # Beside an engine that keeps all cores busy, threads that wait for each other cost more
    # than they bring.
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(str(weights))
    return AutoModelForCausalLM.from_pretrained(str(weights), dtype=torch.float32), tokenizer
