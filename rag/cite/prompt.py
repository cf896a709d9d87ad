"""The prompt: passages as delimited, numbered data, and the rules for using them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

from rag.cite.config import CiteConfig
from rag.errors import RagError
from rag.protocols import Message
from rag.retrieve.pack import Passage

__all__ = ["build_prompt"]

_TEMPLATES = Path(__file__).parent / "templates"
_DELIMITER = re.compile(r"<(?=\s*/?\s*passages?\b)", re.I)


def build_prompt(
    question: str,
    passages: Sequence[Passage],
    config: CiteConfig,
    history: Sequence[Message] = (),
) -> list[Message]:
    """Messages for a chat model: the rules and passages, the conversation, the question. Raises
    RagError if the template cannot be read."""
    template = _template(config.template)
    shown = "\n".join(_shown(passage) for passage in passages)
    # Not str.format: a template, and every passage, may have braces of its own.
    system = template.replace("{not_found}", config.not_found).replace("{passages}", shown)
    return [Message("system", system), *history, Message("user", question)]


def _shown(passage: Passage) -> str:
    chunk = passage.chunk
    where = " > ".join(chunk.heading_path) or chunk.title
    return (
        f'<passage number="{passage.number}" from={quoteattr(_inert(where))}>\n'
        f"{_inert(chunk.text.strip())}\n</passage>"
    )


def _inert(text: str) -> str:
    """A document cannot end its own passage, or begin another."""
    return _DELIMITER.sub("\u2039", text)


def _template(name: str) -> str:
    shipped = _TEMPLATES / f"{name}.txt"
    path = shipped if "/" not in name and shipped.is_file() else Path(name)
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError as exc:
        raise RagError(f"cite.template: cannot read {path}: {exc.strerror}") from exc
    if "{passages}" not in text:
        raise RagError(f"cite.template: {path} has no {{passages}}, where the passages go")
    return text
