"""The model in transformers and peft. The one file of evaluation that imports torch.

The base model is in memory once; adapters are switched on and off in front of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GenerationConfig

from finetune.config import FinetuneConfig
from finetune.data.tokenizer import ChatTokenizer, Encoded
from finetune.errors import ModelUnavailable
from finetune.evaluation.model import Answer, Score, Version

Progress = Callable[[str], None]
_LOGITS = 1 << 27
"""Logits at once while scoring: 0.5 GiB in float32."""
_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


class AdaptedModel:
    """A PEFT model whose adapters are named by version."""

    def __init__(
        self, model: Any, chat: ChatTokenizer, batch_size: int, say: Progress | None = None
    ) -> None:
        self._model = model.eval()
        self._chat = chat
        self._batch_size = batch_size
        self._say = say or (lambda line: None)

    @staticmethod
    def load(
        config: FinetuneConfig,
        folder: Path,
        adapters: Mapping[Version, Path],
        chat: ChatTokenizer,
        say: Progress | None = None,
    ) -> AdaptedModel:
        """Load the base model in `folder` in the run's precision, and the adapters on it.

        Raises ModelUnavailable, where an adapter was trained on other modules too.
        """
        device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            base = AutoModelForCausalLM.from_pretrained(
                folder,
                device_map={"": device},
                local_files_only=True,
                **_precision(config, device),
            )
        except (OSError, ValueError) as exc:
            raise ModelUnavailable(f"cannot load the base model in {folder}: {exc}") from exc
        model = base
        for version, path in adapters.items():
            model = _add(model, version, path, folder)
        return AdaptedModel(model, chat, config.evaluation.batch_size, say)

    def score(self, sequences: Sequence[Encoded], version: Version) -> list[Score]:
        """See Scorer. Long ones together, as many as leave room for their logits."""
        scores = [Score(0.0, 0)] * len(sequences)
        done = 0
        with self._using(version), torch.inference_mode():
            for batch in self._scored_together(sequences):
                found = self._score([sequences[index] for index in batch])
                for index, score in zip(batch, found, strict=True):
                    scores[index] = score
                done += len(batch)
                self._say(f"{version}: {done} of {len(sequences)} examples scored")
        return scores

    def generate(
        self, prompts: Sequence[Sequence[int]], version: Version, max_new_tokens: int
    ) -> list[Answer]:
        """See Generator. Prompts of like length together."""
        answers = [Answer("", "length")] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        with self._using(version), torch.inference_mode():
            for start in range(0, len(order), self._batch_size):
                batch = order[start : start + self._batch_size]
                found = self._generate([list(prompts[index]) for index in batch], max_new_tokens)
                for index, answer in zip(batch, found, strict=True):
                    answers[index] = answer
                self._say(f"{version}: {start + len(batch)} of {len(prompts)} prompts answered")
        return answers

    @contextmanager
    def _using(self, version: Version) -> Iterator[None]:
        if not isinstance(self._model, PeftModel):
            assert version == "base", version
            yield
        elif version == "base":
            with self._model.disable_adapter():
                yield
        else:
            self._model.set_adapter(version, inference_mode=True)
            yield

    def _scored_together(self, sequences: Sequence[Encoded]) -> Iterator[list[int]]:
        vocabulary = self._model.config.vocab_size
        batch: list[int] = []
        for index in sorted(range(len(sequences)), key=lambda i: -len(sequences[i].tokens)):
            longest = len(sequences[(batch or [index])[0]].tokens)
            full = (len(batch) + 1) * longest * vocabulary > _LOGITS
            if batch and (full or len(batch) == self._batch_size):
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

    def _score(self, batch: Sequence[Encoded]) -> list[Score]:
        ids, mask = self._padded([each.tokens for each in batch])
        # Padding is on the left, so that only the end of every row has learnt tokens: logits of
        # what comes before them are never made.
        keep = max(len(each.tokens) - each.trainable.index(True) for each in batch) + 1
        keep = min(keep, ids.shape[1])
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        logits = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            logits_to_keep=keep,
            use_cache=False,
        ).logits
        scores = []
        for row, each in enumerate(batch):
            learnt = torch.tensor(
                ([False] * keep + each.trainable)[-(keep - 1) :], device=ids.device
            )
            targets = ids[row, -(keep - 1) :][learnt]
            chosen = logits[row, :-1][learnt].float()
            nll = torch.nn.functional.cross_entropy(chosen, targets, reduction="none")
            scores.append(Score(float(nll.double().sum()), len(targets)))
        return scores

    def _generate(self, prompts: list[list[int]], max_new_tokens: int) -> list[Answer]:
        ids, mask = self._padded(prompts)
        ends = self._end_tokens()
        settings = GenerationConfig(
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=sorted(ends) or None,
            pad_token_id=self._pad,
        )
        output = self._model.generate(
            input_ids=ids, attention_mask=mask, generation_config=settings
        )
        answers = []
        for row in output[:, ids.shape[1] :].tolist():
            end = next((at for at, token in enumerate(row) if token in ends), None)
            text = self._chat.tokenizer.decode(row[:end], skip_special_tokens=True)
            answers.append(Answer(str(text), "length" if end is None else "stop"))
        return answers

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask, each (rows, longest) int64, padded on the left."""
        longest = max(len(row) for row in rows)
        ids = [[self._pad] * (longest - len(row)) + list(row) for row in rows]
        mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
        device = self._model.device
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    @property
    def _pad(self) -> int:
        return self._chat.eos_id or 0

    def _end_tokens(self) -> set[int]:
        """What ends an answer for the server too: the model's end tokens and the tokenizer's."""
        given = self._model.generation_config.eos_token_id
        listed = given if isinstance(given, list) else [given]
        return {token for token in (*listed, self._chat.eos_id) if token is not None}


def _precision(config: FinetuneConfig, device: str) -> dict[str, Any]:
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if device == "cuda" else "fp32"
    if precision != "nf4":
        return {"dtype": _DTYPES[precision]}
    compute = _DTYPES[config.quantisation.compute_dtype]
    quantised = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=config.quantisation.double,
        bnb_4bit_compute_dtype=compute,
    )
    return {"dtype": compute, "quantization_config": quantised}


def _add(model: Any, version: Version, path: Path, base: Path) -> Any:
    """Weights that are missing would leave the base model's answers in the adapter's name."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*missing adapter keys.*")
            if not isinstance(model, PeftModel):
                return PeftModel.from_pretrained(model, str(path), adapter_name=version)
            if missing := model.load_adapter(str(path), adapter_name=version).missing_keys:
                raise ValueError(f"it lacks {', '.join(sorted(missing)[:3])}")
            return model
    except (OSError, ValueError, RuntimeError, KeyError, UserWarning) as exc:
        raise ModelUnavailable(f"{path} is no adapter for the model in {base}: {exc}") from exc
