"""Errors of fine-tuning.

FinetuneError
├── BadData               (also ValueError) rows that cannot be trained on; `faults` has them all
├── SourceUnreadable      (also OSError) a file or a Hub data set that cannot be read at all
├── MissingExtra          (also ImportError) an optional package is not installed
├── ModelUnavailable      (also LookupError) the base model's weights are not there, or of no use
├── RunConflict           (also RuntimeError) the run's folder holds another run, or is in use
├── TokenizerUnavailable  (also LookupError) no tokenizer or no chat template where one is needed
└── Unrenderable          (also ValueError) the chat template cannot render or mask this example
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finetune.data.rows import Fault


class FinetuneError(Exception):
    """Base of every error of this package."""


class BadData(FinetuneError, ValueError):
    """The data cannot be trained on. The message lists every fault, one a line."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = tuple(faults)


class SourceUnreadable(FinetuneError, OSError):
    """Nothing can be read from the source; the message says why and the mend."""


class MissingExtra(FinetuneError, ImportError):
    """An optional package is missing; the message has the command that installs it."""


class TokenizerUnavailable(FinetuneError, LookupError):
    """The base model's tokenizer, or its chat template, was not found."""


class ModelUnavailable(FinetuneError, LookupError):
    """The base model cannot be loaded or trained; the message says why and the mend."""


class RunConflict(FinetuneError, RuntimeError):
    """The folder of the run cannot be used for it."""


class Unrenderable(FinetuneError, ValueError):
    """The chat template refuses this conversation, or leaves out part of an answer."""
