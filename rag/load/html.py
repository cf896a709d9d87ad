"""HTML: the main content by trafilatura, or the whole body of a fragment, with its headings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rag.errors import Unparsable
from rag.load.build import DocumentBuilder
from rag.load.tables import grid
from rag.protocols import RawFile
from rag.types import BlockKind, Document

if TYPE_CHECKING:
    from lxml.etree import _Element

__all__ = ["add_fragment", "load", "load_wiki_page"]

_SKIPPED = frozenset({"script", "style", "template", "noscript", "graphic", "img"})
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS: dict[str, BlockKind] = {
    "p": "paragraph",
    "pre": "code",
    "blockquote": "quote",
    "quote": "quote",
    "ul": "list",
    "ol": "list",
    "dl": "list",
    "list": "list",
}
_ITEMS = frozenset({"li", "item", "dt", "dd"})
_CELLS = frozenset({"td", "th", "cell"})
_MAX_DEPTH = 200
_FEW_CHARS = 200
_BREAKS = re.compile(r"[^\S\n]*\n\s*")


def load(raw: RawFile) -> list[Document]:
    """See `Loader.load`. Where no main content is found, everything in the body is taken."""
    from trafilatura import bare_extraction
    from trafilatura.utils import load_html

    tree = load_html(raw.data)
    if tree is None:
        raise Unparsable("it is no HTML, or holds nothing")
    title = _title(tree)
    found = bare_extraction(raw.data, include_comments=False, include_formatting=True)
    builder = DocumentBuilder()
    body = getattr(found, "body", None)
    if body is not None:
        _Walk(builder).children(body, 0)
    if body is None or len("".join(body.itertext())) < _FEW_CHARS:
        whole = DocumentBuilder()
        _Walk(whole).children(_body(tree), 0)
        if body is None or not whole.empty:
            builder = whole
    return [builder.build(raw, "text/html", title)]


def load_wiki_page(raw: RawFile) -> list[Document]:
    """A Confluence page as `rag.load.confluence` wraps it: everything in it is content."""
    from trafilatura.utils import load_html

    tree = load_html(raw.data)
    if tree is None:
        raise Unparsable("the page holds nothing")
    builder = DocumentBuilder()
    above = [str(one.get("content")) for one in tree.iterfind(".//meta[@name='ancestor']")]
    for level, name in enumerate(above, -len(above)):
        builder.enter(name, level)
    builder.heading(_title(tree), 0)
    _Walk(builder).children(_body(tree), 0)
    return [builder.build(raw, "text/html", _title(tree))]


def add_fragment(builder: DocumentBuilder, source: str) -> None:
    """Add an HTML fragment's whole content, such as a page's body in a wiki."""
    from lxml import html

    if not source.strip():
        return
    parser = html.HTMLParser(no_network=True, remove_comments=True, remove_pis=True)
    _Walk(builder).children(html.document_fromstring(source, parser=parser), 0)


class _Walk:
    """Goes through a tree of HTML or of trafilatura's own tags and adds its blocks."""

    def __init__(self, builder: DocumentBuilder) -> None:
        self._builder = builder
        self._loose: list[str] = []

    def children(self, element: _Element, depth: int) -> None:
        """Everything in `element`; text outside of any block becomes a paragraph."""
        self._text(element.text)
        for child in element:
            self._element(child, depth + 1)
            self._text(child.tail)
        if depth == 0:
            self._flush()

    def _element(self, element: _Element, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise Unparsable(f"its elements are nested more than {_MAX_DEPTH} deep")
        tag = _tag(element)
        if not tag or tag in _SKIPPED:
            return
        level = _HEADINGS.get(tag) or (_rend(element) if tag == "head" else 0)
        kind = _BLOCKS.get(tag)
        if level:
            self._flush()
            self._builder.heading(_words(element), level)
        elif tag == "table":
            self._flush()
            self._builder.add(grid(_rows(element)), "table")
        elif kind == "list":
            self._flush()
            self._builder.add(_items(element), "list")
        elif kind == "code" or (tag == "code" and "\n" in "".join(element.itertext())):
            self._flush()
            self._builder.add("".join(_pieces(element, ())), "code")
        elif kind is not None and not _has_blocks(element):
            self._flush()
            self._builder.add(_words(element), kind)
        elif tag in ("br", "lb"):
            self._loose.append("\n")
        elif _inline(tag) and not len(element):
            self._text(_words(element))
        else:
            self._container(element, tag, depth)

    def _container(self, element: _Element, tag: str, depth: int) -> None:
        if not _inline(tag):
            self._flush()
        self.children(element, depth)
        if not _inline(tag):
            self._flush()

    def _text(self, text: str | None) -> None:
        if text:
            self._loose.append(text)

    def _flush(self) -> None:
        words = _tidy("".join(self._loose))
        self._loose.clear()
        if words:
            self._builder.add(words)


_INLINE = frozenset(
    ("a", "abbr", "b", "bdi", "bdo", "cite", "code", "del", "dfn", "em", "font", "hi", "i", "ins",
     "kbd", "label", "mark", "q", "ref", "s", "samp", "small", "span", "strong", "sub", "sup",
     "time", "tt", "u", "var")
)  # fmt: skip


def _inline(tag: str) -> bool:
    return tag in _INLINE


def _tag(element: _Element) -> str:
    tag: Any = element.tag
    return tag.rpartition("}")[2].lower() if isinstance(tag, str) else ""


def _rend(element: _Element) -> int:
    found = element.get("rend") or "h3"
    return int(found[1]) if re.fullmatch(r"h[1-6]", found) else 3


def _has_blocks(element: _Element) -> bool:
    tags = {_tag(child) for child in element.iterdescendants()}
    return not tags.isdisjoint({"table", "pre", "ul", "ol", "list", "p", *_HEADINGS, "head"})


def _rows(table: _Element) -> list[list[str]]:
    """Cells of each row; nested tables become words of their cell."""
    rows = []
    for row in table.iterdescendants():
        if _tag(row) in ("tr", "row"):
            cells = [_words(cell) for cell in row if _tag(cell) in _CELLS]
            nested = sum(_tag(above) == "table" for above in row.iterancestors())
            outer = sum(_tag(above) == "table" for above in table.iterancestors()) + 1
            if cells and nested == outer:
                rows.append(cells)
    return rows


def _items(element: _Element, depth: int = 0) -> str:
    """A list as lines beginning with `- `; lists inside of it are indented."""
    lines: list[str] = []
    for item in element:
        if _tag(item) not in _ITEMS:
            nested = _tag(item) in ("ul", "ol", "list")
            lines += [_items(item, depth + 1)] if nested else [_words(item)]
            continue
        inner = [one for one in item if _BLOCKS.get(_tag(one)) == "list"] if depth < 20 else []
        deeper = [_items(one, depth + 1) for one in inner]
        words = _words(item, without=inner)
        lines += [f"{'  ' * depth}- {words}" if words else "", *deeper]
    return "\n".join(line for line in lines if line.strip())


def _words(element: _Element, without: list[_Element] | tuple[()] = ()) -> str:
    return _tidy("".join(_pieces(element, without)))


def _pieces(element: _Element, without: list[_Element] | tuple[()], depth: int = 0) -> list[str]:
    found = [element.text or ""]
    for child in element:
        tag = _tag(child)
        if tag in ("br", "lb"):
            found.append("\n")
        elif tag and tag not in _SKIPPED and not any(child is one for one in without):
            if depth >= _MAX_DEPTH:
                raise Unparsable(f"its elements are nested more than {_MAX_DEPTH} deep")
            gap = "" if _inline(tag) else " "
            found += [gap, *_pieces(child, without, depth + 1), gap]
        found.append(child.tail or "")
    return found


def _tidy(text: str) -> str:
    return _BREAKS.sub("\n", re.sub(r"[^\S\n]+", " ", text)).strip()


def _title(tree: _Element) -> str:
    found = tree.find(".//title")
    return "" if found is None else "".join(found.itertext())


def _body(tree: _Element) -> _Element:
    found = tree.find(".//body")
    return tree if found is None else found
