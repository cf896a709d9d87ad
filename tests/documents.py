"""Documents of every format, written by other libraries than the ones that read them in part."""

from __future__ import annotations

import io
import zipfile
from email.message import EmailMessage

import docx
import openpyxl
import pptx
from fpdf import FPDF

PARAGRAPH = "The reactor is cooled by heavy water that circulates through two loops."


def pdf() -> bytes:
    """Two pages, bookmarks "Cooling" and "Fuel", a table on the first."""
    file = FPDF()
    file.set_title("Reactor manual")
    file.set_font("helvetica", size=12)
    file.add_page()
    file.start_section("Cooling")
    file.multi_cell(0, 6, PARAGRAPH)
    with file.table() as table:
        for cells in (("Loop", "Pumps"), ("North", "three"), ("South", "four")):
            row = table.row()
            for cell in cells:
                row.cell(cell)
    file.add_page()
    file.start_section("Fuel")
    file.multi_cell(0, 6, "Natural uranium is loaded on power.")
    return bytes(file.output())


def word() -> bytes:
    """Headings of two levels, a list and a table."""
    file = docx.Document()
    file.add_heading("Reactor manual", 0)
    file.add_heading("Cooling", 1)
    file.add_paragraph(PARAGRAPH)
    file.add_heading("Pumps", 2)
    file.add_paragraph("North loop", style="List Bullet")
    file.add_paragraph("South loop", style="List Bullet")
    table = file.add_table(2, 2)
    for row, cells in zip(table.rows, (("Loop", "Pumps"), ("North", "three")), strict=True):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    return _saved(file)


def slides() -> bytes:
    """Two slides with titles, a table and notes."""
    deck = pptx.Presentation()
    first = deck.slides.add_slide(deck.slide_layouts[1])
    first.shapes.title.text = "Cooling"
    first.placeholders[1].text = PARAGRAPH
    second = deck.slides.add_slide(deck.slide_layouts[5])
    second.shapes.title.text = "Fuel"
    table = second.shapes.add_table(1, 2, 0, 0, 100, 100).table
    table.cell(0, 0).text, table.cell(0, 1).text = "Uranium", "natural"
    second.notes_slide.notes_text_frame.text = "Loaded on power."
    return _saved(deck)


def workbook() -> bytes:
    """Two sheets; the first has a header and a formula."""
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Pumps"
    for row in (("Loop", "Count"), ("North", 3), ("South", 4)):
        sheet.append(row)
    book.create_sheet("Notes").append(["Checked weekly"])
    return _saved(book)


def mail() -> bytes:
    """A plain body and two attachments, one of which no parser reads."""
    message = EmailMessage()
    message["Subject"] = "Pump failure in loop North"
    message["From"] = "ada@example.com"
    message["To"] = "alan@example.com"
    message.set_content(f"Hello,\n\n{PARAGRAPH}\n")
    message.add_attachment(b"# Log\n\nPump two stopped.", "text", "markdown", filename="log.md")
    message.add_attachment(b"\0\1\2", "application", "octet-stream", filename="core.bin")
    return bytes(message)


def confluence() -> bytes:
    """A space of two current pages, one below the other, and one old version."""
    entities = """<?xml version="1.0"?><hibernate-generic>
<object class="Page"><id name="id">1</id><property name="title">Plant</property>
<collection name="bodyContents"><element class="BodyContent"><id name="id">11</id></element>
</collection><property name="contentStatus">current</property></object>
<object class="Page"><id name="id">2</id><property name="title">Pumps</property>
<property name="parent" class="Page"><id name="id">1</id></property>
<collection name="bodyContents"><element class="BodyContent"><id name="id">12</id></element>
</collection><property name="contentStatus">current</property></object>
<object class="Page"><id name="id">3</id><property name="title">Pumps</property>
<property name="originalVersion" class="Page"><id name="id">2</id></property></object>
<object class="BodyContent"><id name="id">11</id>
<property name="body"><![CDATA[<p>About the plant.</p>]]></property></object>
<object class="BodyContent"><id name="id">12</id>
<property name="body"><![CDATA[<h2>North</h2><p>Three pumps &amp; a spare.</p>]]></property>
</object></hibernate-generic>"""
    return archive({"entities.xml": entities.encode(), "exportDescriptor.properties": b""})


def archive(entries: dict[str, bytes]) -> bytes:
    """A ZIP archive."""
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return found.getvalue()


def _saved(file) -> bytes:  # type: ignore[no-untyped-def]
    found = io.BytesIO()
    file.save(found)
    return found.getvalue()
