"""`python -m finetune check`: two passes over the data, then the report."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from finetune.config import DataConfig
from finetune.data.card import DataCard, save_card
from finetune.data.check import check
from finetune.data.rows import Fault
from finetune.data.tokenise import tokenise
from finetune.data.tokenizer import ChatTokenizer


def check_data(data: DataConfig, model: Path | None, out: Path | None, *, as_json: bool) -> int:
    """Print every fault (standard error) and the card (standard output); 1 if any row is bad.

    The tokenizer of the folder `model` is loaded only if the first pass found nothing wrong.
    Raises FinetuneError for what cannot be read at all.
    """
    checked = check(data, _say)
    card = DataCard(data, checked)
    faults = list(checked.faults)
    if model is not None and not faults:
        chat = load_tokenizer(data, model)
        tokenised = tokenise(data, chat, _say)
        faults = tokenised.faults
        if tokenised.version != checked.version:
            faults.append(Fault("the data", 0, "", "changed while it was read: check it again"))
        card = DataCard(data, checked, str(model), tokenised)
    for fault in faults:
        print(fault, file=sys.stderr)
    if out is not None:
        save_card(card, out)
    print(json.dumps(card.as_json(), ensure_ascii=False) if as_json else card.as_markdown())
    rows = len({(fault.source, fault.row) for fault in faults})
    if rows:
        print(f"faults: {len(faults)}, all listed; rows or files: {rows}", file=sys.stderr)
    return 1 if faults else 0


def load_tokenizer(data: DataConfig, model: Path) -> ChatTokenizer:
    """The tokenizer of a model's folder with the template that the data's configuration names."""
    return ChatTokenizer.load(
        model,
        template=None if data.chat_template is None else Path(data.chat_template),
        variables=dict(data.chat_template_kwargs),
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
