"""Errors of fine-tuning.

FinetuneError
├── BadConfig             (also ValueError) settings that do not go with each other or the data
├── BadData               (also ValueError) rows that cannot be trained on; `faults` has them all
├── SourceUnreadable      (also OSError) a file or a Hub data set that cannot be read at all
├── MissingExtra          (also ImportError) an optional package is not installed
├── ModelUnavailable      (also LookupError) the base model's weights are not there, or of no use
├── PlanRefused           (also ValueError) the run cannot start; `refusals` has every reason
├── DoesNotFit            (also MemoryError) the run needs more memory than there is
├── TrainingDiverged      (also ArithmeticError) the loss is no longer a number
├── WorkersFailed         (also RuntimeError) of several processes that train one ended badly
├── RunConflict           (also RuntimeError) the run's folder holds another run, or is in use
├── RunNotFound           (also LookupError) no run of that name or in that folder
├── ExportFailed          (also RuntimeError) a model could not be written in another form
├── TokenizerUnavailable  (also LookupError) no tokenizer or no chat template where one is needed
└── Unrenderable          (also ValueError) the chat template cannot render or mask this example
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finetune.data.rows import Fault
    from finetune.plan.refusals import Refusal


class FinetuneError(Exception):
    """Base of every error of this package."""

    code = "failed"
    """Its kind, for `summary.json` and events."""
    param: str | None = None
    """The setting that it is about, where it is one."""


class BadConfig(FinetuneError, ValueError):
    """Settings that cannot be run; `param` names the one to change."""

    code = "bad_config"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class BadData(FinetuneError, ValueError):
    """The data cannot be trained on. The message lists every fault, one a line."""

    code = "bad_data"
    param = "data"

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = tuple(faults)


class SourceUnreadable(FinetuneError, OSError):
    """Nothing can be read from the source; the message says why and the mend."""

    code = "source_unreadable"
    param = "data"


class MissingExtra(FinetuneError, ImportError):
    """An optional package is missing; the message has the command that installs it."""

    code = "missing_extra"


class TokenizerUnavailable(FinetuneError, LookupError):
    """The base model's tokenizer, or its chat template, was not found."""

    code = "tokenizer_unavailable"
    param = "model"


class ModelUnavailable(FinetuneError, LookupError):
    """The base model cannot be loaded or trained; the message says why and the mend."""

    code = "model_unavailable"
    param = "model"


class DoesNotFit(FinetuneError, MemoryError):
    """The memory does not suffice; the message says what to lower."""

    code = "does_not_fit"


class TrainingDiverged(FinetuneError, ArithmeticError):
    """The loss became NaN or infinite."""

    code = "diverged"
    param = "train.learning_rate"


class PlanRefused(FinetuneError, ValueError):
    """The run would not fit, or its adapter could not be served. Every reason, one a line."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        super().__init__("\n".join(str(refusal) for refusal in refusals))
        self.refusals = tuple(refusals)
        self.code, self.param = refusals[0].code, refusals[0].param


class WorkersFailed(FinetuneError, RuntimeError):
    """What one of several processes said, or the end of their output."""

    def __init__(
        self, message: str, code: str = "workers_failed", param: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


class RunConflict(FinetuneError, RuntimeError):
    """The folder of the run cannot be used for it."""

    code = "run_conflict"


class RunNotFound(FinetuneError, LookupError):
    """There is no such run."""

    code = "run_not_found"


class ExportFailed(FinetuneError, RuntimeError):
    """A merged or converted model could not be written, or was not what it should be."""

    code = "export_failed"


class Unrenderable(FinetuneError, ValueError):
    """The chat template refuses this conversation, or leaves out part of an answer."""

    code = "bad_data"
    param = "data"
