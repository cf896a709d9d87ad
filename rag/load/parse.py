"""Bytes to documents, in this process. `ParserPool` does the same in children with limits."""

from __future__ import annotations

from collections.abc import Sequence

from rag.errors import Unparsable
from rag.load.build import name_of
from rag.load.detect import detect
from rag.protocols import RawFile
from rag.types import Document

__all__ = ["VERSION", "parse"]

VERSION = 1
"""Raised when the text or blocks of some format change: ledgers then parse anew."""


def parse(raw: RawFile) -> Sequence[Document]:
    """The documents in `raw`; none if it holds no text. Raises Unparsable."""
    found = _load(raw)
    return [document for document in found if document.text.strip()]


def _load(raw: RawFile) -> Sequence[Document]:
    """Imports a format's library only when a file of that format comes."""
    match detect(raw):
        case "pdf":
            from rag.load import pdf

            return pdf.load(raw)
        case "html":
            from rag.load import html

            return html.load(raw)
        case "markdown":
            from rag.load import markdown

            return markdown.load(raw)
        case "docx":
            from rag.load import docx

            return docx.load(raw)
        case "pptx":
            from rag.load import pptx

            return pptx.load(raw)
        case "xlsx":
            from rag.load import xlsx

            return xlsx.load(raw)
        case "confluence":
            from rag.load import confluence_export

            return confluence_export.load(raw)
        case "wiki":
            from rag.load import html

            return html.load_wiki_page(raw)
        case "mail":
            from rag.load import mail

            return mail.load(raw)
        case _ as kind:
            return _load_text(raw, kind)


def _load_text(raw: RawFile, kind: str) -> Sequence[Document]:
    from rag.load import code, tabular, text

    match kind:
        case "csv":
            return tabular.load(raw)
        case "jsonl":
            return tabular.load_jsonl(raw)
        case "json":
            return tabular.load_json(raw)
        case "code":
            return code.load(raw)
        case "text":
            return text.load(raw)
        case _:
            raise Unparsable(
                f"{name_of(raw.uri)} is of no format that can be read: convert it to PDF, "
                "Office, HTML, Markdown or text",
                "unsupported_file",
            )
