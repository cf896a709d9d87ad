"""Every format gives its text with title, heading path, pages and exact spans."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rag.errors import Unparsable
from rag.load.detect import detect
from rag.load.parse import parse
from rag.protocols import RawFile
from rag.types import Block, Document
from tests import documents


def load(name: str, data: bytes | str) -> Document:
    found = parse(RawFile(name, data if isinstance(data, bytes) else data.encode()))
    assert len(found) == 1
    return found[0]


def blocks(document: Document, kind: str) -> list[tuple[tuple[str, ...], str]]:
    return [
        (one.heading_path, one.span.of(document.text))
        for one in document.blocks
        if one.kind == kind
    ]


WRITTEN: dict[str, Callable[[], bytes]] = {
    "a.pdf": documents.pdf,
    "a.docx": documents.word,
    "a.pptx": documents.slides,
    "a.xlsx": documents.workbook,
    "a.eml": documents.mail,
    "a.zip": documents.confluence,
}


@pytest.mark.parametrize("name", WRITTEN)
def test_blocks_are_in_order_and_apart(name: str) -> None:
    for document in parse(RawFile(name, WRITTEN[name]())):
        at = 0
        for block in document.blocks:
            assert at <= block.span.start < block.span.end <= len(document.text)
            at = block.span.end


def test_pdf_has_pages_bookmarks_and_tables() -> None:
    found = load("a.pdf", documents.pdf())
    assert found.title == "Reactor manual"
    assert blocks(found, "paragraph") == [
        (("Cooling",), documents.PARAGRAPH),
        (("Fuel",), "Natural uranium is loaded on power."),
    ]
    assert blocks(found, "table") == [(("Cooling",), "Loop | Pumps\nNorth | three\nSouth | four")]
    assert [block.page for block in found.blocks] == [1, 1, 2]


def test_word_has_headings_lists_and_tables() -> None:
    found = load("a.docx", documents.word())
    assert blocks(found, "paragraph") == [(("Cooling",), documents.PARAGRAPH)]
    assert blocks(found, "list") == [(("Cooling", "Pumps"), "- North loop\n- South loop")]
    assert blocks(found, "table") == [(("Cooling", "Pumps"), "Loop | Pumps\nNorth | three")]


def test_slides_are_pages() -> None:
    found = load("a.pptx", documents.slides())
    assert [(one.page, one.heading_path) for one in found.blocks if one.kind != "heading"] == [
        (1, ("Cooling",)),
        (2, ("Fuel",)),
        (2, ("Fuel",)),
    ]
    assert "Loaded on power." in found.text


def test_rows_of_a_sheet_name_their_columns() -> None:
    found = load("a.xlsx", documents.workbook())
    assert blocks(found, "table")[0] == (("Pumps",), "Loop: North; Count: 3")
    assert found.blocks[-1] == Block(found.blocks[-1].span, "table", ("Notes",), 2)


def test_mail_and_its_attachments() -> None:
    message, log = parse(RawFile("a.eml", documents.mail()))
    assert message.title == "Pump failure in loop North"
    assert documents.PARAGRAPH in message.text
    assert message.metadata["from"] == "ada@example.com"
    assert message.metadata["unread_attachments"] == "core.bin"
    assert (log.uri, log.title) == ("a.eml#1/log.md", "Log")


def test_a_wiki_export_gives_its_current_pages() -> None:
    plant, pumps = parse(RawFile("a.zip", documents.confluence()))
    assert (plant.title, pumps.title) == ("Plant", "Pumps")
    assert blocks(pumps, "paragraph") == [(("Plant", "Pumps", "North"), "Three pumps & a spare.")]


def test_html_keeps_main_content_and_headings() -> None:
    filler = "More is said about it here, in words that fill the page. " * 8
    found = load(
        "a.html",
        f"<html><head><title>Manual &amp; more</title></head><body><nav>Home About</nav>"
        f"<article><h1>Reactor</h1><p>{filler}</p><h2>Cooling</h2><p>{documents.PARAGRAPH}</p>"
        "<ul><li>North</li><li>South</li></ul><table><tr><th>Loop</th><th>Pumps</th></tr>"
        "<tr><td>North</td><td>three</td></tr></table></article><footer>Imprint</footer>"
        "<script>alert(1)</script></body></html>",
    )
    assert found.title == "Manual & more"
    assert (("Reactor", "Cooling"), documents.PARAGRAPH) in blocks(found, "paragraph")
    assert blocks(found, "list") == [(("Reactor", "Cooling"), "- North\n- South")]
    assert blocks(found, "table") == [(("Reactor", "Cooling"), "Loop | Pumps\nNorth | three")]
    assert "Home" not in found.text
    assert "alert" not in found.text


def test_a_page_without_main_content_is_read_whole() -> None:
    assert "Just this." in load("a.html", "<html><body><div>Just this.</div></body></html>").text


def test_markdown_spans_are_those_of_the_source() -> None:
    source = (
        "---\ntitle: Manual\n---\r\n# A *b* `c`\r\n\r\nText here.\r\n\r\nSetext\n------\n\n"
        "- one\n- two\n\n| x | y |\n|---|---|\n| 1 | 2 |\n\n~~~\n# no heading\n~~~\n\n> quoted\n"
    )
    found = load("a.md", source)
    assert found.text == source
    assert found.title == "Manual"
    assert blocks(found, "paragraph") == [(("A b c",), "Text here.")]
    assert blocks(found, "list") == [(("A b c", "Setext"), "- one\n- two")]
    assert blocks(found, "table") == [(("A b c", "Setext"), "| x | y |\n|---|---|\n| 1 | 2 |")]
    assert blocks(found, "code") == [(("A b c", "Setext"), "~~~\n# no heading\n~~~")]
    assert blocks(found, "quote") == [(("A b c", "Setext"), "> quoted")]


def test_code_is_cut_at_definitions() -> None:
    source = (
        "import os\n\n\n@cache\ndef f():\n    pass\n\n\nclass A:\n    def g(self):\n        pass\n"
    )
    found = load("a.py", source)
    assert found.text == source
    assert blocks(found, "code") == [
        ((), "import os"),
        (("f",), "@cache\ndef f():\n    pass"),
        (("A",), "class A:"),
        (("A", "g"), "    def g(self):\n        pass"),
    ]
    found = load("a.go", "package a\nfunc (s *S) Run() {\n}\n")
    assert [path for path, _ in blocks(found, "code")] == [(), ("Run",)]


@pytest.mark.parametrize(
    ("name", "source", "text"),
    [
        ("a.csv", "Name,Born\nAda,1815\n\nB,1\n", "Name: Ada; Born: 1815\n\nName: B; Born: 1"),
        ("a.tsv", "Name\tBorn\nAda\t1815\n", "Name: Ada; Born: 1815"),
        ("a.jsonl", '{"a": {"b": 1}, "c": [1, 2]}\n\n{"a": null, "d": "x"}',
         "a.b: 1\nc: 1, 2\n\nd: x"),
        ("a.json", '[{"q": "why"}, {"q": "how"}]', "q: why\n\nq: how"),
        ("a.txt", "One\ntwo\n\nthree", "One\ntwo\n\nthree"),
    ],
)  # fmt: skip
def test_rows_and_records_are_text(name: str, source: str, text: str) -> None:
    assert load(name, source).text == text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("Gr\u00fc\u00dfe".encode("utf-16"), "Gr\u00fc\u00dfe"),
        ("\ufeffGr\u00fc\u00dfe".encode(), "Gr\u00fc\u00dfe"),
        (b"fine until \xff here, and then it goes on for long", "fine until \ufffd here"),
        ("Le d\u00e9j\u00e0 vu est \u00e9trange. ".encode("latin-1") * 9, "d\u00e9j\u00e0 vu"),
    ],
)  # fmt: skip
def test_text_in_other_encodings_is_read(data: bytes, text: str) -> None:
    assert text in load("a.txt", data).text


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("a.txt", documents.pdf(), "pdf"),
        ("a.pdf", b"Only text.", "text"),
        ("a.docx", b"Only text.", "text"),
        ("a.pdf", documents.word(), "docx"),
        ("page", b"<!DOCTYPE html><html></html>", "html"),
        ("a.exe", b"MZ\x90\x00", "unsupported"),
        ("a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "unsupported"),
        ("a.zip", documents.archive({"x": b""}), "unsupported"),
        ("../../etc/passwd.md", b"# Text", "markdown"),
    ],
)
def test_bytes_win_over_the_extension(name: str, data: bytes, kind: str) -> None:
    assert detect(RawFile(name, data)) == kind


def test_binary_data_is_unsupported() -> None:
    with pytest.raises(Unparsable) as caught:
        parse(RawFile("a.txt", b"\0\1\2\3"))
    assert caught.value.code == "unsupported_file"
