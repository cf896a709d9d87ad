"""Markdown (CommonMark with tables). The text is the source itself, so spans are exact."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

import yaml

from rag.load.build import finish
from rag.load.decode import decode
from rag.protocols import RawFile
from rag.types import Block, BlockKind, Document, Span

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

__all__ = ["load"]

_LINE = re.compile(r"\r\n?|\n")
_FRONT = re.compile(r"---[ \t]*\r?\n(.*?\r?\n)?(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_KINDS: dict[str, BlockKind] = {
    "heading_open": "heading",
    "paragraph_open": "paragraph",
    "bullet_list_open": "list",
    "ordered_list_open": "list",
    "table_open": "table",
    "fence": "code",
    "code_block": "code",
    "blockquote_open": "quote",
    "html_block": "paragraph",
}


def load(raw: RawFile) -> list[Document]:
    """See `Loader.load`. YAML front matter gives the title and is no text to search."""
    text = decode(raw.data)
    front = _FRONT.match(text)
    offset = front.end() if front else 0
    title = _title(front.group(1) or "") if front else ""
    blocks = _blocks(text, offset)
    return [finish(raw, "text/markdown", text, blocks, title)]


def _blocks(text: str, offset: int) -> list[Block]:
    parser = _parser()
    starts = [offset, *(found.end() for found in _LINE.finditer(text, offset)), len(text)]
    headings: list[tuple[int, str]] = []
    blocks: list[Block] = []
    tokens = parser.parse(text[offset:])
    for at, token in enumerate(tokens):
        kind = _KINDS.get(token.type)
        if kind is None or token.level or token.map is None:
            continue
        if kind == "heading":
            level = int(token.tag[1:])
            while headings and headings[-1][0] >= level:
                headings.pop()
            if name := _plain(tokens[at + 1].content):
                headings.append((level, name))
        start = starts[token.map[0]]
        end = start + len(text[start : starts[min(token.map[1], len(starts) - 1)]].rstrip())
        if end > start:
            blocks.append(Block(Span(start, end), kind, tuple(name for _, name in headings)))
    return blocks


@cache
def _parser() -> MarkdownIt:
    """Finds blocks only: what stands inside of paragraphs is not taken apart."""
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable("table").disable("inline")


@cache
def _inline() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark")


def _plain(source: str) -> str:
    """A heading's words without emphasis, links and code marks."""
    words = [
        child.content
        for token in _inline().parseInline(source)
        for child in token.children or ()
        if child.type in ("text", "code_inline")
    ]
    return " ".join("".join(words).split())


def _title(front: str) -> str:
    if "&" in front:  # YAML aliases can grow without bound
        return ""
    try:
        found = yaml.safe_load(front)
    except (yaml.YAMLError, ValueError, RecursionError):
        return ""
    return str(found.get("title") or "") if isinstance(found, dict) else ""
