"""A byte-level BPE tokenizer as GGUF has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from finetune.errors import ExportFailed

# llama.cpp tells ways to split text by names of models.
_LLAMA_3 = r"\p{N}{1,3}"
_QWEN_2 = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"


def add_tokenizer(writer: Any, model: Path, vocab: int, pre: str | None) -> None:
    """Tokens, merges, control tokens and chat template. Raises ExportFailed."""
    import gguf

    path = model / "tokenizer.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ExportFailed(f"{path} cannot be read: {exc}") from exc
    bpe = found.get("model") or {}
    if bpe.get("type") != "BPE" or bpe.get("byte_fallback"):
        raise ExportFailed(
            f"{path} is no byte-level BPE, which is all that is written: convert the merged model "
            "with llama.cpp's convert_hf_to_gguf.py"
        )
    kinds = gguf.TokenType
    tokens = [f"[PAD{index}]" for index in range(vocab)]
    types = [kinds.UNUSED] * vocab
    for token, index in bpe["vocab"].items():
        tokens[index], types[index] = token, kinds.NORMAL
    for added in found.get("added_tokens") or ():
        index = added["id"]
        tokens[index] = added["content"]
        types[index] = kinds.CONTROL if added["special"] else kinds.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre or _splitting(found.get("pre_tokenizer"), path))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(
        [each if isinstance(each, str) else " ".join(each) for each in bpe["merges"]]
    )
    _add_special(writer, model, {token: index for index, token in enumerate(tokens)})


def _splitting(value: Any, path: Path) -> str:
    """llama.cpp's name of a pre-tokenizer."""
    text = json.dumps(value, ensure_ascii=False).replace("\\\\", "\\")
    if _LLAMA_3 in text:
        return "llama-bpe"
    if _QWEN_2 in text:
        return "qwen2"
    if '"Digits"' in text:
        return "smollm"
    if '"Split"' not in text and '"ByteLevel"' in text:
        return "gpt-2"
    raise ExportFailed(
        f"{path} splits text in a way that has no known name in llama.cpp: name it with --pre"
    )


def _add_special(writer: Any, model: Path, ids: dict[str, int]) -> None:
    try:
        settings = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        settings = {}
    for kind, add in (
        ("bos", writer.add_bos_token_id),
        ("eos", writer.add_eos_token_id),
        ("unk", writer.add_unk_token_id),
        ("pad", writer.add_pad_token_id),
    ):
        token = settings.get(f"{kind}_token")
        token = token.get("content") if isinstance(token, dict) else token
        if token in ids:
            add(ids[token])
    template = settings.get("chat_template")
    if (path := model / "chat_template.jinja").is_file():
        template = path.read_text(encoding="utf-8")
    if isinstance(template, str):
        writer.add_chat_template(template)
