"""A Confluence space exported as XML: every current page is a document of its own."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rag.errors import Unparsable
from rag.load.build import DocumentBuilder
from rag.load.html import add_fragment
from rag.load.ooxml import checked, member, translated
from rag.protocols import RawFile
from rag.types import Document

if TYPE_CHECKING:
    from lxml.etree import _Element

__all__ = ["load"]

_MAX_DEPTH = 50


@dataclass
class _Page:
    id: str
    title: str = ""
    parent: str = ""
    bodies: list[str] = field(default_factory=list)
    current: bool = True


def load(raw: RawFile) -> list[Document]:
    """See `Loader.load`. Old versions, drafts and pages in the bin are left out."""
    checked(raw.data)
    pages, bodies = _read(member(raw.data, "entities.xml"))
    documents = []
    for page in pages.values():
        body = "".join(bodies.get(one, "") for one in page.bodies)
        if not page.current or not page.title:
            continue
        builder = DocumentBuilder()
        for level, title in enumerate(_above(page, pages), 1 - _MAX_DEPTH):
            builder.enter(title, level)
        builder.heading(page.title, 0)
        add_fragment(builder, body)
        documents.append(
            builder.build(raw, "text/html", page.title, part=page.id, metadata={"page": page.id})
        )
    if not documents:
        raise Unparsable("the export holds no current page: export the space as XML")
    return documents


def _above(page: _Page, pages: dict[str, _Page]) -> list[str]:
    found: list[str] = []
    seen = {page.id}
    while (above := pages.get(page.parent)) and above.id not in seen and len(seen) < _MAX_DEPTH:
        seen.add(above.id)
        found.append(above.title)
        page = above
    return found[::-1]


def _read(data: bytes) -> tuple[dict[str, _Page], dict[str, str]]:
    from lxml import etree

    pages: dict[str, _Page] = {}
    bodies: dict[str, str] = {}
    with translated("Confluence export"):
        events = etree.iterparse(
            io.BytesIO(data), tag="object", resolve_entities=False, no_network=True, load_dtd=False
        )
        for _, element in events:
            if element.get("class") == "Page":
                page = _page(element)
                pages[page.id] = page
            elif element.get("class") == "BodyContent":
                found = element.find("property[@name='body']")
                bodies[_id(element)] = "" if found is None else (found.text or "")
            element.clear()
    return pages, bodies


def _page(element: _Element) -> _Page:
    page = _Page(_id(element))
    for prop in element.findall("property"):
        name = prop.get("name")
        if name == "title":
            page.title = prop.text or ""
        elif name == "parent":
            page.parent = _id(prop)
        elif name == "contentStatus":
            page.current = page.current and (prop.text or "current") == "current"
        elif name == "originalVersion":
            page.current = False
    bodies = element.find("collection[@name='bodyContents']")
    page.bodies = [] if bodies is None else [_id(one) for one in bodies.findall("element")]
    return page


def _id(element: _Element) -> str:
    return (element.findtext("id") or "").strip()
