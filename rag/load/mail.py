"""E-mail: headers and body; attachments are documents of their own."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage, MIMEPart
from typing import Any
from urllib.parse import quote

from rag.errors import Unparsable
from rag.load.build import DocumentBuilder
from rag.load.html import add_fragment
from rag.protocols import RawFile
from rag.types import Document, Scalar

__all__ = ["load"]

_HEADERS = ("From", "To", "Cc", "Date")
_MAX_ATTACHMENTS = 50


def load(raw: RawFile) -> list[Document]:
    """See `Loader.load`. An attachment that cannot be parsed is named in the metadata only."""
    try:
        message = message_from_bytes(raw.data, policy=policy.default)
        return _load(raw, message)
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as exc:
        if isinstance(exc, Unparsable):
            raise
        raise Unparsable(f"it is no readable e-mail: {exc}") from exc


def _load(raw: RawFile, message: EmailMessage) -> list[Document]:
    builder = DocumentBuilder()
    subject = str(message.get("Subject", ""))
    builder.heading(subject, 1)
    headers = {name: str(message[name]) for name in _HEADERS if message[name]}
    builder.add("\n".join(f"{name}: {value}" for name, value in headers.items()))
    body = message.get_body(("plain", "html"))
    if body is not None:
        content = _content(body)
        if body.get_content_subtype() == "html":
            add_fragment(builder, content)
        else:
            for paragraph in content.replace("\r\n", "\n").split("\n\n"):
                builder.add(paragraph)
    metadata: dict[str, Scalar] = {name.lower(): value for name, value in headers.items()}
    attached, unread = _attachments(raw, message)
    if unread:
        metadata["unread_attachments"] = ", ".join(unread)
    return [builder.build(raw, "message/rfc822", subject, metadata=metadata), *attached]


def _attachments(raw: RawFile, message: EmailMessage) -> tuple[list[Document], list[str]]:
    from rag.load.parse import parse

    found: list[Document] = []
    unread: list[str] = []
    for number, part in enumerate(message.iter_attachments(), 1):
        name = part.get_filename() or f"part-{number}"
        data = part.get_payload(decode=True)
        nested = raw.uri.count("#") >= 2 or number > _MAX_ATTACHMENTS
        if nested or not isinstance(data, bytes):
            unread.append(name)
            continue
        uri = f"{raw.uri}#{number}/{quote(name)}"
        try:
            found += parse(RawFile(uri, data, part.get_content_type(), raw.metadata))
        except Unparsable:
            unread.append(name)
    return found, unread


def _content(part: MIMEPart[Any]) -> str:
    try:
        return str(part.get_content())
    except (LookupError, UnicodeError):  # an unknown or wrong character set
        payload = part.get_payload(decode=True)
        return payload.decode("utf-8", "replace") if isinstance(payload, bytes) else ""
