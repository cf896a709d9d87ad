"""Errors of retrieval.

RagError
├── Unparsable          (also ValueError) a document that cannot be parsed; `code` says how
├── SourceUnreadable    (also OSError) a file, URL or site that cannot be read at all
├── Refused             (also PermissionError) an address or path that may not be read
├── TextTooLong         (also ValueError) a text of more tokens than the embedder takes
├── EmbedderUnavailable (also OSError) the embedder cannot be loaded or does not answer
├── GeneratorUnavailable (also OSError) the language model does not answer
├── RerankerUnavailable (also OSError) the cross-encoder does not answer
├── IndexUnavailable    (also OSError) the vector index cannot be opened or does not answer
├── BadFilter           (also ValueError) a metadata filter that has no meaning
├── IndexMismatch       (also ValueError) the index was made with another embedder or chunking
├── LedgerBusy          (also BlockingIOError) another process is ingesting
├── LedgerUnavailable   (also OSError) the record of what was ingested cannot be opened
└── MissingExtra        (also ImportError) an optional package is not installed
"""

from __future__ import annotations

from typing import Literal


class RagError(Exception):
    """Base of every error of this package."""


class Unparsable(RagError, ValueError):
    """The document cannot be parsed. `code` is OpenAI's `last_error.code` for a file."""

    def __init__(
        self, message: str, code: Literal["unsupported_file", "invalid_file"] = "invalid_file"
    ) -> None:
        super().__init__(message)
        self.code = code


class SourceUnreadable(RagError, OSError):
    """Nothing can be read from the source; the message says why and the mend."""


class Refused(RagError, PermissionError):
    """Reading it would reach where documents must not come from."""


class TextTooLong(RagError, ValueError):
    """The embedder would have to truncate it."""


class EmbedderUnavailable(RagError, OSError):
    """The embedder cannot be loaded, or does not answer."""


class GeneratorUnavailable(RagError, OSError):
    """The language model cannot be reached, or refuses."""


class RerankerUnavailable(RagError, OSError):
    """The cross-encoder cannot be reached, or refuses."""


class IndexUnavailable(RagError, OSError):
    """The vector index cannot be opened, or does not answer."""


class IndexMismatch(RagError, ValueError):
    """The index was made with another embedder, dimension or chunking."""


class BadFilter(RagError, ValueError):
    """A filter that cannot be applied; the message names the condition."""


class LedgerBusy(RagError, BlockingIOError):
    """Another process writes the same ledger."""


class LedgerUnavailable(RagError, OSError):
    """The ledger is damaged, or lies where it cannot be written."""


class MissingExtra(RagError, ImportError):
    """An optional package is missing; the message has the command that installs it."""
