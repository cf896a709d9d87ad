"""Source code: blocks are definitions, whose names make the heading path. Spans are exact."""

from __future__ import annotations

import ast
import re
import warnings

from rag.load.build import finish
from rag.load.decode import decode
from rag.load.text import paragraphs
from rag.protocols import RawFile
from rag.types import Block, Document, Span

__all__ = ["load"]

_DEFINITION = re.compile(
    r"^(?:(?:export|default|pub(?:\([^)\n]*\))?|public|private|protected|internal|static|final|"
    r"abstract|async|unsafe|extern|inline|sealed|data|open|override)[ \t]+){0,6}"
    r"(?:func(?:[ \t]*\([^)\n]{0,200}\))?|function\*?|fn|fun|def|class|struct|enum|trait|impl|"
    r"interface|type|module|namespace|object|record|proc|sub)[ \t]+([A-Za-z_][\w.:]{0,200})",
    re.MULTILINE,
)
_MAX_PYTHON = 4 << 20


def load(raw: RawFile) -> list[Document]:
    """See `Loader.load`."""
    text = decode(raw.data)
    python = raw.uri.endswith((".py", ".pyi")) or raw.media_type == "text/x-python"
    cuts = _python(text) if python and len(text) <= _MAX_PYTHON else None
    if cuts is None:
        cuts = [(found.start(), (found.group(1),)) for found in _DEFINITION.finditer(text)]
    if not cuts:
        return [finish(raw, "text/x-code", text, paragraphs(text, Span(0, len(text)), "code"))]
    return [finish(raw, "text/x-code", text, _blocks(text, cuts))]


def _blocks(text: str, cuts: list[tuple[int, tuple[str, ...]]]) -> list[Block]:
    edges = [(0, ()), *cuts] if cuts[0][0] else cuts
    ends = [start for start, _ in edges[1:]] + [len(text)]
    blocks = []
    for (start, path), end in zip(edges, ends, strict=True):
        span = Span(start, start + len(text[start:end].rstrip()))
        if len(span):
            blocks.append(Block(span, "code", path))
    return blocks


def _python(text: str) -> list[tuple[int, tuple[str, ...]]] | None:
    """Where functions, classes and methods begin; None if it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    starts = [0]
    for line in re.finditer(r"\r\n?|\n", text):
        starts.append(line.end())
    found: list[tuple[int, tuple[str, ...]]] = []

    def visit(body: list[ast.stmt], path: tuple[str, ...]) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
                found.append((starts[first - 1], (*path, node.name)))
                if isinstance(node, ast.ClassDef):
                    visit(node.body, (*path, node.name))

    visit(tree.body, ())
    return sorted(dict(found).items())
